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
		{Name: "quinto.backup_s3_endpoint", Doc: "URL of an S3 server other than Amazon's; buckets are then named in the path.", field: func(c *Config) any { return &c.Backup.S3Endpoint }},
		{Name: "quinto.backup_s3_region", Doc: "Region of the bucket; empty: asked for.", field: func(c *Config) any { return &c.Backup.S3Region }},
	}
}
