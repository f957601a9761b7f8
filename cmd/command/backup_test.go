package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/api"
	"quinto/fsm"
	"quinto/internal/config"
)

const records = "buckets/b/collections/c/records"

// writeRecords writes n records, some at a time.
func writeRecords(t *testing.T, url, prefix string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < n; i += 8 {
				if status, body := send(t, "PUT", fmt.Sprintf("%s%s/%s%d", url, records, prefix, i), `{"data":{"n":1}}`); status != 201 {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
	wg.Wait()
}

// listRecords returns how many records there are, the list's ETag and the revision.
func listRecords(t *testing.T, url string, headers ...string) (status, count int, etag, revision string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url+records, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("alice", "secret")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	var body struct{ Data []json.RawMessage }
	if a.StatusCode == http.StatusOK {
		if err := json.NewDecoder(a.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
	}
	return a.StatusCode, len(body.Data), a.Header.Get("ETag"), a.Header.Get("Quinto-Revision")
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// good runs a command that must succeed, and returns what it printed.
func good(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := run(t, args...)
	if code != ExitOK {
		t.Fatalf("%v: exit %d, %q %q", args, code, stdout, stderr)
	}
	return stdout
}

// bad runs a command that must fail with one line that has text in it.
func bad(t *testing.T, want int, text string, args ...string) {
	t.Helper()
	code, stdout, stderr := run(t, args...)
	if code != want || !strings.Contains(stderr, text) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%v: exit %d, %q %q", args, code, stdout, stderr)
	}
}

// A backup of a long log becomes a new cluster: what is written there is kept, its
// revisions and ETags lie above all that the lost life gave out, and a token of that
// life is told so. (D6 of the design: with the indexes of the old log the first
// writes of the new one would be acknowledged and skipped.)
func TestBackupBecomesACluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	archive := at("all.backup")
	p := startProgram(t, "--ini", ini, "--data", at("old"), "--port", "0")
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	writeRecords(t, p.url, "old", 150)
	_, _, _, shared := listRecords(t, p.url)
	if out := good(t, "backup", "--ini", ini, "--data", at("old"), "--to", archive); !strings.Contains(out, "verified: ") || !strings.Contains(out, "revision "+shared) {
		t.Errorf("%q", out)
	}
	writeRecords(t, p.url, "lost", 3)
	_, _, lostETag, lost := listRecords(t, p.url)
	p.end(t)
	// A list that takes more than a write in a millisecond runs ahead of the clock.
	for ahead := number(t, lostETag); uint64(time.Now().UnixMilli()) <= ahead; {
		time.Sleep(time.Millisecond)
	}

	if out := good(t, "restore", "--ini", ini, "--data", at("n0"), "--name", "n0", "--from", archive); !strings.Contains(out, "node n0 founds cluster") {
		t.Errorf("%q", out)
	}
	gossip := []string{freePort(t), freePort(t), freePort(t)}
	ports := []string{freePort(t), freePort(t), freePort(t)}
	programs := make([]*program, 3)
	start := func() {
		var wg sync.WaitGroup
		for i := range programs {
			args := []string{"--ini", ini, "--data", at(fmt.Sprintf("n%d", i)), "--port", "0", "--name", fmt.Sprintf("n%d", i),
				"--cluster", ports[i], "--gossip", gossip[i], "--join", strings.Join(gossip, ",")}
			wg.Go(func() { programs[i] = startProgram(t, args...) })
		}
		wg.Wait()
	}
	start()
	status, count, etag, revision := listRecords(t, programs[2].url)
	if status != 200 || count != 150 || number(t, revision) < uint64(fsm.LifeStep) || number(t, etag) <= number(t, lostETag) {
		t.Fatalf("%d: %d records, ETag %s (lost %s), revision %s", status, count, etag, lostETag, revision)
	}
	for _, c := range []struct {
		token string
		want  int
	}{{lost, 410}, {shared, 200}, {revision, 200}} {
		for _, q := range programs {
			if got, _, _, _ := listRecords(t, q.url, "Quinto-Consistency", "session", "Quinto-Revision", c.token); got != c.want {
				t.Errorf("token %s: %d, want %d", c.token, got, c.want)
			}
		}
	}
	writeRecords(t, programs[1].url, "new", 100)
	for _, q := range programs {
		q.end(t)
	}
	start()
	for _, q := range programs {
		if _, count, _, _ := listRecords(t, q.url); count != 250 {
			t.Errorf("%d records after all nodes were restarted", count)
		}
	}
	// Any node makes a backup, also one that does not lead; a stopped member too, of
	// what it has.
	for i := range programs {
		good(t, "backup", "--ini", ini, "--data", at(fmt.Sprintf("n%d", i)), "--to", at("archives")+"/")
	}
	good(t, "backup", "verify", at("archives"))
	programs[2].end(t)
	code, out, stderr := run(t, "backup", "--ini", ini, "--data", at("n2"), "--to", at("stopped.backup"))
	if code != ExitOK || !strings.Contains(stderr, "may lack acknowledged writes") || !strings.Contains(out, "verified") {
		t.Errorf("exit %d, %q %q", code, out, stderr)
	}
	// A node that is damaged is emptied by one command, and gets everything from the others.
	rebuild := []string{"cluster", "rebuild", "--ini", ini, "--data", at("n2"), "--http"}
	bad(t, ExitFailure, "does not answer", append(rebuild, "127.0.0.1:1")...)
	bad(t, ExitFailure, "a process serves data folder", "cluster", "rebuild", "--ini", ini, "--data", at("n1"), "--http", programs[0].url)
	bad(t, ExitFailure, "is of no node", "cluster", "rebuild", "--ini", ini, "--data", at("none"), "--http", programs[0].url)
	// A folder that was misspelt is no empty cluster that one could have a backup of.
	bad(t, ExitFailure, "is of no node", "backup", "--data", at("none"), "--to", at("none.backup"))
	bad(t, ExitFailure, "is of no node", "export", "--data", at("none"))
	for _, made := range []string{"none", "none.backup"} {
		if _, err := os.Stat(at(made)); err == nil {
			t.Errorf("%s was made", made)
		}
	}
	if out := good(t, append(rebuild, programs[0].url)...); !strings.Contains(out, "start node n2 as usual") {
		t.Errorf("%q", out)
	}
	programs[2] = startProgram(t, "--ini", ini, "--data", at("n2"), "--port", "0", "--name", "n2",
		"--cluster", ports[2], "--gossip", gossip[2], "--join", strings.Join(gossip, ","))
	if _, count, _, _ := listRecords(t, programs[2].url, "Quinto-Consistency", "stale"); count != 250 {
		t.Errorf("%d records on the rebuilt node", count)
	}
}

// A restore that was killed at any point leaves a folder that does not start, as a node
// without data or otherwise, and the same command run again completes it.
func TestRestoreThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	archive, data := filepath.Join(dir, "all.backup"), filepath.Join(dir, "new")
	p := startProgram(t, "--ini", ini, "--data", filepath.Join(dir, "old"), "--port", "0")
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	writeRecords(t, p.url, "old", 3)
	p.end(t)
	good(t, "backup", "--ini", ini, "--data", filepath.Join(dir, "old"), "--to", archive)
	restore := []string{"restore", "--ini", ini, "--data", data, "--from", archive}
	good(t, restore...)
	for _, kept := range [][]string{{}, {"db"}, {"db", "raft.db"}, {"db", "raft.db", "node", "name"}} {
		all, err := os.ReadDir(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if !slices.Contains(kept, e.Name()) {
				if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(data, replayFolder), 0o700), os.WriteFile(filepath.Join(data, restoringFile), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		bad(t, ExitUsage, "run it again", "start", "--ini", ini, "--data", data, "--port", "0")
		text := "run it again"
		if len(kept) == 0 {
			text = "is of no node"
		}
		bad(t, ExitFailure, text, "backup", "--ini", ini, "--data", data, "--to", filepath.Join(dir, "none.backup"))
		good(t, restore...)
	}
	p = startProgram(t, "--ini", ini, "--data", data, "--port", "0")
	if status, count, _, _ := listRecords(t, p.url); status != 200 || count != 3 {
		t.Errorf("%d: %d records", status, count)
	}
	bad(t, ExitUsage, "is not empty", restore...)
	p.end(t)
	// What fails leaves nothing, and no folder that it made.
	bad(t, ExitFailure, "no such file", "restore", "--ini", ini, "--data", filepath.Join(dir, "never"), "--from", filepath.Join(dir, "no.backup"))
	if _, err := os.Stat(filepath.Join(dir, "never")); err == nil {
		t.Error("a folder is left")
	}
}

// A node is emptied only if the others have everything without it.
func TestCanSpare(t *testing.T) {
	member := func(name, suffrage string, ready bool) fsm.Member {
		return fsm.Member{Name: name, Suffrage: suffrage, Ready: ready}
	}
	for name, c := range map[string]struct {
		leader  string
		members []fsm.Member
		want    string // empty: it can be spared
	}{
		"two of three are ready": {"b", []fsm.Member{member("a", "voter", false), member("b", "voter", true), member("c", "voter", true)}, ""},
		"one of three":           {"b", []fsm.Member{member("a", "voter", false), member("b", "voter", true), member("c", "voter", false)}, "only 1 of 3"},
		"the only copy":          {"b", []fsm.Member{member("a", "voter", false), member("b", "voter", true)}, "only 1 of 2"},
		"no leader":              {"", []fsm.Member{member("a", "voter", false), member("b", "voter", true), member("c", "voter", true)}, "no other node leads"},
		"it leads":               {"a", []fsm.Member{member("a", "voter", true), member("b", "voter", true), member("c", "voter", true)}, "no other node leads"},
		"another cluster":        {"b", []fsm.Member{member("b", "voter", true)}, "is no member"},
		"without a vote":         {"b", []fsm.Member{member("a", "nonvoter", false), member("b", "voter", true)}, ""},
	} {
		err := canSpare("a", &api.ClusterStatus{Leader: c.leader, Members: c.members})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The operator's word that nothing came after the backup keeps the ETags; the same
// archive may be used again, with revisions of its own.
func TestRestoreOfTheLastState(t *testing.T) {
	dir := t.TempDir()
	a, b, c, archive := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c"), filepath.Join(dir, "x.backup")
	p := startProgram(t, "--data", a, "--port", "0")
	send(t, "PUT", p.url+"buckets/b", "")
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	writeRecords(t, p.url, "r", 5)
	_, _, etag, _ := listRecords(t, p.url)
	p.end(t)
	good(t, "backup", "--data", a, "--to", archive) // nobody runs
	for i, dir := range []string{b, c} {
		ini, err := os.ReadFile(filepath.Join(a, iniName))
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, iniName), ini, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		good(t, "restore", "--data", dir, "--from", archive, "--last-state", "--revisions-above", fmt.Sprint(uint64(i)*uint64(fsm.LifeStep)))
		p := startProgram(t, "--data", dir, "--port", "0")
		_, count, now, revision := listRecords(t, p.url)
		if count != 5 || now != etag || number(t, revision) != uint64(i+1)*uint64(fsm.LifeStep) {
			t.Errorf("%d records, ETag %s (was %s), revision %s", count, now, etag, revision)
		}
		p.end(t)
	}
}

// What is wrong with an archive is told with its place, and the folder stays empty.
func TestBadArchives(t *testing.T) {
	dir := t.TempDir()
	a, archive := filepath.Join(dir, "a"), filepath.Join(dir, "x.backup")
	p := startProgram(t, "--data", a, "--port", "0")
	makeTombstones(t, p.url, 2)
	good(t, "backup", "--data", a, "--to", archive)
	bad(t, ExitFailure, "exists already", "backup", "--data", a, "--to", archive)
	bad(t, ExitUsage, "is not empty: an archive is restored into a new cluster only", "restore", "--data", a, "--from", archive)
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	flipped, newer := bytes.Clone(data), bytes.Clone(data)
	flipped[len(data)/2] ^= 1
	newer[9]++
	target := filepath.Join(dir, "target")
	for name, c := range map[string]struct {
		data []byte
		text string
	}{
		"flipped": {flipped, "damaged archive: block "},
		"cut":     {data[:len(data)-20], "the archive ends at byte " + fmt.Sprint(len(data)-20)},
		"newer":   {newer, "its format is 2, this program knows 1"},
		"foreign": {[]byte("SQLite format 3\x00 and more of it"), "not a backup archive of quinto"},
		"empty":   {nil, "not a backup archive of quinto"},
		"tail":    {append(bytes.Clone(data), 'x'), "bytes follow the end"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		bad(t, ExitFailure, c.text, "backup", "verify", file)
		bad(t, ExitFailure, c.text, "restore", "--data", target, "--from", file)
		if _, err := os.Stat(target); err == nil {
			t.Errorf("%s: the data folder was made", name)
		}
		bad(t, ExitFailure, c.text, "restore", "--data", a, "--bucket", "b", "--from", file)
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, nameFile), []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(t, ExitFailure, "damaged archive", "restore", "--data", target, "--from", filepath.Join(dir, "flipped"))
	if all, err := os.ReadDir(target); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
	good(t, "restore", "--data", target, "--from", archive)
	if text, err := os.ReadFile(filepath.Join(target, nameFile)); err != nil || string(text) != "mine\n" {
		t.Errorf("%q %v", text, err)
	}
}

// A bucket that was deleted comes back with its ids and times, and nothing else moves.
func TestRestoreOfABucket(t *testing.T) {
	dir := t.TempDir()
	a, archive := filepath.Join(dir, "a"), filepath.Join(dir, "x.backup")
	p := startProgram(t, "--data", a, "--port", "0")
	send(t, "PUT", p.url+"buckets/b", `{"permissions":{"read":["system.Everyone"]}}`)
	send(t, "PUT", p.url+"buckets/b/collections/c", "")
	writeRecords(t, p.url, "r", 5)
	send(t, "DELETE", p.url+records+"/r4", "")
	_, before := send(t, "GET", p.url+records+"?_sort=id&_since=0", "")
	_, _, etag, _ := listRecords(t, p.url)
	good(t, "backup", "--data", a, "--to", archive)
	send(t, "PUT", p.url+"buckets/other", "")
	send(t, "DELETE", p.url+"buckets/b", "")
	if out := good(t, "restore", "--data", a, "--bucket", "b", "--from", archive); !strings.Contains(out, "0 differ") {
		t.Errorf("%q", out)
	}
	if _, after := send(t, "GET", p.url+records+"?_sort=id&_since=0", ""); after != before {
		t.Errorf("%s\nwas %s", after, before)
	}
	if _, _, now, _ := listRecords(t, p.url); number(t, now) <= number(t, etag) {
		t.Errorf("the list's ETag is %s, it was %s", now, etag)
	}
	if status, body := send(t, "GET", p.url+"buckets/b", ""); status != 200 || !strings.Contains(body, "system.Everyone") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := send(t, "GET", p.url+"buckets/other", ""); status != 200 {
		t.Error("another bucket is gone")
	}
	// What was written since stays, unless it is told otherwise.
	send(t, "PUT", p.url+records+"/r1", `{"data":{"n":2}}`)
	code, out, _ := run(t, "restore", "--data", a, "--bucket", "b", "--from", archive)
	if _, body := send(t, "GET", p.url+records+"/r1", ""); code != ExitFailure || !strings.Contains(out, "newer here") || !strings.Contains(body, `"n":2`) {
		t.Errorf("exit %d, %q %s", code, out, body)
	}
	good(t, "restore", "--data", a, "--bucket", "b", "--overwrite", "--from", archive)
	if _, body := send(t, "GET", p.url+records+"/r1", ""); !strings.Contains(body, `"n":1`) {
		t.Error(body)
	}
	bad(t, ExitFailure, `no bucket "nope"`, "restore", "--data", a, "--bucket", "nope", "--from", archive)
	bad(t, ExitUsage, "--overwrite is for --bucket", "restore", "--data", filepath.Join(dir, "new"), "--overwrite", "--from", archive)
}

// The schedule makes archives, keeps as many as it is told, and shows what it does;
// a place that cannot be written is told, and tried again.
func TestScheduledBackups(t *testing.T) {
	dir := t.TempDir()
	place := filepath.Join(dir, "archives")
	t.Setenv("QUINTO_BACKUP_TO", place)
	t.Setenv("QUINTO_BACKUP_INTERVAL_SECONDS", "1")
	t.Setenv("QUINTO_BACKUP_KEEP", "2")
	data := filepath.Join(dir, "data")
	p := startProgram(t, "--data", data, "--port", "0")
	send(t, "PUT", p.url+"buckets/b", "")
	state := func() (s backupState) {
		t.Helper()
		if err := json.Unmarshal([]byte(good(t, "backup", "status", "--json", "--data", data)), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	other := filepath.Join(place, "important.txt")
	until(t, "archives and their removal", func() bool {
		if _, err := os.Stat(place); err == nil {
			_ = os.WriteFile(other, []byte("x"), 0o600)
		}
		s := state()
		return s.Made >= 4 && s.Removed >= 1 && s.Mine && s.Error == "" && s.Last != ""
	})
	good(t, "backup", "verify", place)
	if out := good(t, "backup", "status", "--data", data); !strings.Contains(out, "this node makes them") {
		t.Errorf("%q", out)
	}
	p.end(t)
	if all, err := os.ReadDir(place); err != nil || len(all) != 3 {
		t.Errorf("%v %v", all, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("a file that is no archive was removed")
	}

	t.Setenv("QUINTO_BACKUP_TO", filepath.Join(other, "below-a-file"))
	p = startProgram(t, "--data", data, "--port", "0")
	until(t, "a failure", func() bool { return state().Failed > 0 })
	if out := good(t, "backup", "status", "--data", data); !strings.Contains(out, "failing: ") {
		t.Errorf("%q", out)
	}
	if !strings.Contains(p.errs.String(), "no archive was made; it is tried again") {
		t.Errorf("%q", p.errs.String())
	}
}

// The commands against a server that speaks S3; see scripts/lib/s3.sh.
func TestBackupToS3(t *testing.T) {
	endpoint := os.Getenv("QUINTO_TEST_S3")
	if endpoint == "" {
		t.Skip("QUINTO_TEST_S3 is not set: make s3")
	}
	t.Setenv("QUINTO_BACKUP_S3_ENDPOINT", endpoint)
	t.Setenv("QUINTO_BACKUP_S3_REGION", "us-east-1")
	dir, place := t.TempDir(), fmt.Sprintf("s3://test/run-%d", time.Now().UnixNano())
	t.Setenv("QUINTO_BACKUP_TO", place)
	t.Setenv("QUINTO_BACKUP_INTERVAL_SECONDS", "1")
	t.Setenv("QUINTO_BACKUP_KEEP", "1")
	data := filepath.Join(dir, "data")
	p := startProgram(t, "--data", data, "--port", "0")
	makeTombstones(t, p.url, 2)
	until(t, "archives on schedule", func() bool {
		var s backupState
		err := json.Unmarshal([]byte(good(t, "backup", "status", "--json", "--data", data)), &s)
		return err == nil && s.Made > 2 && s.Removed > 1
	})
	out := good(t, "backup", "--data", data, "--to", place+"/by-hand")
	name, _, _ := strings.Cut(out, "\n")
	good(t, "backup", "verify", name)
	good(t, "restore", "--from", name, "--data", filepath.Join(dir, "one"))
	good(t, "restore", "--from", place+"/by-hand", "--data", filepath.Join(dir, "two"))
	bad(t, ExitFailure, "no archive there", "restore", "--from", place+"/none", "--data", filepath.Join(dir, "three"))
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("in vain: %s", what)
}
