package store

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FormatMajorVersion pins Pebble's on-disk format, so that an upgrade of the
// library never changes the files by itself: a change is a decision of its
// own, taken when every node of a cluster can read the new format.
const FormatMajorVersion = pebble.FormatTableFormatV6

// Defaults and fixed settings, from measurements with a million records of
// 300 bytes.
const (
	// DefaultCacheBytes is the size of the block cache, shared by the live
	// database and one that is being installed. 128 MiB leaves a node with a
	// million small records well below 500 MB.
	DefaultCacheBytes int64 = 128 << 20
	// DefaultMemTableBytes is the size at which a memtable is flushed. What a
	// crash loses of it is replayed from the Raft log.
	DefaultMemTableBytes uint64 = 32 << 20
	// DefaultFlushTimeout bounds the wait of Persist and Install for a flush.
	DefaultFlushTimeout = 30 * time.Second
	// CloseTimeout bounds the wait of Close for handles held by others.
	CloseTimeout = 10 * time.Second

	blockBytes            = 4 << 10
	indexBlockBytes       = 256 << 10 // one level of index: a second one cost a read 15 %
	bloomBitsPerKey       = 10
	memTableStopThreshold = 4 // memtables queued before writes stall
	l0CompactionThreshold = 4
	l0StopWritesThreshold = 1000 // Apply must not stall because of compactions
	maxCompactions        = 2
)

// Options configure Open. The zero value of each field but Dir is usable.
type Options struct {
	// FS holds all files: nil means the operating system's; vfs.NewMem() keeps
	// everything in memory.
	FS vfs.FS
	// Dir is the directory of the store; it is created if missing.
	Dir string
	// CacheBytes is the block cache; 0 means DefaultCacheBytes.
	CacheBytes int64
	// MemTableBytes is the memtable size; 0 means DefaultMemTableBytes.
	MemTableBytes uint64
	// FlushTimeout bounds Persist and Install; 0 means DefaultFlushTimeout.
	FlushTimeout time.Duration
	// OnEvent receives what a watchdog must know. It is called with locks of the
	// database held: it must not block and must not call the store.
	OnEvent func(Event)
	// Prepare, if set, is called by Install with the unpacked database before
	// anything is committed: to refuse a state this build cannot read, and to
	// rewrite, for a backup, the keys that tie it to another cluster. Writes use
	// pebble.NoSync and are flushed before the swap. The reserved keys are
	// already right. The old state stays live while it runs, and an error keeps it.
	Prepare func(db *pebble.DB, kind Kind, index, term uint64) error
	// Crash is a hook for tests, called at each named crash point; nil otherwise.
	Crash func(point string)
}

// EventKind says what happened to the database.
type EventKind uint8

// The kinds of Event.
const (
	// EventBackgroundError: a flush or compaction failed and is tried again
	// without end, about 500 times a second. On a full disk writes soon hang.
	EventBackgroundError EventKind = iota + 1
	// EventWriteStallBegin: writes, that is Apply, wait for flushes.
	EventWriteStallBegin
	// EventWriteStallEnd: writes go on.
	EventWriteStallEnd
	// EventCorruption: a file of the database does not match its checksum.
	EventCorruption
	// EventFatal: the process must stop: the store is broken, or the database
	// gave up (a panic follows then).
	EventFatal
)

// Event reports something a watchdog must know.
type Event struct {
	Kind EventKind
	Err  error // what went wrong; nil for EventWriteStallEnd
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.FlushTimeout == 0 {
		o.FlushTimeout = DefaultFlushTimeout
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.Crash == nil {
		o.Crash = func(string) {}
	}
	return o
}

// pebbleOptions are the options of every database of the store. mustExist
// makes opening fail rather than create an empty database.
func (s *Store) pebbleOptions(mustExist bool) *pebble.Options {
	o := &pebble.Options{
		FS:                          s.fs,
		Cache:                       s.cache,
		DisableWAL:                  true,
		FormatMajorVersion:          FormatMajorVersion,
		ErrorIfNotExists:            mustExist,
		MemTableSize:                s.opts.MemTableBytes,
		MemTableStopWritesThreshold: memTableStopThreshold,
		L0CompactionThreshold:       l0CompactionThreshold,
		L0StopWritesThreshold:       l0StopWritesThreshold,
		CompactionConcurrencyRange:  func() (int, int) { return 1, maxCompactions },
		Logger:                      quietLogger{s.opts.OnEvent},
		EventListener:               eventListener(s.opts.OnEvent),
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = blockBytes
		l.IndexBlockSize = indexBlockBytes
		l.FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
		l.Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		if i == 0 { // rewritten soon: compressing them twice was 4 % of a write
			l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		}
	}
	return o
}

func eventListener(emit func(Event)) *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { emit(Event{EventBackgroundError, err}) },
		DataCorruption:  func(i pebble.DataCorruptionInfo) { emit(Event{EventCorruption, i.Details}) },
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			emit(Event{EventWriteStallBegin, fmt.Errorf("writes wait: %s", i.Reason)})
		},
		WriteStallEnd: func() { emit(Event{Kind: EventWriteStallEnd}) },
	}
}

// quietLogger drops Pebble's chatter: what matters arrives as an Event.
type quietLogger struct{ emit func(Event) }

// Infof drops the line.
func (quietLogger) Infof(string, ...any) {}

// Errorf drops the line; the same error arrives as a BackgroundError.
func (quietLogger) Errorf(string, ...any) {}

// Fatalf must not return: Pebble calls it where going on would damage data,
// for instance when the manifest cannot be synced.
func (l quietLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("store: database gave up: "+format, args...)
	l.emit(Event{EventFatal, err})
	panic(err)
}
