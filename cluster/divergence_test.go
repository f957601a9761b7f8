package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"quinto/fsm"
	"quinto/fsm/store"
)

func TestJudge(t *testing.T) {
	a, b, c := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b")), sha256.Sum256([]byte("c"))
	type marks = map[uint64][sha256.Size]byte
	own := []fsm.Mark{{Index: 256, Hash: a}, {Index: 512, Hash: a}, {Index: 600, Hash: a}}
	for name, test := range map[string]struct {
		peers  map[string]marks
		voters int
		wrong  bool
		open   bool
	}{
		"alone":                     {nil, 1, false, false},
		"nobody answers":            {nil, 3, false, false},
		"equal":                     {map[string]marks{"x": {600: a}, "y": {512: a}}, 3, false, false},
		"a majority contradicts":    {map[string]marks{"x": {512: b}, "y": {512: b}}, 3, true, false},
		"at another place too":      {map[string]marks{"x": {512: b, 256: a}, "y": {512: b, 256: a}}, 3, true, false},
		"one contradicts":           {map[string]marks{"x": {512: b}, "y": {512: a}}, 3, false, false},
		"one of two":                {map[string]marks{"x": {600: b}}, 2, false, true},
		"all differ":                {map[string]marks{"x": {600: b}, "y": {600: c}}, 3, false, true},
		"nothing in common":         {map[string]marks{"x": {700: b}, "y": {800: b}}, 3, false, false},
		"two of five are no reason": {map[string]marks{"x": {256: b}, "y": {256: b}}, 5, false, true},
		"three of five are":         {map[string]marks{"x": {256: b}, "y": {256: b}, "z": {256: b}, "w": {256: a}}, 5, true, false},
	} {
		if v := judge(own, test.peers, test.voters); v.wrong != test.wrong || (v.text != "") != test.open {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestMarksEncoding(t *testing.T) {
	in := []fsm.Mark{{Index: 256, Hash: sha256.Sum256([]byte("x"))}, {Index: 300, Hash: sha256.Sum256(nil)}}
	out, err := decodeStateMarks(encodeStateMarks(in))
	if err != nil || len(out) != 2 || out[256] != in[0].Hash || out[300] != in[1].Hash {
		t.Fatal(out, err)
	}
	for _, bad := range [][]byte{{200, 1}, encodeStateMarks(in)[:20]} {
		if _, err := decodeStateMarks(bad); !errors.Is(err, fsm.ErrCorrupt) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

// dropRow takes the row of an object out of a stopped node's index: the node then
// decides another way than the others.
func dropRow(t *testing.T, c Config, path string) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: filepath.Join(c.DataDir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	h := s.Acquire()
	list, id := filepath.Split(path)
	key := append(append([]byte{0x02}, strings.TrimSuffix(list, "/")...), 0)
	key = append(key, id...)
	if _, closer, err := h.DB().Get(key); err != nil {
		t.Fatalf("%s: %v", path, err)
	} else if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	err = h.DB().Delete(key, pebble.NoSync)
	h.Release()
	if err = errors.Join(err, s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// A node whose state is not that of the others takes itself out of service and does
// not come back by a restart; one command lets it get everything from the others.
func TestDivergedNodeStandsDownAndIsRebuilt(t *testing.T) {
	t.Parallel()
	nodes := trio(t, func(c *Config) { c.CompareInterval = 100 * time.Millisecond })
	l := leaderOf(t, nodes...)
	mustPut(t, l, "first")
	victim, witness := others(l, nodes)[0], others(l, nodes)[1]
	sameState(t, nodes...)
	time.Sleep(300 * time.Millisecond) // some comparisons of equal nodes
	for _, n := range nodes {
		if err := n.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := victim.store.Flush(); err != nil {
		t.Fatal(err)
	}
	victim.stop(t)
	dropRow(t, victim.cfg, string(put("first").Ops[0].Path))
	bad := startNode(t, victim.cfg)
	v, err := witness.fsm.View()
	if err != nil {
		t.Fatal(err)
	}
	o, err := v.Get(put("first").Ops[0].Path)
	v.Close()
	if err != nil {
		t.Fatal(err)
	}
	// The write needs the object as it is: the damaged node finds none.
	again := put("first")
	again.Compares = []fsm.Compare{{Kind: fsm.CompareObject, Key: string(again.Ops[0].Path), Revision: o.Revision}}
	waitFor(t, "a leader that takes the write", func() bool {
		_, err := leaderOf(t, l, witness).Propose(t.Context(), again)
		return err == nil
	})
	select {
	case <-bad.Failed():
	case <-time.After(time.Minute):
		t.Fatal("the damaged node goes on")
	}
	if err := bad.Err(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "quinto cluster rebuild") {
		t.Fatal(err)
	}
	for _, n := range []*testNode{l, witness} {
		if err := n.Err(); err != nil {
			t.Errorf("a sound node: %v", err)
		}
	}
	bad.stop(t)
	if _, err := tryNode(t, victim.cfg); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a restart brings it back: %v", err)
	}
	before, err := StoredName(victim.cfg.DataDir)
	if err != nil || before != victim.cfg.Name {
		t.Fatal(before, err)
	}
	if err := Rebuild(victim.cfg, filepath.Join(victim.cfg.DataDir, "state")); err != nil {
		t.Fatal(err)
	}
	id, err := openIdentity(&victim.cfg)
	if err != nil || !id.get().Rebuilding || id.get().Damaged != "" || id.get().Stage != stageMember {
		t.Fatalf("%+v %v", id.get(), err)
	}
	for i := range 20 {
		mustPut(t, leaderOf(t, l, witness), fmt.Sprint("later", i))
	}
	back := startNode(t, victim.cfg)
	ready(t, back)
	sameState(t, l, witness, back)
	waitFor(t, "the end of the rebuild", func() bool { return !back.ident.get().Rebuilding })
	if !has(t, back, "first") || !has(t, back, "later19") {
		t.Error("something is missing on the rebuilt node")
	}
	// It counts as a voter again: with it and one other there is a majority.
	witness.stop(t)
	mustPut(t, leaderOf(t, l, back), "with two")
}

// A rebuild that was cut short anywhere can be run again.
func TestRebuildAfterACrash(t *testing.T) {
	n := startNode(t, testConfig(t, "n1"))
	ready(t, n)
	mustPut(t, n, "x")
	term := n.Term()
	n.stop(t)
	state := filepath.Join(n.cfg.DataDir, "state")
	path := filepath.Join(n.cfg.DataDir, logFile)
	if n.cfg.LogStore == LogWAL {
		path = filepath.Join(n.cfg.DataDir, logFolder)
	}
	for range 2 {
		if err := Rebuild(n.cfg, state); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path, path+".old"); err != nil { // a crash within the swap
			t.Fatal(err)
		}
	}
	if err := Rebuild(n.cfg, state); err != nil {
		t.Fatal(err)
	}
	c := n.cfg.withDefaults()
	_, stable, closeLog, err := openLog(&c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := stable.GetUint64([]byte(raftTermKey))
	if err = errors.Join(err, closeLog()); err != nil || got != term {
		t.Errorf("term %d, was %d: %v", got, term, err)
	}
	if err := Rebuild(testConfig(t, "n2"), t.TempDir()); !errors.Is(err, ErrDamaged) {
		t.Errorf("a folder of no member: %v", err)
	}
}
