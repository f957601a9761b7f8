package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// Deviation is one difference that is kept on purpose: one field of one request of one scenario.
type Deviation struct {
	Line     int
	Scenario string
	Request  string // label
	Field    string
	Backend  string // "memory" or "postgresql": only with this storage of Kinto's; "" with both
	Kinto    string // what Kinto does, in a few words
	Quinto   string // what quinto does
	Reason   string
	used     atomic.Bool
}

// LoadDeviations reads deviations.txt: paragraphs of `key: value` lines. An error names the line.
func LoadDeviations(file string) ([]*Deviation, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []*Deviation
	var open *Deviation
	number := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		number++
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "#") {
			continue
		}
		if line == "" {
			open = nil
			continue
		}
		if open == nil {
			open = &Deviation{Line: number}
			all = append(all, open)
		}
		if err := open.set(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
	}
	return all, checkDeviations(file, all)
}

func (d *Deviation) set(line string) error {
	key, value, ok := strings.Cut(line, ": ")
	fields := map[string]*string{
		"backend": &d.Backend, "scenario": &d.Scenario, "request": &d.Request, "field": &d.Field,
		"kinto": &d.Kinto, "quinto": &d.Quinto, "reason": &d.Reason,
	}
	field := fields[key]
	if !ok || field == nil {
		return fmt.Errorf("%q is no `key: value` of a deviation", line)
	}
	if *field != "" {
		return fmt.Errorf("%s is given twice", key)
	}
	*field = strings.TrimSpace(value)
	return nil
}

func checkDeviations(file string, all []*Deviation) error {
	seen := map[string]int{}
	for _, d := range all {
		for _, value := range []string{d.Scenario, d.Request, d.Field, d.Kinto, d.Quinto, d.Reason} {
			if value == "" {
				return fmt.Errorf("%s:%d: a deviation needs scenario, request, field, kinto, quinto and reason", file, d.Line)
			}
		}
		if d.Backend != "" && d.Backend != "memory" && d.Backend != "postgresql" {
			return fmt.Errorf("%s:%d: backend is memory or postgresql", file, d.Line)
		}
		key := d.Scenario + "|" + d.Request + "|" + d.Field + "|" + d.Backend
		if seen[key] != 0 {
			return fmt.Errorf("%s:%d: the same field as in line %d", file, d.Line, seen[key])
		}
		seen[key] = d.Line
	}
	return nil
}

// on tells whether the deviation shows with this storage of the reference.
func (d *Deviation) on(backend string) bool { return d.Backend == "" || d.Backend == backend }

// explain marks the deviation that a difference matches, nil when there is none.
func explain(all []*Deviation, backend, scenario, label, field string) *Deviation {
	for _, d := range all {
		if d.on(backend) && d.Scenario == scenario && d.Request == label && strings.EqualFold(d.Field, field) {
			d.used.Store(true)
			return d
		}
	}
	return nil
}
