//go:build unix

// Package exec is the notifier that runs a program for each change, with the event
// as JSON on its standard input.
//
// Its settings are those of a listener:
//
//	event_listeners.index.use = quinto.exec
//	event_listeners.index.command = /usr/local/bin/index --fast
//	event_listeners.index.permanent_exit_code = 65
//	event_listeners.index.timeout_seconds = 10
//
// and the filters of the webhook.
package exec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// Name is what the configuration calls the module.
const Name = "quinto.exec"

// Limits of a program.
const (
	DefaultTimeout   = 10 * time.Second
	MaxTimeout       = 25 * time.Second // below that of a delivery
	DefaultPermanent = 65               // EX_DATAERR of sysexits.h
	MaxOutputBytes   = 1 << 20          // of both outputs together; beyond it the program is ended
	shownBytes       = 300              // of its standard error's end, in the error
	waitDelay        = time.Second      // for its children, once it has ended
)

var errOutput = fmt.Errorf("it wrote more than %d bytes", MaxOutputBytes)

func init() {
	plugins.Register(plugins.Module{Name: Name, New: func() any { return new(Exec) }})
}

// Exec is a notifier that runs a program.
type Exec struct {
	name      string
	command   []string
	permanent int
	timeout   time.Duration
	filter    plugins.Filter
	grouped   bool
}

// Provision reads the settings.
func (x *Exec) Provision(_ context.Context, s plugins.Settings) error {
	x.name, x.command = s.Name, strings.Fields(s.Params["command"])
	var err error
	if x.filter, err = plugins.NewFilter(s); err != nil {
		return err
	}
	x.timeout, x.permanent = DefaultTimeout, DefaultPermanent
	if text := s.Params["timeout_seconds"]; text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		x.timeout = time.Duration(seconds * float64(time.Second))
		if err != nil || x.timeout <= 0 || x.timeout > MaxTimeout {
			return fmt.Errorf("timeout_seconds = %q: a number above 0, up to %v", text, MaxTimeout.Seconds())
		}
	}
	if text := s.Params["permanent_exit_code"]; text != "" {
		if x.permanent, err = strconv.Atoi(text); err != nil || x.permanent < 1 || x.permanent > 255 {
			return fmt.Errorf("permanent_exit_code = %q: 1 to 255", text)
		}
	}
	switch text := s.Params["grouped"]; text {
	case "", "false":
	case "true":
		x.grouped = true
	default:
		return fmt.Errorf("grouped = %q: true or false", text)
	}
	for name := range s.Params {
		if !slices.Contains(append(plugins.FilterSettings[:], "command", "timeout_seconds", "permanent_exit_code", "grouped"), name) {
			s.Log.Warn("unknown setting of a program", "setting", name)
		}
	}
	return nil
}

// Validate looks for the program.
func (x *Exec) Validate() error {
	if len(x.command) == 0 || !filepath.IsAbs(x.command[0]) {
		return errors.New("command: a program with its whole path is needed, as in /usr/local/bin/index --fast")
	}
	if _, err := exec.LookPath(x.command[0]); err != nil {
		return fmt.Errorf("command: %w", err)
	}
	return nil
}

// Name returns the listener's name.
func (x *Exec) Name() string { return x.name }

// FilterHash covers what Match looks at.
func (x *Exec) FilterHash() []byte {
	sum := sha256.Sum256([]byte(x.filter.String()))
	return sum[:16]
}

// Match implements plugins.Notifier.
func (x *Exec) Match(e *fsm.Event) bool { return x.filter.Match(e) }

// Lane implements plugins.Notifier: order is kept within a collection.
func (x *Exec) Lane(e *fsm.Event) string { return plugins.CollectionLane(e) }

// Grouped implements plugins.Grouping.
func (x *Exec) Grouped() bool { return x.grouped }

// Deliver runs the program. Exit code 0 means taken, the named one permanent, any
// other one, a signal or the end of the time: again.
func (x *Exec) Deliver(ctx context.Context, d plugins.Delivery) error {
	if !x.filter.Choose(&d) {
		return nil
	}
	return x.run(ctx, d.ID, d.Attempt, plugins.Payload(&d))
}

// Test implements plugins.Tester: it runs the program with {"action":"test"} once.
func (x *Exec) Test(ctx context.Context, id string) error {
	return x.run(ctx, id, 1, []byte(`{"action":"test"}`))
}

// Lost implements plugins.Losing.
func (x *Exec) Lost(ctx context.Context, l plugins.Loss) error {
	return x.run(ctx, l.ID, 1, plugins.LossPayload(l))
}

func (x *Exec) run(ctx context.Context, id string, attempt int, event []byte) error {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	c := exec.CommandContext(ctx, x.command[0], x.command[1:]...)
	c.Stdin = bytes.NewReader(append(event, '\n'))
	out := &output{end: cancel}
	c.Stdout, c.Stderr = &stream{out: out}, &stream{out: out, keep: true}
	c.Dir = "/"
	// Nothing of the server's environment: it may hold secrets.
	c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/", "QUINTO_LISTENER=" + x.name,
		"QUINTO_DELIVERY_ID=" + id, "QUINTO_ATTEMPT=" + strconv.Itoa(attempt)}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return killGroup(c.Process) }
	c.WaitDelay = waitDelay
	err := c.Run()
	if c.Process != nil && (err != nil || ctx.Err() != nil) {
		_ = killGroup(c.Process) // children that it has left behind; there may be none
	}
	return x.outcome(ctx, err, out)
}

// outcome turns the end of a run into what the dispatcher understands. A program that
// has ended by itself did not run too long, though what it has left behind may have.
func (x *Exec) outcome(ctx context.Context, err error, out *output) error {
	var exited *exec.ExitError
	byItself := errors.As(err, &exited) && exited.Exited()
	switch {
	case err == nil:
		return nil
	case out.tooLong():
		return fmt.Errorf("exec: %w", errOutput)
	case errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("exec: it ended with 0 and left a program behind that had its outputs open %v later, and was ended too%s", waitDelay, out.said())
	case !byItself && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("exec: it ran for more than %v", x.timeout)
	case exited != nil:
		err = fmt.Errorf("exec: %s%s", exited.ProcessState, out.said())
		if exited.ExitCode() == x.permanent {
			return plugins.Permanent(err)
		}
		return err
	}
	return fmt.Errorf("exec: %w", err)
}

// killGroup ends a program with all that it has started.
func killGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

var (
	_ plugins.Notifier    = (*Exec)(nil)
	_ plugins.Grouping    = (*Exec)(nil)
	_ plugins.Provisioner = (*Exec)(nil)
	_ plugins.Validator   = (*Exec)(nil)
	_ plugins.Tester      = (*Exec)(nil)
	_ plugins.Losing      = (*Exec)(nil)
)
