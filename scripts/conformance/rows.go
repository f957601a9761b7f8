package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Row is one rule of Kinto's behaviour that is within the scope of the comparison.
type Row struct {
	ID       string
	Evidence string // V seen in a running Kinto, S read in its source, D documented
	InScope  bool   // compared by scenarios; false: the reason stands in Text
	Else     bool   // shown by something else, which Text names
	Text     string
}

// LoadRows reads rows.txt: `id | V | in, else or out | text`. An error names the line.
func LoadRows(file string) ([]Row, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rows []Row
	seen := map[string]bool{}
	number := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		number++
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(line, "|", 4)
		if len(parts) != 4 {
			return nil, fmt.Errorf("%s:%d: expected `id | evidence | in, else or out | text`", file, number)
		}
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		row := Row{ID: parts[0], Evidence: parts[1], InScope: parts[2] == "in", Else: parts[2] == "else", Text: parts[3]}
		if seen[row.ID] || !slices.Contains([]string{"V", "S", "D"}, row.Evidence) || !slices.Contains([]string{"in", "else", "out"}, parts[2]) {
			return nil, fmt.Errorf("%s:%d: %q is there twice, or its evidence or scope is no known word", file, number, row.ID)
		}
		seen[row.ID] = true
		rows = append(rows, row)
	}
	return rows, nil
}

// rowGaps lists what is wrong between rows and scenarios: unknown rows, rows out of scope that are named, verified rows without a scenario.
func rowGaps(rows []Row, scenarios []*Scenario) []string {
	byID := map[string]Row{}
	for _, row := range rows {
		byID[row.ID] = row
	}
	covered := map[string]bool{}
	var gaps []string
	for _, sc := range scenarios {
		for _, id := range sc.Rows {
			if row, ok := byID[id]; !ok || !row.InScope {
				gaps = append(gaps, fmt.Sprintf("%s:%d: row %s is not in scope", sc.File, sc.Line, id))
			}
			covered[id] = true
		}
	}
	for _, row := range rows {
		if row.InScope && row.Evidence == "V" && !covered[row.ID] {
			gaps = append(gaps, fmt.Sprintf("row %s has no scenario: %s", row.ID, row.Text))
		}
	}
	return gaps
}
