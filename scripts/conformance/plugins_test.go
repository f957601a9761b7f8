package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// The files of the plugins' comparison are well formed: each row has a scenario, each
// deviation a request.
func TestPluginFiles(t *testing.T) {
	script, err := LoadScript(filepath.Join("plugins", "scenarios"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := LoadRows(filepath.Join("plugins", "rows.txt"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, row := range rows {
		known[row.ID] = true
		if !slices.ContainsFunc(script.Scenarios, func(sc *Scenario) bool { return slices.Contains(sc.Rows, row.ID) }) {
			t.Errorf("no scenario has row %s", row.ID)
		}
	}
	requests := map[string]bool{}
	for i := range effectSteps() {
		requests[effectScenario+"|"+strconv.Itoa(i+1)] = true
	}
	for _, sc := range script.Scenarios {
		for _, id := range sc.Rows {
			if !known[id] {
				t.Errorf("%s:%d: no row %s", sc.File, sc.Line, id)
			}
		}
		for _, r := range sc.Requests {
			requests[sc.Name+"|"+r.Label] = true
		}
	}
	deviations, err := LoadDeviations(filepath.Join("plugins", "deviations.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deviations {
		if !requests[d.Scenario+"|"+d.Request] {
			t.Errorf("deviations.txt:%d: no request %s of a scenario %q", d.Line, d.Request, d.Scenario)
		}
	}
}

// A mail and a payload are compared by what readers see, under the names that both sides
// give to what a server chose.
func TestEffectFields(t *testing.T) {
	s := &effectSide{symbols: map[string]string{}}
	if err := s.learn("3", []byte(`{"data":{"last_modified":1700000000123,"id":"0a1b2c3d-0000-4000-8000-0123456789ab"}}`)); err != nil {
		t.Fatal(err)
	}
	fields, err := payloadFields(`{"timestamp":1700000000123,"uri":"/buckets/b/collections/c/records/0a1b2c3d-0000-4000-8000-0123456789ab","revision":3,"delivery_id":"msg_1"}`)
	if err != nil {
		t.Fatal(err)
	}
	got := s.named(fields)
	if len(got) != 2 || got["timestamp"] != "<3.2>" || got["uri"] != `"/buckets/b/collections/c/records/<3.1>"` {
		t.Errorf("%v", got)
	}
	mail, err := mailFields(`{"from":"a@b","to":["d@b","c@b"],"headers":[["Subject","x"],["Date","never"]],"body":"text\r\n"}`)
	if err != nil || len(mail) != 4 || mail["envelope-to"] != "c@b d@b" || mail["subject"] != "x" || mail["body"] != "text" {
		t.Errorf("%v %v", mail, err)
	}
}
