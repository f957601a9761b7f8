package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A wound is something that real Kinto does to its users' data and answers and that quinto must not. Scenarios compare
// single answers; a wound may need many clients at once or many records, and is shown by what is harmed in the end.
type wound struct {
	name string
	// harm does it to a server and counts what was harmed, out of how many.
	harm func(ctx context.Context, s *sufferer) (harmed, of int, err error)
	// luck: that Kinto shows it is likely and not certain.
	luck bool
	// settings of both servers beside woundSettings; each set of them starts a pair of its own.
	settings string
}

// woundSettings are those of both servers. The bound on what one deletion takes is small, so that few records pass it.
const woundSettings = "batch_max_requests=500 storage_max_fetch_size=%d"

// woundSize says how much is tried.
type woundSize struct {
	rounds, clients, fetch int
}

var woundSizes = map[string]woundSize{
	"small": {rounds: 6, clients: 8, fetch: 100},
	"full":  {rounds: 30, clients: 16, fetch: 10_000},
}

// woundTimeout bounds one request; a cascade over many records takes Kinto a while.
const woundTimeout = 2 * time.Minute

// sufferer is a server to be wounded.
type sufferer struct {
	Server
	size   woundSize
	client *http.Client
	pid    int         // of the server's process
	header http.Header // of every request, beside its own
}

// answer is what a request got.
type answer struct {
	status int
	body   map[string]any
}

// do sends a request of the user alice, or of the one that the path begins with as in "bob:/buckets".
func (s *sufferer) do(ctx context.Context, method, path, media, body string) (answer, error) {
	user := "alice"
	if name, rest, named := strings.Cut(path, ":/"); named {
		user, path = name, "/"+rest
	}
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Base+"/v1"+path, in)
	if err != nil {
		return answer{}, err
	}
	for name, values := range s.header {
		req.Header[name] = values
	}
	req.SetBasicAuth(user, "password")
	if body != "" {
		req.Header.Set("Content-Type", media)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode}
	if err := json.Unmarshal(text, &a.body); err != nil {
		return a, fmt.Errorf("%s %s: %d %s: %w", method, path, a.status, tail(text), err)
	}
	return a, nil
}

// must sends JSON and fails unless the answer has one of the statuses.
func (s *sufferer) must(ctx context.Context, method, path, body string, statuses ...int) (answer, error) {
	a, err := s.do(ctx, method, path, "application/json", body)
	if err != nil {
		return a, err
	}
	for _, status := range statuses {
		if a.status == status {
			return a, nil
		}
	}
	return a, fmt.Errorf("%s %s on %s: %d %v", method, path, s.Name, a.status, a.body)
}

// collection makes a bucket with the collection c.
func (s *sufferer) collection(ctx context.Context, bucket string) (string, error) {
	_, err := s.must(ctx, "PUT", "/buckets/"+bucket, "", 200, 201)
	if err == nil {
		_, err = s.must(ctx, "PUT", "/buckets/"+bucket+"/collections/c", "", 200, 201)
	}
	return "/buckets/" + bucket + "/collections/c", err
}

// runWounds wounds real Kinto on PostgreSQL and quinto and prints what came of it. It fails when quinto is harmed, or when Kinto
// is not where it always was.
func runWounds(ctx context.Context, o options) (_ int, err error) {
	size, ok := woundSizes[o.wounds]
	if !ok {
		return 2, fmt.Errorf("--wounds is small or full, not %q", o.wounds)
	}
	begun := time.Now()
	dir, err := os.MkdirTemp("", "wounds-")
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pg, err := startPostgres(ctx, o.root, o.venv)
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, pg.stop()) }()
	code, table := 0, new(bytes.Buffer)
	fmt.Fprintf(table, "| wound | harmed on Kinto | harmed on quinto |\n| --- | --- | --- |\n")
	for i, group := range woundGroups(wounds()) {
		healed, err := woundPair(ctx, o, pg, filepath.Join(dir, fmt.Sprint(i)), size, group, table)
		if err != nil {
			return 2, err
		}
		if !healed {
			code = 1
		}
	}
	fmt.Printf("wounds: %d, %s, %s\n", len(wounds()), map[bool]string{true: "quinto has none of them", false: "FAILED"}[code == 0], time.Since(begun).Round(time.Second))
	if o.wounds == "full" && code == 0 {
		return code, os.WriteFile(filepath.Join(o.root, "docs", "results", "wounds.md"), woundsPage(table.String(), size), 0o644)
	}
	return code, nil
}

// woundGroups groups wounds that follow each other and have the same settings.
func woundGroups(all []*wound) [][]*wound {
	var groups [][]*wound
	for i, w := range all {
		if i == 0 || w.settings != all[i-1].settings {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], w)
	}
	return groups
}

// woundPair starts both servers in dir, does the wounds of one group to them and writes their rows.
func woundPair(ctx context.Context, o options, pg *postgres, dir string, size woundSize, group []*wound, table io.Writer) (healed bool, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, err
	}
	settings := strings.TrimSpace(fmt.Sprintf(woundSettings, size.fetch) + " " + group[0].settings)
	dsn, err := pg.database(ctx, "wounds"+filepath.Base(dir))
	if err != nil {
		return false, err
	}
	kinto, err := startKinto(ctx, o.venv, dir, "kinto", settings, "postgresql", dsn)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, kinto.stop()) }()
	quinto, err := startQuinto(ctx, o.quinto, dir, settings)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, quinto.stop()) }()
	client := &http.Client{Timeout: woundTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: size.clients}}
	healed = true
	for _, w := range group {
		text, ok, err := w.inflict(ctx, &sufferer{Server: kinto.Server, size: size, client: client, pid: kinto.cmd.Process.Pid},
			&sufferer{Server: quinto.Server, size: size, client: client, pid: quinto.cmd.Process.Pid})
		if err != nil {
			return false, fmt.Errorf("%s: %w", w.name, err)
		}
		fmt.Println(text)
		fmt.Fprintln(table, text)
		healed = healed && ok
	}
	return healed, nil
}

// inflict does one wound to both servers; healed is false when quinto was harmed, or Kinto was not although it always is.
func (w *wound) inflict(ctx context.Context, kinto, quinto *sufferer) (text string, healed bool, err error) {
	var cells [2]string
	var harmed [2]int
	for i, s := range []*sufferer{kinto, quinto} {
		n, of, err := w.harm(ctx, s)
		if err != nil {
			return "", false, err
		}
		harmed[i], cells[i] = n, fmt.Sprintf("%d of %d", n, of)
	}
	healed = harmed[1] == 0 && (harmed[0] > 0 || w.luck)
	if harmed[0] == 0 {
		cells[0] += " (not seen this time)"
	}
	return fmt.Sprintf("| %s | %s | %s |", w.name, cells[0], cells[1]), healed, nil
}

func woundsPage(table string, size woundSize) []byte {
	return fmt.Appendf(nil, `# Healed wounds

Things that real Kinto 26.5.0 on PostgreSQL does to its users' data and answers, and that quinto does not. Each was done to both servers by
the same program; the cells count what was harmed. `+"`make wounds`"+` does it again and writes this page; it fails when quinto is harmed.

%s
%d clients at the same time, %d rounds, storage_max_fetch_size = %d.

Wounds that show in single answers are rows of [compatibility.md](../compatibility.md).
`, table, size.clients, size.rounds, size.fetch)
}
