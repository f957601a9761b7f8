package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// minScenarios is what the project promises to compare.
const minScenarios = 230

func loadHere(t *testing.T) (*Script, []Row, []*Deviation) {
	t.Helper()
	script, err := LoadScript("scenarios")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := LoadRows("rows.txt")
	if err != nil {
		t.Fatal(err)
	}
	deviations, err := LoadDeviations("deviations.txt")
	if err != nil {
		t.Fatal(err)
	}
	return script, rows, deviations
}

func TestEveryVerifiedRowHasAScenario(t *testing.T) {
	script, rows, _ := loadHere(t)
	for _, gap := range rowGaps(rows, script.Scenarios) {
		t.Error(gap)
	}
	if len(script.Scenarios) < minScenarios {
		t.Errorf("%d scenarios, want at least %d", len(script.Scenarios), minScenarios)
	}
}

func TestRowGapsAreFound(t *testing.T) {
	rows := []Row{{ID: "1", Evidence: "V", InScope: true}, {ID: "2", Evidence: "V", InScope: true}, {ID: "3", Evidence: "S", InScope: true}, {ID: "4", Evidence: "V"}}
	gaps := rowGaps(rows, []*Scenario{{Rows: []string{"1", "4", "nonsense"}}})
	if len(gaps) != 3 || !strings.Contains(gaps[2], "row 2 has no scenario") {
		t.Errorf("got %q", gaps)
	}
}

func TestEveryRequestSaysWhatKintoAnswers(t *testing.T) {
	script, _, _ := loadHere(t)
	for _, sc := range script.Scenarios {
		for _, r := range sc.Requests {
			if r.Status == 0 {
				t.Errorf("%s:%d: no => STATUS", r.File, r.Line)
			}
		}
	}
}

func TestDeviationsNameWhatExists(t *testing.T) {
	script, _, deviations := loadHere(t)
	for _, d := range deviations {
		i := slices.IndexFunc(script.Scenarios, func(sc *Scenario) bool { return sc.Name == d.Scenario })
		if i < 0 || !slices.ContainsFunc(script.Scenarios[i].Requests, func(r *Request) bool { return r.Label == d.Request }) {
			t.Errorf("deviations.txt:%d: no request %s of a scenario %q", d.Line, d.Request, d.Scenario)
		}
		if d.Field != "status" && d.Field != "errno" && !strings.HasPrefix(d.Field, "header:") && !strings.HasPrefix(d.Field, "body") {
			t.Errorf("deviations.txt:%d: %q is no field", d.Line, d.Field)
		}
	}
}

func TestScriptErrorsNameFileAndLine(t *testing.T) {
	const head = "scenario x\nrows: 1\n"
	for _, tt := range []struct{ name, text, want string }{
		{"request outside a scenario", "GET /\n", "a.txt:1: expected `scenario NAME`"},
		{"unknown word in a request", head + "GET / usr=a\n", "a.txt:3: unknown word"},
		{"target that is no path", head + "GET buckets\n", "a.txt:3: target"},
		{"status that is no number", head + "GET / => ok\n", "a.txt:3: status"},
		{"header after a body", head + "PUT /b\n  {}\nIf-Match: *\n", "a.txt:5:"},
		{"body without a request", head + "\n  {}\n", "a.txt:4: a body without"},
		{"unknown directive", head + "GET /\n@loose\n", "a.txt:4: unknown directive"},
		{"unknown placeholder", head + "GET /{nothing}\n", "a.txt:3: {nothing}: unknown placeholder"},
		{"later request", head + "GET /\nIf-Match: {etag:2}\nGET /\n", "a.txt:3: {etag:2} names request 2"},
		{"unknown setup", "scenario x\nrows: 1\nsetup: none\nGET /\n", "a.txt:1: unknown setup"},
		{"no row", "scenario x\nGET /\n", "a.txt:1: scenario \"x\" names no row"},
		{"no request", "scenario x\nrows: 1\n", "a.txt:1: scenario \"x\" has no request"},
		{"the same name twice", head + "GET /\nscenario x\n", "a.txt:4: scenario \"x\" is already at"},
		{"bad base64", head + "PUT /b\n@base64 %%\n", "a.txt:4: @base64"},
		{"unknown backend", "scenario x\nbackend: redis\n", "a.txt:2: backend"},
		{"neither header nor request", head + "GET /\nwhat is this\n", "a.txt:4:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadScript(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestScriptIsRead(t *testing.T) {
	dir := t.TempDir()
	text := "setup s\nPUT /buckets/{b} user=alice => 201\n\nscenario a name\nrows: 1 2\nsetup: s\nsettings: b=2 a=1\nalone\n" +
		"POST /buckets user=alice => 200\nIf-Match: {etag:s1}\n@type body.x\n@any body.y header:Z\n@extra leader\n  {\"a\":\n   1}\nGET {next:1}\n"
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := LoadScript(dir)
	if err != nil {
		t.Fatal(err)
	}
	sc := script.Scenarios[0]
	if sc.Name != "a name" || sc.Settings != "a=1 b=2" || !sc.Alone || len(sc.Requests) != 3 {
		t.Fatalf("got %+v", sc)
	}
	post := sc.Requests[1]
	if sc.Requests[0].Label != "s1" || post.Label != "1" || post.Status != 200 || post.User != "alice" || string(post.Body) != `{"a": 1}` ||
		post.Header[0] != [2]string{"If-Match", "{etag:s1}"} || len(post.Any) != 2 || !post.IsExt || sc.Requests[2].Target != "{next:1}" {
		t.Errorf("got %+v", post)
	}
}

func TestDeviationFileIsStrict(t *testing.T) {
	const whole = "scenario: x\nrequest: 1\nfield: status\nkinto: a\nquinto: b\nreason: c\n"
	for _, tt := range []struct{ name, text, want string }{
		{"whole", whole, ""},
		{"two", whole + "\n# comment\n" + strings.Replace(whole, "status", "errno", 1), ""},
		{"the same field twice", whole + "\n" + whole, "the same field as in line 1"},
		{"a key is missing", strings.Replace(whole, "reason: c\n", "", 1), "needs scenario"},
		{"unknown key", whole + "because: d\n", "is no `key: value`"},
		{"given twice", whole + "reason: d\n", "given twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "d.txt")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadDeviations(file)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPlaceholders(t *testing.T) {
	vars := variables{suffix: "z9", now: 1000}
	answers := map[string]Answer{"1": {Header: map[string][]string{
		"Etag": {`"1795318000000"`}, "Next-Page": {"http://h/v1/x?_limit=1&_token=a%3D"},
	}, Body: []byte(`{"data":{"id":"r","list":[{"k":"v"},5]}}`)}}
	for _, tt := range []struct{ text, want string }{
		{"/buckets/{b}/{b2}/{s}", "/buckets/bkt-z9/bkt2-z9/z9"},
		{"{now} {now+5} {now-5}", "1000 1005 995"},
		{"{etag:1}", `"1795318000000"`},
		{"{ts:1+5} {ts:1-5}", "1795318000005 1795317999995"},
		{"{id:1} {json:1:data.list.0.k} {json:1:data.list.1}", "r v 5"},
		{"{next:1} {token:1}", "http://h/v1/x?_limit=1&_token=a%3D a%3D"},
		{`{"a": {"b": 1}}`, `{"a": {"b": 1}}`},
	} {
		got, _, err := captured(vars.static(tt.text), answers)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"{etag:2}", "{id:2}", "{json:1:data.none}", "{json:1:data.list.9}", "{token:2}"} {
		if _, _, err := captured(text, answers); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// The vector is that of Kinto's basic auth with the secret s3cr3t and the user "x" without a password.
func TestPrincipalIsKintos(t *testing.T) {
	const want = "basicauth:710739bcca667dba57562183c23ac5ecf1d63f196e821a88f7f58d15aa706029"
	if got := principalOf("s3cr3t", "x:"); got != want {
		t.Errorf("got %s", got)
	}
}
