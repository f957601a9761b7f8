package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestMemberWithoutTermIsRefused: when the Raft log of a member is lost and its
// snapshot covers all that its state holds, nothing else shows that its votes and
// the end of its log are gone.
func TestMemberWithoutTermIsRefused(t *testing.T) {
	for _, library := range []string{LogBolt, LogWAL} {
		t.Run(library, func(t *testing.T) {
			c := testConfig(t, "solo")
			c.LogStore = library
			n, err := tryNode(t, c)
			if err != nil {
				t.Fatal(err)
			}
			ready(t, n)
			mustPut(t, n, "a")
			if err := n.raft.Snapshot().Error(); err != nil {
				t.Error(err)
			}
			n.stop(t)
			for _, name := range []string{logFile, logFolder} {
				if err := os.RemoveAll(filepath.Join(c.DataDir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if n, err = tryNode(t, c); err == nil {
				n.stop(t)
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("started: %v", err)
			}
		})
	}
}
