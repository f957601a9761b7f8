package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	tableBegin = "<!-- table:begin, written by `go run ./scripts/conformance --table` -->"
	tableEnd   = "<!-- table:end -->"
)

const conformanceIntro = `# Conformance with Kinto

Each row is a rule of Kinto's HTTP protocol; the scenarios beside it send the same requests to real Kinto and to quinto and compare the
answers (` + "`make conformance`" + `). Evidence: V = seen in a running Kinto 26.5.0, S = read in its source, D = documented only.
`

const compatibilityIntro = `# Compatibility with Kinto

quinto answers as Kinto 26.5.0 does, down to status, errno, header and body. Where it differs on purpose, the difference is one row here: one field of
one request of one scenario of the conformance suite, which fails when the row no longer matches anything.
`

// writeTables brings docs/conformance.md and docs/compatibility.md up to date; text outside the markers is kept.
func writeTables(root string, rows []Row, scenarios []*Scenario, deviations []*Deviation) error {
	docs := filepath.Join(root, "docs")
	if err := os.MkdirAll(docs, 0o755); err != nil {
		return err
	}
	return errors.Join(
		replaceTable(filepath.Join(docs, "conformance.md"), conformanceIntro, rowTable(rows, scenarios)),
		replaceTable(filepath.Join(docs, "compatibility.md"), compatibilityIntro, deviationTable(deviations)),
	)
}

// replaceTable puts table between the markers of a file, which is made when it is missing.
func replaceTable(file, intro, table string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		text = []byte(intro + "\n" + tableBegin + "\n" + tableEnd + "\n")
	} else if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, okEnd := strings.Cut(rest, tableEnd)
	if !ok || !okEnd {
		return fmt.Errorf("%s has no markers %q and %q", file, tableBegin, tableEnd)
	}
	return os.WriteFile(file, []byte(before+tableBegin+"\n"+table+tableEnd+after), 0o644)
}

func rowTable(rows []Row, scenarios []*Scenario) string {
	names := map[string][]string{}
	requests := 0
	for _, sc := range scenarios {
		requests += len(sc.Requests)
		for _, id := range sc.Rows {
			names[id] = append(names[id], sc.Name)
		}
	}
	var in, otherwise, out strings.Builder
	for _, row := range rows {
		if !row.InScope {
			to := &out
			if row.Else {
				to = &otherwise
			}
			fmt.Fprintf(to, "| %s | %s | %s |\n", row.ID, row.Evidence, cell(row.Text))
			continue
		}
		fmt.Fprintf(&in, "| %s | %s | %s | %s |\n", row.ID, row.Evidence, cell(row.Text), cell(strings.Join(names[row.ID], "; ")))
	}
	text := fmt.Sprintf("%d scenarios, %d requests.\n\n| row | evidence | rule | scenarios |\n|---|---|---|---|\n%s", len(scenarios), requests, in.String())
	for _, more := range []struct{ title, rows string }{{"Shown otherwise", otherwise.String()}, {"Not compared", out.String()}} {
		if more.rows != "" {
			text += fmt.Sprintf("\n## %s\n\n| row | evidence | rule and reason |\n|---|---|---|\n%s", more.title, more.rows)
		}
	}
	return text
}

func deviationTable(deviations []*Deviation) string {
	var b strings.Builder
	b.WriteString("| scenario | request | field | Kinto | quinto | reason |\n|---|---|---|---|---|---|\n")
	for _, d := range deviations {
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s | %s |\n", cell(d.Scenario+onlyOn(d.Backend)), d.Request, cell(d.Field), cell(d.Kinto), cell(d.Quinto), cell(d.Reason))
	}
	return b.String()
}

// onlyOn says of which storage of Kinto's a row speaks, when of one only.
func onlyOn(backend string) string {
	switch backend {
	case "memory":
		return " (memory backend)"
	case "postgresql":
		return " (PostgreSQL)"
	}
	return ""
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
