package testcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// moment is what a linearizable read showed, and at which revision.
type moment struct{ revision, body string }

// look reads a list through n.
func look(t *testing.T, ctx context.Context, n *Node, path string) moment {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL(path)+"?_sort=id", nil)
	check(t, err)
	r.SetBasicAuth("tester", "tester")
	r.Header.Set("Quinto-Consistency", "linearizable")
	var a *http.Response
	var body []byte
	for end := time.Now().Add(askLimit); ; { // as Ask, with the headers of the answer
		a, err = n.Client().Do(r)
		check(t, err)
		body, err = io.ReadAll(a.Body)
		_ = a.Body.Close()
		check(t, err)
		if a.StatusCode != http.StatusServiceUnavailable || time.Now().After(end) || sleep(ctx, 100*time.Millisecond) != nil {
			break
		}
	}
	if a.StatusCode != http.StatusOK {
		t.Fatalf("%d %.200s", a.StatusCode, body)
	}
	return moment{a.Header.Get("Quinto-Revision"), string(body)}
}

// TestPointInTimeAcrossLeaders: while clients write, the leader, which archives the log,
// is killed, and later its successor; logs are cut early, so that what the archive
// still needs has to be held. The state of each moment that a reader saw is restored:
// whatever one leader archived and another one again is the same.
func TestPointInTimeAcrossLeaders(t *testing.T) {
	place := filepath.Join(t.TempDir(), "archives")
	c, ctx := start(t, 3, append([]string{
		"quinto.backup_to = " + place, "quinto.archive_log = true", "quinto.archive_segment_seconds = 1", "quinto.archive_segment_bytes = 65536",
	}, smallLog...)...)
	l := must(c.StartLoad(ctx, "points", 4))(t)
	archived := func(what string) {
		t.Helper()
		n := must(c.Leader(ctx))(t)
		for {
			var s struct {
				Log struct {
					Mine                 bool
					Index, Entries, Gaps uint64
				}
			}
			check(t, json.Unmarshal([]byte(quinto(t, "backup", "status", "--json", "--ini", c.INI, "--data", n.Dir)), &s))
			if s.Log.Gaps > 0 {
				t.Fatalf("%s: %d gaps", what, s.Log.Gaps)
			}
			if s.Log.Mine && s.Log.Index > 0 && (s.Log.Entries == 0 || !l.stopped()) {
				return
			}
			if sleep(ctx, 100*time.Millisecond) != nil {
				t.Fatalf("%s: in vain", what)
			}
		}
	}
	archived("the first archive")
	var moments []moment
	for round := range 3 {
		for range 3 {
			check(t, sleep(ctx, 300*time.Millisecond))
			moments = append(moments, look(t, ctx, c.Nodes[round%3].live(c), l.path))
		}
		if round == 2 {
			break
		}
		leader := must(c.Leader(ctx))(t)
		check(t, leader.Kill())
		next := must(c.Leader(ctx))(t)
		moments = append(moments, look(t, ctx, next, l.path))
		check(t, leader.Start())
		check(t, leader.WaitReady(ctx))
		archived("the next leader")
	}
	finish(t, ctx, c, l)
	archived("everything")
	t.Logf("%d moments seen", len(moments))
	if out := quinto(t, "backup", "verify", place); strings.Contains(out, "gap") || !strings.Contains(out, "any moment from") {
		t.Fatal(out)
	}
	for i, m := range moments {
		to := []string{"restore", "--ini", c.INI, "--from", place, "--to", m.revision, "--name", "n1", "--data"}
		if i%4 != 2 { // all are checked, each fourth is started
			if out := quinto(t, append(to, filepath.Join(t.TempDir(), "none"), "--dry-run")...); !strings.Contains(out, "up to revision "+m.revision+",") {
				t.Error(out)
			}
			continue
		}
		one, err := New(Options{Binary: binary, Dir: t.TempDir()})
		check(t, err)
		quinto(t, append(to, one.Nodes[0].Dir)...)
		check(t, one.Start(ctx))
		if got := look(t, ctx, one.Nodes[0], l.path); got.body != m.body {
			t.Errorf("revision %s: %s", m.revision, difference(got.body, m.body))
		}
		check(t, one.Close())
	}
}

// difference shows where two texts part.
func difference(got, want string) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("%d bytes, want %d; from byte %d on %.120s, want %.120s", len(got), len(want), i, got[i:], want[i:])
}
