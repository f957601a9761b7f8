package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quinto/cluster"
	"quinto/fsm"
	"quinto/internal/backup"
	"quinto/internal/config"
)

// archived waits until everything is archived, and returns the state of the archive.
func archived(t *testing.T, data string) (s archiveState) {
	t.Helper()
	until(t, "the log to be archived", func() bool {
		var b backupState
		if err := json.Unmarshal([]byte(good(t, "backup", "status", "--json", "--data", data)), &b); err != nil || b.Log == nil {
			t.Fatal(err, b)
		}
		s = *b.Log
		return s.Mine && s.Index > 0 && s.Entries == 0
	})
	return s
}

// archiving sets what a node needs to archive its log into place.
func archiving(t *testing.T, place string) {
	t.Helper()
	t.Setenv("QUINTO_BACKUP_TO", place)
	t.Setenv("QUINTO_ARCHIVE_LOG", "true")
	t.Setenv("QUINTO_ARCHIVE_SEGMENT_SECONDS", "1")
}

// segmentFiles are the segments in a folder of archives, sorted.
func segmentFiles(t *testing.T, place string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(place, backup.SegmentFolder, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files
}

// Any moment between the first archive and the last segment is restored, by its
// revision or its time, and is what readers saw then; what is wrong with the segments
// is told with its place, and nothing is left.
func TestPointInTime(t *testing.T) {
	dir := t.TempDir()
	place, data := filepath.Join(dir, "archives"), filepath.Join(dir, "data")
	archiving(t, place)
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KINTO_INI", ini)
	p := startProgram(t, "--data", data, "--port", "0")
	archived(t, data) // the first archive is there
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	type moment struct {
		revision, time, list string
	}
	var moments []moment
	see := func() {
		t.Helper()
		time.Sleep(5 * time.Millisecond) // the clock of entries has milliseconds
		_, _, _, revision := listRecords(t, p.url)
		_, list := send(t, "GET", p.url+records+"?_sort=id&_since=0", "")
		moments = append(moments, moment{revision, time.Now().UTC().Format(time.RFC3339Nano), list})
		time.Sleep(5 * time.Millisecond)
	}
	for i := range 4 {
		writeRecords(t, p.url, fmt.Sprintf("m%d-", i), 20)
		send(t, "DELETE", fmt.Sprintf("%s%s/m%d-3", p.url, records, i), "")
		see()
		archived(t, data)
	}
	if out := good(t, "backup", "status", "--data", data); !strings.Contains(out, "log: archived up to entry") {
		t.Errorf("%q", out)
	}
	send(t, "DELETE", p.url+"buckets/b", "") // the accident
	p.end(t)                                 // archives what is left

	out := good(t, "backup", "list", place)
	if !strings.Contains(out, "any moment from ") || strings.Contains(out, "gap") {
		t.Errorf("%q", out)
	}
	if out := good(t, "backup", "verify", place); !strings.Contains(out, " segments of the log with ") {
		t.Errorf("%q", out)
	}
	restore := func(to, into string, more ...string) []string {
		return append([]string{"restore", "--from", place, "--to", to, "--data", filepath.Join(dir, into)}, more...)
	}
	for i, m := range moments {
		for what, to := range map[string]string{"revision": m.revision, "time": m.time} {
			name := fmt.Sprintf("%s-%d", what, i)
			if out := good(t, restore(to, name, "--dry-run")...); !strings.Contains(out, "sound: ") || !strings.Contains(out, "up to revision "+m.revision) {
				t.Errorf("%q", out)
			}
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				t.Error("a dry run has left a folder")
			}
			if i%2 == 1 && what == "time" {
				continue // two of them are enough
			}
			if out := good(t, restore(to, name)...); !strings.Contains(out, "up to revision "+m.revision) {
				t.Errorf("%q", out)
			}
			t.Setenv("QUINTO_ARCHIVE_LOG", "false")
			t.Setenv("QUINTO_BACKUP_TO", "")
			q := startProgram(t, "--data", filepath.Join(dir, name), "--port", "0")
			if _, list := send(t, "GET", q.url+records+"?_sort=id&_since=0", ""); list != m.list {
				t.Errorf("%s %s: %s\nwas %s", what, to, list, m.list)
			}
			q.end(t)
			archiving(t, place)
		}
	}
	if out := good(t, restore("latest", "latest")...); !strings.Contains(out, "revision ") {
		t.Errorf("%q", out)
	}
	bad(t, ExitFailure, "not in the archive: revision 99999; archive ", restore("99999", "none")...)
	bad(t, ExitFailure, "not in the archive: 2100-01-01T00:00:00.000Z; archive ", restore("2100-01-01T00:00:00Z", "none")...)
	bad(t, ExitFailure, "the oldest archive of", restore("2020-01-01T00:00:00Z", "none")...)
	bad(t, ExitUsage, "--to: ", restore("yesterday", "none")...)
	bad(t, ExitUsage, "is not empty", restore("latest", "latest")...)
	if code, _, _ := run(t, restore("latest", "none", "--cluster", "another")...); code != ExitFailure {
		t.Error("another cluster was found")
	}
	damageSegments(t, place, restore)
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a restore that failed has left its folder")
	}
}

// damageSegments flips, cuts, swaps and removes segments, one at a time.
func damageSegments(t *testing.T, place string, restore func(to, into string, more ...string) []string) {
	files := segmentFiles(t, place)
	victim, next := files[1], files[2]
	sound, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(sound)
	flipped[len(sound)*2/3] ^= 0x10
	for name, c := range map[string]struct {
		data []byte // nil: removed
		text string
	}{
		"flipped": {flipped, filepath.Base(victim) + ": damaged archive: entry "},
		"cut":     {sound[:len(sound)-9], fmt.Sprintf("the archive ends at byte %d", len(sound)-9)},
		"empty":   {[]byte{}, filepath.Base(victim) + ": not a backup archive of quinto: head at byte 0"},
		"swapped": {other, "segment of another history"},
		"removed": {nil, "entries of the log are missing: entries "},
	} {
		if err := os.Remove(victim); err != nil {
			t.Fatal(err)
		}
		if c.data != nil {
			if err := os.WriteFile(victim, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		bad(t, ExitFailure, c.text, restore("latest", "none")...)
		bad(t, ExitFailure, c.text, restore("latest", "none", "--dry-run")...)
		if c.data != nil {
			code, _, stderr := run(t, "backup", "verify", place)
			if code != ExitFailure || !strings.Contains(stderr, filepath.Base(victim)) {
				t.Errorf("%s: exit %d, %q", name, code, stderr)
			}
		} else if out := good(t, "backup", "verify", place); !strings.Contains(out, "gap in the log: entries ") {
			t.Errorf("%q", out)
		}
		if err := os.WriteFile(victim, sound, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good(t, restore("latest", "none", "--dry-run")...)
}

// A log that was cut before it was archived leaves a gap: it is told wherever the
// archive is shown, a new archive begins at once, and what is on both sides of the gap
// is restored. Segments that no archive needs any more go.
func TestGapInTheArchivedLog(t *testing.T) {
	dir := t.TempDir()
	place, data := filepath.Join(dir, "archives"), filepath.Join(dir, "data")
	archiving(t, place)
	t.Setenv("QUINTO_SNAPSHOT_ENTRIES", "100")
	t.Setenv("QUINTO_TRAILING_ENTRIES", "64")
	t.Setenv("KINTO_INCLUDES", "kinto.plugins.prometheus")
	p := startProgram(t, "--data", data, "--port", "0")
	archived(t, data) // the first archive is there
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	archived(t, data)
	_, _, _, before := listRecords(t, p.url)
	p.end(t)
	t.Setenv("QUINTO_ARCHIVE_LOG", "false")
	p = startProgram(t, "--data", data, "--port", "0")
	until(t, "the log to be cut", func() bool {
		for i := range 100 {
			send(t, "PUT", fmt.Sprintf("%s%s/lost%d", p.url, records, i), "")
		}
		_, metrics := send(t, "GET", p.url+"__metrics__", "")
		_, first, _ := strings.Cut(metrics, "\nkinto_raft_first_index ")
		first, _, _ = strings.Cut(first, "\n")
		index, err := strconv.ParseFloat(first, 64)
		if err != nil {
			t.Fatal(err)
		}
		files := segmentFiles(t, place)
		last, _ := backup.ParseSegment(filepath.Base(files[len(files)-1]))
		return uint64(index) > last.Last+1
	})
	_, _, _, inside := listRecords(t, p.url)
	p.end(t)

	archiving(t, place)
	p = startProgram(t, "--data", data, "--port", "0")
	if s := archived(t, data); s.Gaps != 1 || s.Gap == "" {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(p.errs.String(), "a gap in the archive of the log") {
		t.Errorf("%q", p.errs.String())
	}
	if out := good(t, "backup", "status", "--data", data); !strings.Contains(out, "log: 1 gaps, the last: ") {
		t.Errorf("%q", out)
	}
	send(t, "PUT", p.url+records+"/after", "")
	archived(t, data)
	_, _, _, after := listRecords(t, p.url)
	p.end(t)
	if out := good(t, "backup", "list", place); !strings.Contains(out, "gap in the log: entries ") {
		t.Errorf("%q", out)
	}
	to := func(revision string) []string {
		return []string{"restore", "--from", place, "--to", revision, "--data", filepath.Join(dir, "new"), "--dry-run"}
	}
	good(t, to(before)...)
	good(t, to(after)...)
	bad(t, ExitFailure, "entries of the log are missing: entries ", to(fmt.Sprint(number(t, inside)-1))...)
}

// The same in a bucket of S3; see scripts/lib/s3.sh.
func TestPointInTimeFromS3(t *testing.T) {
	endpoint := os.Getenv("QUINTO_TEST_S3")
	if endpoint == "" {
		t.Skip("QUINTO_TEST_S3 is not set: make s3")
	}
	t.Setenv("QUINTO_BACKUP_S3_ENDPOINT", endpoint)
	t.Setenv("QUINTO_BACKUP_S3_REGION", "us-east-1")
	dir, place := t.TempDir(), fmt.Sprintf("s3://test/points-%d", time.Now().UnixNano())
	archiving(t, place)
	data := filepath.Join(dir, "data")
	p := startProgram(t, "--data", data, "--port", "0")
	archived(t, data) // the first archive is there
	makeTombstones(t, p.url, 2)
	archived(t, data)
	_, _, _, revision := listRecords(t, p.url)
	send(t, "DELETE", p.url+"buckets/b", "")
	p.end(t)
	for _, text := range []string{good(t, "backup", "list", place), good(t, "backup", "verify", place)} {
		if !strings.Contains(text, "any moment from") {
			t.Errorf("%q", text)
		}
	}
	if out := good(t, "restore", "--from", place, "--to", revision, "--data", filepath.Join(dir, "new")); !strings.Contains(out, "up to revision "+revision) {
		t.Errorf("%q", out)
	}
}

// alone opens a node that archives into place, but only when the test says so.
func alone(t *testing.T, place string) *Node {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "k.ini")
	text := "[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.storage_backend = kinto.core.storage.memory\nkinto.userid_hmac_secret = a\nquinto.backup_node = nobody\nquinto.archive_log = true\nquinto.backup_to = " + place + "\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Options{Path: ini, Flags: map[string]string{config.PortKey: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := OpenNode(t.Context(), NodeOptions{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	if err := n.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// A clock that was years ahead for a moment made an archive, and the next one is due in
// years: a day after the clock is right again one is made all the same.
func TestArchiveOfTheFutureHoldsNothingUp(t *testing.T) {
	n := alone(t, filepath.Join(t.TempDir(), "archives"))
	for range 2 { // the second is not due
		if err := n.backups.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if made := n.backups.status().Made; made != 1 {
		t.Fatalf("%d archives", made)
	}
	n.backups.now = func() time.Time { return time.Now().AddDate(-3, 0, 0) }
	if err := n.backups.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if made := n.backups.status().Made; made != 2 {
		t.Errorf("%d archives three years before the first", made)
	}
}

// The file system with the archives hangs, and with it what writes there: a node that is
// told to stop does.
func TestPlaceThatHangsDoesNotKeepANode(t *testing.T) {
	t.Parallel()
	n := alone(t, filepath.Join(t.TempDir(), "archives"))
	hang := make(chan struct{})
	defer close(hang)
	n.backups.wg.Go(func() { <-hang })
	n.archive.wg.Go(func() { <-hang })
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2*placeGrace + time.Minute):
		t.Fatal("it waits for ever")
	}
}

// A member that does not answer may have what this node lacks: it is a gap once that has
// lasted, not at once.
func TestMemberThatDoesNotAnswerIsNoGap(t *testing.T) {
	var a archiver
	compacted, notAsked := cluster.ErrCompacted, errors.Join(cluster.ErrCompacted, cluster.ErrNotAsked)
	for i, c := range []struct {
		err  error
		ago  time.Duration
		lost bool
	}{{compacted, 0, true}, {notAsked, 0, false}, {notAsked, 2 * archivePatience, true}, {compacted, 0, true}, {nil, 0, false}, {notAsked, 0, false}, {context.Canceled, 0, false}} {
		if c.ago > 0 {
			a.unasked = time.Now().Add(-c.ago)
		}
		if got := a.lost(c.err); got != c.lost {
			t.Errorf("%d: %v after %v: %v", i, c.err, c.ago, got)
		}
	}
}

// The schedule and the archiver find an empty place at the same moment: one archive is
// made, and the log goes on behind it. With one from each there would be a gap between.
func TestScheduleAndArchiverBeginTogether(t *testing.T) {
	n := alone(t, filepath.Join(t.TempDir(), "archives"))
	if err := n.backups.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.cluster.Propose(t.Context(), fsm.Txn{Now: n.cluster.Now(), Ops: []fsm.Op{{Type: fsm.OpPut, Path: "/buckets/b", Data: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	if err := n.archive.first(t.Context(), n.state.Position()); err != nil {
		t.Fatal(err)
	}
	base, err := n.archive.newest(t.Context())
	if err != nil || base == nil || n.archive.next != base.Index+1 || n.backups.status().Made != 1 {
		t.Errorf("the log goes on at %d behind %+v, %d archives, %v", n.archive.next, base, n.backups.status().Made, err)
	}
}
