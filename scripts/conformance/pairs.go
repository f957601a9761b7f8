package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sequencesPerPair bounds how many generated sequences one pair of servers gets: Kinto keeps one core busy, others may run beside it.
const sequencesPerPair = 250

// group is the scenarios that ask for the same settings: they share one pair of servers.
type group struct {
	settings  string
	scenarios []*Scenario
	sequences []sequence // generated ones, instead of scenarios
	outcomes  [][]Outcome
	findings  []Finding
	chance    []string // differences that did not come again
}

// bySettings splits scenarios by what their servers need; the largest group comes first, because it takes longest.
func bySettings(scenarios []*Scenario) []*group {
	groups := map[string]*group{}
	for _, sc := range scenarios {
		if groups[sc.Settings] == nil {
			groups[sc.Settings] = &group{settings: sc.Settings}
		}
		groups[sc.Settings].scenarios = append(groups[sc.Settings].scenarios, sc)
	}
	var all []*group
	for _, settings := range sortedKeys(groups) {
		all = append(all, groups[settings])
	}
	sort.SliceStable(all, func(i, j int) bool { return len(all[i].scenarios) > len(all[j].scenarios) })
	return all
}

// drawn makes the generated sequences that were asked for, in groups of one pair of servers each.
func drawn(o options) []*group {
	bySettings := map[string][]sequence{}
	for i := range o.generate {
		q := generate(o.seed+uint64(i), o.backend)
		bySettings[q.settings] = append(bySettings[q.settings], q)
	}
	var all []*group
	for _, settings := range sortedKeys(bySettings) {
		for some := range slices.Chunk(bySettings[settings], sequencesPerPair) {
			all = append(all, &group{settings: settings, sequences: some})
		}
	}
	return all
}

// runAll starts a pair of servers for each set of settings, o.pairs of them at a time, and runs the scenarios that ask for it.
func runAll(ctx context.Context, o options, scenarios []*Scenario, deviations []*Deviation) (_ [][]Outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.backend == "postgresql" && o.pg == nil && o.dsn == "" {
		if o.pg, err = startPostgres(ctx, o.root, o.venv); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, o.pg.stop()) }()
	} else if o.dsn != "" {
		if err := migrate(ctx, o.venv, os.TempDir(), o.dsn); err != nil {
			return nil, err
		}
	}
	groups := append(drawn(o), bySettings(scenarios)...)
	runID := strconv.FormatInt(time.Now().UnixMilli()%(36*36*36*36*36), 36)
	slots := make(chan struct{}, o.pairs)
	var running sync.WaitGroup
	for i, g := range groups {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			failure := runGroup(ctx, o, fmt.Sprintf("%s%d", runID, i), g, deviations)
			if errors.Is(failure, errReferenceEnded) { // somebody else took its port: once more, on other ports
				failure = runGroup(ctx, o, fmt.Sprintf("%s%dr", runID, i), g, deviations)
			}
			if failure != nil {
				cancel(fmt.Errorf("settings %q: %w", g.settings, failure))
			}
		})
	}
	running.Wait()
	var outcomes [][]Outcome
	for _, g := range groups {
		outcomes = append(outcomes, g.outcomes...)
		printFindings(os.Stdout, g.findings)
		for _, text := range g.chance {
			fmt.Println("differed once, and not when it was run again:", text)
		}
	}
	return outcomes, context.Cause(ctx)
}

func runGroup(ctx context.Context, o options, runID string, g *group, deviations []*Deviation) (err error) {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p, err := startPair(ctx, o, runID, g.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	suite := p.suite(o, runID)
	if o.target != "kinto" { // nothing is different on purpose between Kinto and Kinto
		suite.Deviations = deviations
	}
	if g.sequences != nil {
		g.outcomes, g.findings = suite.runGenerated(ctx, g.sequences)
	} else {
		g.outcomes = suite.Run(ctx, g.scenarios)
	}
	g.chance = suite.Chance
	if p.kintoEnded() {
		return errReferenceEnded
	}
	return nil
}

// errReferenceEnded tells that Kinto did not live until the end of its scenarios, so that its answers say nothing.
var errReferenceEnded = errors.New("the reference ended by itself")

// pair is a reference and what is compared with it, both on the same settings.
type pair struct {
	kinto  *process
	target *Server // nil: only the reference answers
	quinto bool
	stops  []func() error
}

// startPair starts both servers in a folder of their own. name tells their databases from those of other pairs.
func startPair(ctx context.Context, o options, name, settings string) (_ *pair, err error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	p := &pair{stops: []func() error{func() error { return os.RemoveAll(dir) }}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "published.json"), []byte(versionFile), 0o600); err != nil {
		return nil, err
	}
	if strings.Contains(settings, providerMark) {
		url, end := startProvider()
		settings = strings.ReplaceAll(settings, providerMark, url)
		p.stops = append(p.stops, func() error { end(); return nil })
	}
	dsn := o.dsn
	if o.pg != nil {
		if dsn, err = o.pg.database(ctx, name); err != nil {
			return nil, err
		}
	}
	kinto, err := startKinto(ctx, o.venv, dir, "kinto", settings, o.backend, dsn)
	if err != nil {
		return nil, err
	}
	p.kinto, p.stops = kinto, append(p.stops, kinto.stop)
	return p, p.startTarget(ctx, o, dir, settings)
}

func (p *pair) startTarget(ctx context.Context, o options, dir, settings string) error {
	var server *process
	var err error
	switch {
	case o.onlyKinto:
		return nil
	case o.target == "kinto":
		server, err = startKinto(ctx, o.venv, dir, "kinto-2", settings, "memory", "")
	case o.quinto != "" && o.nodes > 1:
		p.quinto = true
		nodes, err := startNodes(ctx, o, dir, settings)
		if err != nil {
			return err
		}
		p.target, p.stops = &nodes.Server, append(p.stops, nodes.stop)
		return nil
	case o.quinto != "":
		p.quinto = true
		server, err = startQuinto(ctx, o.quinto, dir, settings)
	default:
		p.target = &Server{Name: "target", Base: o.target}
		p.quinto = carriesRevision(*p.target)
		return nil
	}
	if err != nil {
		return err
	}
	p.target, p.stops = &server.Server, append(p.stops, server.stop)
	return nil
}

// suite is a runner on this pair.
func (p *pair) suite(o options, runID string) *Suite {
	return &Suite{
		Kinto: p.kinto.Server, Target: p.target, IsQuinto: p.quinto, Workers: o.workers, RunID: runID, Backend: o.backend,
	}
}

func (p *pair) kintoEnded() bool {
	select {
	case err := <-p.kinto.done:
		p.kinto.done <- err
		return true
	default:
		return false
	}
}

// stop ends what was started, the last first, and removes its folder.
func (p *pair) stop() error {
	var errs []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		errs = append(errs, p.stops[i]())
	}
	return errors.Join(errs...)
}

// carriesRevision tells quinto from a second Kinto by the header that every answer of quinto has.
func carriesRevision(s Server) bool {
	answer := s.do(context.Background(), newHTTPClient(), Sent{Method: http.MethodGet, Target: "/"})
	return answer.Header.Get("Quinto-Revision") != ""
}
