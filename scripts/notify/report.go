package main

import (
	"fmt"
	"os"
	"strings"
)

// row is what one channel got.
type row struct {
	name                    string
	kills, changes, repeats int
}

// line prints r as the run goes on.
func (r *row) line() string {
	return fmt.Sprintf("%-23s %d changes, %d repeats\n", r.name, r.changes, r.repeats)
}

// write makes the page of a run that nothing was found in.
func write(path string, seed uint64, worlds []*world) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Leaders killed between a delivery and its note\n\nMade by `make faults-notify` (seed %d). Three nodes; clients write to %d collections; as soon as a receiver has a change that the leader\n"+
		"has not noted as delivered yet, the leader is killed, and another one goes on. Receivers are real servers, which are killed or fail now and then too.\n"+
		"On every channel nothing was missing, the order of each collection was kept, and a repeat had the id of the first delivery.\n", seed, collections)
	for _, w := range worlds {
		fmt.Fprintf(&b, "\nThe %s cluster, %d kills of the leader in %.0f s:\n\n| channel | kills behind one of its deliveries | changes | repeats |\n| --- | --- | --- | --- |\n", w.name, w.kills, w.took.Seconds())
		for _, r := range w.rows {
			fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", r.name, r.kills, r.changes, r.repeats)
		}
		for _, h := range w.ills {
			fmt.Fprintf(&b, "\nThe receiver of %s answered: %s.\n", h.title, h.told())
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
