package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quinto/internal/testcluster"
)

const (
	nodes          = 3
	clusterTimeout = 60 * time.Second
	// scoutShare of a cell's time is what finding Kinto's best number of connections takes at each.
	scoutShare = 0.3
	scoutLeast = time.Second
	// settle lets the last cell's work (compaction, followers, checkpoints) come to rest before the next one.
	settle = 300 * time.Millisecond
)

// versus is the comparison with Kinto.
type versus struct {
	Rounds   int
	Seconds  float64
	Records  int
	Kinto    string // versions
	Postgres string
	Rows     []*row
	Syncs    []time.Duration // fdatasync's median beside create at one connection, one a round
}

// row is one workload: cells of all rounds.
type row struct {
	workload  workload
	BestConns int            // of Kinto
	Scouted   []cell         // how that was found
	Kinto     []cell         // one a round, at BestConns
	Quinto    map[int][]cell // by connections; one a round
}

// measureVersus starts both contenders, fills them and takes the rounds.
func measureVersus(ctx context.Context, o options, dir string, chosen []workload) (v *versus, err error) {
	if o.venv == "" {
		if o.venv, err = tool(ctx, "venv"); err != nil {
			return nil, err
		}
	}
	progress("starting Kinto on PostgreSQL, and %d nodes of quinto", nodes)
	k, err := startKinto(ctx, o.venv, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	q, stopQuinto, err := startQuinto(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopQuinto()) }()
	v = &versus{Rounds: o.rounds, Seconds: o.seconds, Records: o.records, Kinto: k.versions, Postgres: k.pg.version}
	if err := fill(ctx, k, q, o.records); err != nil {
		return nil, err
	}
	for _, w := range chosen {
		r := &row{workload: w, Quinto: map[int][]cell{}}
		v.Rows = append(v.Rows, r)
		if err := r.scout(ctx, &k.contender, o); err != nil {
			return nil, err
		}
	}
	for round := range o.rounds {
		for _, r := range v.Rows {
			if err := v.takeRound(ctx, r, k, q, o, dir, round); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// startQuinto starts the three nodes with the settings that Kinto has too, its own being their defaults.
func startQuinto(ctx context.Context, o options, dir string) (*contender, func() error, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	data := filepath.Join(dir, "quinto-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, nil, err
	}
	cluster, err := testcluster.New(testcluster.Options{Binary: o.quinto, Dir: data, Nodes: nodes})
	if err != nil {
		return nil, nil, err
	}
	if err := cluster.Start(ctx); err != nil {
		return nil, nil, errors.Join(err, cluster.Close())
	}
	c := &contender{Name: "quinto"}
	for _, n := range cluster.Nodes {
		c.Addrs, c.PIDs = append(c.Addrs, n.HTTP), append(c.PIDs, n.PID())
	}
	return c, cluster.Close, nil
}

// fill puts the same records into both and makes sure that they are there.
func fill(ctx context.Context, k *kinto, q *contender, records int) error {
	for _, c := range []*contender{&k.contender, q} {
		progress("%s: %d records", c.Name, records)
		if err := c.setUp(ctx); err != nil {
			return err
		}
		var err error
		if c == q {
			err = seedBatches(ctx, c, 0, records, batchSize)
		} else {
			err = k.seedSQL(ctx, records)
		}
		if err != nil {
			return err
		}
		if n, err := c.count(ctx, seedPath); err != nil || n != records {
			return errors.Join(fmt.Errorf("%s has %d records, want %d", c.Name, n, records), err)
		}
	}
	return nil
}

// scout finds the number of connections at which Kinto does most of this workload.
func (r *row) scout(ctx context.Context, k *contender, o options) error {
	span := max(scoutLeast, time.Duration(scoutShare*o.seconds*float64(time.Second)))
	best := 0.0
	var found []string
	for _, conns := range r.workload.tries {
		c, err := r.measure(ctx, k, conns, span, o.records)
		if err != nil {
			return err
		}
		r.Scouted = append(r.Scouted, c)
		found = append(found, fmt.Sprintf("%d: %s/s", conns, figure(c.Rate)))
		if c.Rate > best || r.BestConns == 0 {
			best, r.BestConns = c.Rate, conns
		}
	}
	progress("Kinto, %s, best at %d connections (%s)", r.workload.name, r.BestConns, strings.Join(found, ", "))
	return nil
}

// takeRound measures one workload on both. Who comes first changes from round to round.
func (v *versus) takeRound(ctx context.Context, r *row, k *kinto, q *contender, o options, dir string, round int) error {
	span := time.Duration(o.seconds * float64(time.Second))
	measureKinto := func() error {
		c, err := r.measure(ctx, &k.contender, r.BestConns, span, o.records)
		r.Kinto = append(r.Kinto, c)
		return err
	}
	measureQuinto := func() error {
		for _, conns := range r.workload.conns {
			c, err := r.measure(ctx, q, conns, span, o.records)
			if err != nil {
				return err
			}
			r.Quinto[conns] = append(r.Quinto[conns], c)
			if r.workload.name == "create" && conns == 1 {
				sync, err := measureSync(dir)
				if err != nil {
					return err
				}
				v.Syncs = append(v.Syncs, sync)
			}
		}
		return nil
	}
	steps := []func() error{measureQuinto, measureKinto}
	if round%2 == 1 {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	line := fmt.Sprintf("round %d, %s:", round+1, r.workload.name)
	for _, conns := range r.workload.conns {
		c := r.Quinto[conns][round]
		line += fmt.Sprintf(" quinto@%d %s/s%s,", conns, figure(c.Rate), mishaps(c))
	}
	c := r.Kinto[round]
	progress("%s Kinto@%d %s/s%s", line, r.BestConns, figure(c.Rate), mishaps(c))
	return nil
}

func mishaps(c cell) string {
	if c.Errors == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d errors: %s)", c.Errors, c.FirstErr)
}

// measure prepares the workload for a contender and takes one cell.
func (r *row) measure(ctx context.Context, c *contender, conns int, span time.Duration, records int) (cell, error) {
	op, err := r.workload.prepare(ctx, c, records)
	if err != nil {
		return cell{}, err
	}
	result, err := load{contender: c, conns: conns, time: span, op: op}.run(ctx)
	if err == nil {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
	return result, err
}
