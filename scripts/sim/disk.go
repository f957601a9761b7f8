package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
)

// disk is what a simulated machine keeps: the files of the store and the Raft log. Of
// what was not synced a crash leaves some or nothing.
//
// The log is no file. Both libraries that quinto ships write through the operating
// system, bolt by a memory map, so that nothing can come between them and the disk; they
// are tested under scripts/faults, where a power cut is a copy of the disk's image. What
// is simulated here is their contract with Raft: what StoreLogs and Set returned is
// durable, of what they were still writing a beginning may be.
type disk struct {
	mu   sync.Mutex
	rand *rand.Rand
	mem  *vfs.MemFS
	log  *logFile
	sync time.Duration // that a sync of the log takes, in the mean

	hang    chan struct{} // closed when the disk goes on; nil: it does
	failing bool          // writes fail
	full    bool
}

func newDisk(seed, number uint64, sync time.Duration) *disk {
	return &disk{rand: rand.New(rand.NewPCG(seed, 1000+number)), mem: vfs.NewCrashableMem(), sync: sync,
		log: &logFile{entries: map[uint64]raft.Log{}, keys: map[string][]byte{}, cut: make(chan struct{})}}
}

// crash loses what was not synced. Whoever still writes from before writes into the
// void. The log is taken first: the store never holds what the log does not.
func (d *disk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = d.log.crash(d.rand)
	d.mem = d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 0, 30, 100}[d.rand.IntN(4)], RNG: d.rand})
}

// set changes what the disk does.
func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// hangs makes the disk hang; the result makes it go on.
func (d *disk) hangs() (release func()) {
	c := make(chan struct{})
	d.set(func(d *disk) { d.hang = c })
	return func() {
		d.set(func(d *disk) { d.hang = nil })
		close(c)
	}
}

// free is what Config.FreeBytes tells.
func (d *disk) free() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return 0, nil
	}
	return 1 << 40, nil
}

var errDisk = errors.New("simulated error of the disk")

// files is the file system of one boot.
func (d *disk) files(dead <-chan struct{}) vfs.FS {
	return errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpLock {
			return nil
		}
		d.mu.Lock()
		hang, failing, full := d.hang, d.failing, d.full
		d.mu.Unlock()
		if hang != nil {
			select {
			case <-hang:
			case <-dead:
			}
		}
		// An error where Pebble writes its manifest ends the process, and would end the
		// simulation with it: only tables and received snapshots fail.
		table := strings.HasSuffix(op.Path, ".sst") || strings.Contains(op.Path, "incoming")
		grows := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncTo || op.Kind == errorfs.OpFileSyncData
		select {
		case <-dead:
			return nil
		default:
		}
		switch {
		case !table || !grows:
			return nil
		case full:
			return syscall.ENOSPC
		case failing:
			return errDisk
		}
		return nil
	}))
}

// logFile is the durable Raft log of a machine.
type logFile struct {
	mu      sync.Mutex
	entries map[uint64]raft.Log
	first   uint64
	last    uint64
	keys    map[string][]byte
	writing []*raft.Log
	dead    bool
	cut     chan struct{} // closed with dead
}

// crash returns what is left; this one takes no more.
func (f *logFile) crash(r *rand.Rand) *logFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := &logFile{entries: map[uint64]raft.Log{}, first: f.first, last: f.last, keys: map[string][]byte{}, cut: make(chan struct{})}
	for i, l := range f.entries {
		left.entries[i] = l
	}
	for k, v := range f.keys {
		left.keys[k] = v
	}
	if len(f.writing) > 0 {
		left.add(f.writing[:r.IntN(len(f.writing)+1)])
	}
	f.dead = true
	close(f.cut)
	return left
}

func (f *logFile) add(logs []*raft.Log) {
	for _, l := range logs {
		f.entries[l.Index] = *l
		f.last = max(f.last, l.Index)
		if f.first == 0 || l.Index < f.first {
			f.first = l.Index
		}
	}
}

// raftLog is the log as one boot has it open.
type raftLog struct {
	d *disk
	f *logFile
}

// write waits as long as the disk takes for a sync.
func (r raftLog) write() error {
	r.d.mu.Lock()
	hang, failing, full := r.d.hang, r.d.failing, r.d.full
	pause := time.Duration(0)
	if r.d.sync > 0 {
		pause = time.Duration(r.d.rand.Int64N(2 * int64(r.d.sync)))
	}
	r.d.mu.Unlock()
	if pause > 0 {
		time.Sleep(pause)
	}
	if hang != nil {
		select {
		case <-hang:
		case <-r.f.cut:
		}
	}
	switch {
	case full:
		return syscall.ENOSPC
	case failing:
		return errDisk
	}
	return nil
}

// FirstIndex is raft.LogStore's.
func (r raftLog) FirstIndex() (uint64, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.first, nil
}

// LastIndex is raft.LogStore's.
func (r raftLog) LastIndex() (uint64, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.last, nil
}

// GetLog is raft.LogStore's.
func (r raftLog) GetLog(index uint64, l *raft.Log) error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	have, ok := r.f.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = have
	return nil
}

// StoreLog is raft.LogStore's.
func (r raftLog) StoreLog(l *raft.Log) error { return r.StoreLogs([]*raft.Log{l}) }

// StoreLogs is raft.LogStore's.
func (r raftLog) StoreLogs(logs []*raft.Log) error {
	r.f.mu.Lock()
	r.f.writing = logs
	r.f.mu.Unlock()
	err := r.write()
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.writing = nil
	if r.f.dead {
		return errDead
	}
	if err == nil {
		r.f.add(logs)
	}
	return err
}

// DeleteRange is raft.LogStore's.
func (r raftLog) DeleteRange(from, to uint64) error {
	if err := r.write(); err != nil {
		return err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if r.f.dead {
		return errDead
	}
	f := r.f
	for i := from; i <= to; i++ {
		delete(f.entries, i)
	}
	if from <= f.first {
		f.first = to + 1
	}
	if to >= f.last {
		f.last = from - 1
	}
	if f.first > f.last {
		f.first, f.last = 0, 0
	}
	return nil
}

var errNoKey = errors.New("not found") // Raft compares the text

// Set is raft.StableStore's. A real node ends by a panic of Raft's when this fails; one
// whose process has ended already is told that all is well.
func (r raftLog) Set(key, value []byte) error {
	_ = r.write() // hangs, but never fails: see above
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if !r.f.dead {
		r.f.keys[string(key)] = append([]byte(nil), value...)
	}
	return nil
}

// Get is raft.StableStore's.
func (r raftLog) Get(key []byte) ([]byte, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	v, ok := r.f.keys[string(key)]
	if !ok {
		return nil, errNoKey
	}
	return append([]byte(nil), v...), nil
}

// SetUint64 is raft.StableStore's.
func (r raftLog) SetUint64(key []byte, value uint64) error {
	return r.Set(key, fmt.Appendf(nil, "%d", value))
}

// GetUint64 is raft.StableStore's.
func (r raftLog) GetUint64(key []byte) (uint64, error) {
	text, err := r.Get(key)
	if err != nil {
		return 0, err
	}
	var v uint64
	_, err = fmt.Sscan(string(text), &v)
	return v, err
}
