package main

import (
	"fmt"
	"strings"
)

func (o *options) report(all []*outcome) error {
	for _, out := range all {
		if out.bad() {
			return errHarmed
		}
	}
	return nil
}

func mutantsPage(all []*found) string {
	var b strings.Builder
	b.WriteString("# The checker finds planted faults\n\nMade by `make mutants`. Each fault is planted in a binary built aside, which then runs under the harm that brings it out;\nthe judge is the same as in [faults.md](faults.md).\n\n")
	b.WriteString("| planted | harm | found in run | by violations of |\n| --- | --- | --- | --- |\n")
	for _, f := range all {
		fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", f.mutant.what, f.mutant.harm, f.tries, f.by())
	}
	return b.String()
}
