package config

import "time"

// Backup says when and where archives of the state are made.
type Backup struct {
	// To is a folder or s3://bucket/prefix; empty: none are made on a schedule.
	To string
	// Every is the time from one archive to the next.
	Every time.Duration
	// Node makes them; empty: whichever node leads.
	Node string
	// Keep is how many archives stay at least.
	Keep int
	// KeepAge keeps all that are younger; 0: only their number counts.
	KeepAge time.Duration
	// BytesPerSecond bounds how fast the state is read; 0: not bounded.
	BytesPerSecond int64
	// ArchiveLog keeps the log too, in segments, so that any moment can be restored.
	ArchiveLog bool
	// SegmentEvery and SegmentBytes say when a segment is closed: whichever is first.
	SegmentEvery time.Duration
	SegmentBytes int64
	// HoldBytes is about how much of the log each node keeps for segments that cannot
	// be written now.
	HoldBytes int64
	// S3Endpoint is the URL of an S3 server other than Amazon's.
	S3Endpoint string
	// S3Region is the region of the bucket.
	S3Region string
}

func backupSettings() []Setting {
	return []Setting{
		{Name: "quinto.backup_to", Doc: "Folder or `s3://bucket/prefix` for archives on a schedule; empty: none are made.", field: func(c *Config) any { return &c.Backup.To }},
		{Name: "quinto.backup_interval_seconds", Default: "86400", Min: 1, Max: 366 * 24 * 3600, Unit: time.Second, Doc: "From one archive to the next.", field: func(c *Config) any { return &c.Backup.Every }},
		{Name: "quinto.backup_node", Doc: "Name of the node that makes them; empty: the leader. A folder that the nodes do not share wants a name here.", field: func(c *Config) any { return &c.Backup.Node }},
		{Name: "quinto.backup_keep", Default: "7", Min: 1, Max: 100_000, Doc: "How many archives of this cluster stay at least.", field: func(c *Config) any { return &c.Backup.Keep }},
		{Name: "quinto.backup_keep_days", Default: "0", Max: 36500, Unit: 24 * time.Hour, Doc: "Archives younger than this stay, however many they are; 0: only their number counts.", field: func(c *Config) any { return &c.Backup.KeepAge }},
		{Name: "quinto.backup_bytes_per_second", Default: "67108864", Max: 100 * gib, Doc: "How fast the state is read for an archive, also for `quinto backup`; 0: not bounded.", field: func(c *Config) any { return &c.Backup.BytesPerSecond }},
		{Name: "quinto.archive_log", Default: "false", Doc: "Also keep the log, in segments beside the archives of `quinto.backup_to`, so that any moment between can be restored.", field: func(c *Config) any { return &c.Backup.ArchiveLog }},
		{Name: "quinto.archive_segment_seconds", Default: "60", Min: 1, Max: 24 * 3600, Unit: time.Second, Doc: "A segment is closed when its first entry is so old.", field: func(c *Config) any { return &c.Backup.SegmentEvery }},
		{Name: "quinto.archive_segment_bytes", Default: "16777216", Min: 64 << 10, Max: 256 << 20, Doc: "A segment is closed when its entries are so large.", field: func(c *Config) any { return &c.Backup.SegmentBytes }},
		{Name: "quinto.archive_hold_bytes", Default: "536870912", Max: 100 * gib, Doc: "About how much of the log each node keeps on its disk while segments cannot be written; beyond it there is a gap, and a new archive.", field: func(c *Config) any { return &c.Backup.HoldBytes }},
		{Name: "quinto.backup_s3_endpoint", Doc: "URL of an S3 server other than Amazon's; buckets are then named in the path.", field: func(c *Config) any { return &c.Backup.S3Endpoint }},
		{Name: "quinto.backup_s3_region", Doc: "Region of the bucket; empty: asked for.", field: func(c *Config) any { return &c.Backup.S3Region }},
	}
}
