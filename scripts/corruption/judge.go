package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

// What a mutation led to.
const (
	refused = "refused" // the process ended at its start, with a line that says why
	halted  = "halted"  // it ran, met the damage, said so and ended; nothing wrong was answered
	kept    = "kept"    // it ran on with what the file had before, and said so
	equal   = "equal"   // it serves, and all nodes have the same content: repaired, or without effect
)

const (
	caseLimit = 60 * time.Second // machines may be slow
	hashLimit = 20 * time.Second
)

// result of one mutation.
type result struct {
	Kind, File, Harm, Outcome, Line string
	Fault                           error // what must not be; nil
	Took                            time.Duration
}

// one stops the victim, harms one of its files of this kind, starts it and judges.
func (w *world) one(ctx context.Context, r *rand.Rand, kind string) (result, error) {
	begun := time.Now()
	res := result{Kind: kind}
	hot := w.wires != "" && r.IntN(hotOneIn) == 0
	if !w.victim.Running() && (hot || r.IntN(goOnOneIn) == 0) {
		if err := w.goOn(ctx); err != nil {
			return res, err
		}
	}
	if hot {
		return w.oneHot(ctx, r, res)
	}
	if w.victim.Running() {
		end := w.victim.Kill
		if r.IntN(4) == 0 {
			end = w.victim.Stop
		}
		if err := end(); err != nil {
			return res, err
		}
		if err := w.save(); err != nil {
			return res, err
		}
	}
	err := w.choose(r, &res)
	if err != nil {
		return res, err
	}
	if res.Harm, err = mutate(r, filepath.Join(w.folder(), res.File)); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, caseLimit)
	defer cancel()
	w.judge(ctx, &res)
	res.Took = time.Since(begun)
	if res.Outcome == equal && res.Fault == nil && w.wires == "" {
		return res, w.failed()
	}
	if err := w.victim.Kill(); err != nil {
		return res, err
	}
	return res, errors.Join(w.restore(), w.failed())
}

var errNoFile = errors.New("no such file")

// hotOneIn of the mutations of certificates and keys is done to a running node: such
// a one takes ten seconds, as the files are looked at every five.
const hotOneIn = 12

// goOnOneIn of the mutations behind one that ended the victim are done to a later state
// of it, and the others to the one that was saved.
const goOnOneIn = 5

// goOn starts the victim with what was saved, which has to do.
func (w *world) goOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, caseLimit)
	defer cancel()
	if err := w.victim.Start(); err != nil {
		return err
	}
	return w.victim.WaitReady(ctx)
}

// choose takes one of the victim's files of the kind.
func (w *world) choose(r *rand.Rand, res *result) error {
	files, err := filesByKind(w.folder())
	if err != nil {
		return err
	}
	if len(files[res.Kind]) == 0 {
		return errNoFile
	}
	res.File = files[res.Kind][r.IntN(len(files[res.Kind]))]
	return nil
}

func (w *world) oneHot(ctx context.Context, r *rand.Rand, res result) (result, error) {
	begun := time.Now()
	if err := w.choose(r, &res); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*caseLimit)
	defer cancel()
	err := w.hot(ctx, r, &res)
	res.Took = time.Since(begun)
	return res, errors.Join(err, w.failed())
}

// judge starts the victim and waits until it is clear what the harm did.
func (w *world) judge(ctx context.Context, res *result) {
	before := len(w.victim.Log())
	if res.Fault = w.victim.Start(); res.Fault != nil {
		return
	}
	wrong := w.probe(ctx)
	ready := w.victim.WaitReady(ctx)
	var state error
	if ready == nil {
		state = w.compare(ctx)
	}
	if ready == nil && state == nil {
		res.Outcome = equal
	} else { // then it must end by itself and say why
		res.Outcome = refused
		if ready == nil {
			res.Outcome = halted
		}
		for w.victim.Running() && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		if w.victim.Running() {
			res.Fault = errors.Join(errors.New("neither serves nor ends"), ready, state)
		}
	}
	log := w.victim.Log()[before:]
	res.Line = lastLine(log)
	res.Fault = errors.Join(res.Fault, <-wrong, w.clean(log))
	if strings.Contains(fmt.Sprint(state), "differ after the same entry") {
		res.Fault = errors.Join(res.Fault, state)
	}
}

// clean says what is wrong with the way in which a process ended.
func (w *world) clean(log string) error {
	for _, bad := range []string{"panic:", "goroutine ", "fatal error:", "SIGBUS", "SIGSEGV", "unexpected fault"} {
		if strings.Contains(log, bad) {
			i := strings.Index(log, bad)
			return fmt.Errorf("a trace instead of a line: %.160s", log[i:])
		}
	}
	if w.victim.Running() {
		return nil
	}
	if code := w.victim.ExitCode(); code != 1 && code != 2 {
		return fmt.Errorf("exit code %d", code)
	}
	if !strings.HasPrefix(lastLine(log), "quinto: ") {
		return fmt.Errorf("no line that says why: %.200q", lastLine(log))
	}
	return nil
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "quinto: ") && !strings.HasPrefix(lines[i], "quinto: warning:") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}

// compare holds the writer, and compares hashes and content of all nodes.
func (w *world) compare(ctx context.Context) error {
	w.hold.Lock()
	defer w.hold.Unlock()
	ctx, cancel := context.WithTimeout(ctx, hashLimit)
	defer cancel()
	for {
		_, err := w.cluster.SameState(ctx)
		if err == nil {
			break
		}
		if !w.victim.Running() || ctx.Err() != nil || strings.Contains(err.Error(), "differ after") {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return w.same(ctx, w.victim)
}

// probe reads the victim's list, however old, until it ends or the case is judged;
// the channel gives what was wrong in any answer.
func (w *world) probe(ctx context.Context) <-chan error {
	out := make(chan error, 1)
	go func() {
		var wrong error
		for range 40 {
			if !w.victim.Running() || ctx.Err() != nil {
				break
			}
			got, err := readStale(ctx, w.victim)
			if err == nil {
				for id, content := range got {
					if !w.plausible(id, content) {
						wrong = fmt.Errorf("a wrong answer: %s is %.60q", id, content)
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		out <- wrong
	}()
	return out
}

func readStale(ctx context.Context, n *testcluster.Node) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return n.RecordsAt(ctx, listPath, "stale")
}
