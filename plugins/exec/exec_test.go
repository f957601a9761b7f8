//go:build unix

package exec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quinto/fsm"
	"quinto/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load makes an exec notifier of a shell script.
func load(t *testing.T, script string, params map[string]string) (*Exec, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	// A child that another test forks while the file is open would hold it open until it
	// is a program itself, and a file that is written cannot be run (ETXTBSY).
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	s := plugins.Settings{Name: "index", Use: Name, Params: map[string]string{"command": path + " one two"}}
	for name, value := range params {
		s.Params[name] = value
	}
	p, err := plugins.Registered().Load(context.Background(), s)
	if err != nil {
		return nil, err
	}
	return p.(*Exec), nil
}

func delivery() plugins.Delivery {
	path := fsm.Path("/buckets/b/collections/c/records/r")
	return plugins.Delivery{ID: "msg_1", Attempt: 3, Event: &fsm.Event{Revision: 7, Action: fsm.ActionUpdate, Path: path, LastModified: 1500},
		Old: &fsm.Object{Path: path, LastModified: 1400, Data: []byte(`{"a":1,"b":{"c":1}}`)}, New: &fsm.Object{Path: path, LastModified: 1500, Data: []byte(`{"a":2,"b":{"c":1}}`)}}
}

// The program gets the event, its arguments and nothing of the server's environment.
func TestRun(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SERVER", "x")
	out := filepath.Join(t.TempDir(), "out")
	x, err := load(t, `{ cat; echo "$1 $2"; env; pwd; } > `+out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Deliver(context.Background(), delivery()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"action":"update"`, `"revision":7`, "one two", "QUINTO_DELIVERY_ID=msg_1", "QUINTO_ATTEMPT=3"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(string(text), "SECRET_OF") {
		t.Errorf("the server's environment: %s", text)
	}
}

// Each end of a program is what it says, and costs a bounded time.
func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		script, want string
		permanent    bool
	}{
		"taken":          {"cat >/dev/null", "", false},
		"reads nothing":  {"exit 0", "", false},
		"again":          {"echo no room >&2; exit 3", "exit status 3: no room", false},
		"permanent":      {"exit 77", "exit status 77", true},
		"crash":          {"kill -SEGV $$", "segmentation fault", false},
		"hang":           {"sleep 1000", "it ran for more than", false},
		"deaf hang":      {"trap '' TERM INT HUP; while :; do sleep 1000; done", "it ran for more than", false},
		"endless output": {"yes", "it wrote more than", false},
		"endless error":  {"yes >&2", "it wrote more than", false},
		"children go on": {"sleep 1000 & exit 0", "left a program behind", false},
		// Whoever ended in time did not hang, whatever is left of its time.
		"children hang":         {"sleep 1000 & exit 0", "left a program behind", false},
		"failed, children hang": {"sleep 1000 & echo no room >&2; exit 3", "exit status 3: no room", false},
		"not a program":         {"exec /nonexistent", "exit status 127", false},
		"reads half of it":      {"head -c 3 >/dev/null; exit 4", "exit status 4", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			params := map[string]string{"permanent_exit_code": "77"}
			if strings.Contains(name, "hang") {
				params["timeout_seconds"] = "0.3"
			}
			x, err := load(t, c.script, params)
			if err != nil {
				t.Fatal(err)
			}
			err = x.Deliver(context.Background(), delivery())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || plugins.IsPermanent(err) != c.permanent {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// What the program has started ends with it.
func TestTheWholeGroupEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	x, err := load(t, "sleep 1000 & echo $! > "+file+"; wait", map[string]string{"timeout_seconds": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Deliver(context.Background(), delivery()); err == nil {
		t.Fatal("a hang was taken")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat") // a zombie has ended, whoever is to bury it
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || strings.Contains(string(status), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the child lives")
		}
	}
}

func TestFields(t *testing.T) {
	for fields, run := range map[string]bool{"": true, "a": true, "b": false, "b.c": false, "nothing b a": true} {
		x, err := load(t, "exit 9", map[string]string{"fields": fields})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Deliver(context.Background(), delivery()); (err != nil) != run {
			t.Errorf("fields %q: %v", fields, err)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for name, params := range map[string]map[string]string{
		"command":             {"command": ""},
		"timeout_seconds":     {"timeout_seconds": "26"},
		"permanent_exit_code": {"permanent_exit_code": "0"},
		"grouped":             {"grouped": "maybe"},
		"whole path":          {"command": "sh"},
		"no such file":        {"command": "/nonexistent/program"},
		"bucket":              {"bucket": "["},
	} {
		if _, err := load(t, "", params); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A program gets on its standard input that changes are lost for it.
func TestLoss(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	x, err := load(t, `cat > `+out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Lost(context.Background(), plugins.Loss{ID: "msg_lost", After: 12, UpTo: 40, Time: 1500}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if want := `{"timestamp":1500,"action":"lost","after":12,"up_to":40,"delivery_id":"msg_lost"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
}
