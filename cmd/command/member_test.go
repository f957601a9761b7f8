package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/api"
	"quinto/internal/config"
)

// ended waits until p ends by itself and returns its exit code.
func (p *program) ended(t *testing.T) int {
	t.Helper()
	p.alreadyDone = true
	select {
	case code := <-p.code:
		return code
	case <-time.After(time.Minute):
		t.Fatalf("it goes on: %s", p.errs.String())
		return 0
	}
}

// patient lets running requests take two minutes.
func patient(t *testing.T, ini string) {
	t.Helper()
	f, err := os.OpenFile(ini, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("\n[app:main]\nquinto.shutdown_timeout_seconds = 120\nquinto.read_timeout_seconds = 120\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// halfARequest begins a request at a node, and never ends it.
func halfARequest(t *testing.T, base string) {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "PUT /v1/buckets/never HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", u.Host); err != nil {
		t.Fatal(err)
	}
}

// The life of a cluster by commands: status, members, transfer, demote, promote,
// remove, forget, recover.
func TestMembersByCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	// So that a removed node that waited for its requests would not end in this test.
	patient(t, ini)
	gossip := []string{freePort(t), freePort(t), freePort(t)}
	ports := []string{freePort(t), freePort(t), freePort(t)}
	data := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	args := func(i int) []string {
		return []string{"--ini", ini, "--data", data(i), "--port", "0", "--name", fmt.Sprintf("n%d", i),
			"--cluster", ports[i], "--gossip", gossip[i], "--join", strings.Join(gossip, ","), "--expect", "3"}
	}
	programs := make([]*program, 3)
	var wg sync.WaitGroup
	for i := range programs {
		wg.Go(func() { programs[i] = startProgram(t, args(i)...) })
	}
	wg.Wait()
	send(t, "PUT", programs[0].url+"buckets/b", "")
	do := func(want int, node int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := run(t, append([]string{"cluster"}, append(args, "--ini", ini, "--data", data(node))...)...)
		if code != want || code != ExitOK && strings.Count(stderr, "\nquinto: ") > 3 {
			t.Errorf("%v: exit %d, %q %q", args, code, stdout, stderr)
		}
		return stdout, stderr
	}
	status := func(node int) (s api.ClusterStatus) {
		t.Helper()
		if out, _ := do(ExitOK, node, "status", "--json"); json.Unmarshal([]byte(out), &s) != nil {
			t.Errorf("status: %s", out)
		}
		return s
	}
	for i := range programs {
		if s := status(i); len(s.Members) != 3 || s.Leader == "" {
			t.Errorf("status of %d: %+v", i, s)
		}
	}
	for i := range 2 {
		name := fmt.Sprintf("n%d", i)
		if out, _ := do(ExitOK, 2, "transfer", name); !strings.HasPrefix(out, name+" leads") {
			t.Error(out)
		}
	}
	do(ExitOK, 0, "demote", "n2", "-q")
	if out, _ := do(ExitOK, 0, "members"); !strings.Contains(out, "nonvoter (demoted)") {
		t.Error(out)
	}
	if out, _ := do(ExitOK, 2, "promote", "n2", "--json"); out != `{"done":"n2 has a vote"}`+"\n" {
		t.Error(out)
	}
	if _, errs := do(ExitFailure, 1, "remove", "n7"); !strings.Contains(errs, "no such member") {
		t.Error(errs)
	}
	programs[2].end(t)
	if _, errs := do(ExitQuorum, 0, "remove", "n1"); !strings.Contains(errs, "no living majority") {
		t.Error(errs)
	}
	// The leader, through itself: it hands over, the other ends it.
	programs[2] = startProgram(t, args(2)...)
	do(ExitOK, 0, "transfer", "n0")
	halfARequest(t, programs[0].url)
	do(ExitOK, 0, "remove", "n0")
	if code := programs[0].ended(t); code != ExitFailure || !strings.Contains(programs[0].errs.String(), "removed from its cluster") {
		t.Errorf("exit %d: %s", code, programs[0].errs.String())
	}
	if code, _, errs := run(t, append([]string{"start"}, args(0)...)...); code != ExitUsage || !strings.Contains(errs, "join under a new name") {
		t.Errorf("the removed folder: exit %d %s", code, errs)
	}
	if out, _ := do(ExitOK, 1, "members"); !strings.Contains(out, "removed") {
		t.Error(out)
	}
	do(ExitOK, 1, "forget", "n0")
	if out, _ := do(ExitOK, 1, "members"); strings.Contains(out, "n0") {
		t.Error(out)
	}
	send(t, "PUT", programs[1].url+"buckets/c", "")
	// Of the two that are left, n2 is lost for ever.
	if _, errs := do(ExitFailure, 1, "recover", "--yes"); !strings.Contains(errs, "stop it first") {
		t.Error(errs)
	}
	programs[2].end(t)
	programs[1].end(t)
	if _, errs := do(ExitFailure, 1, "members"); !strings.Contains(errs, "no process serves") {
		t.Error(errs)
	}
	if out, _ := do(ExitOK, 1, "recover"); !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "members n1, n2") {
		t.Error(out)
	}
	var r recovery
	if out, _ := do(ExitOK, 1, "recover", "--yes", "--json"); json.Unmarshal([]byte(out), &r) != nil || !r.Recovered || fmt.Sprint(r.Removed) != "[n2]" {
		t.Error(out)
	}
	programs[1] = startProgram(t, args(1)...)
	if code, body := send(t, "GET", programs[1].url+"buckets", ""); code != 200 || strings.Count(body, `"id"`) != 2 {
		t.Errorf("%d %s", code, body)
	}
	if code, _, errs := run(t, append([]string{"start"}, args(2)...)...); code == ExitOK || !strings.Contains(errs, "removed from its cluster") {
		t.Errorf("the old state: exit %d %s", code, errs)
	}
	if s := status(1); len(s.Members) != 1 || s.Leader != "n1" {
		t.Errorf("%+v", s)
	}
}
