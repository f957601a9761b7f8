package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// httpTime is a time in milliseconds as Last-Modified gives it.
func httpTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format(http.TimeFormat)
}

// fakeServer answers every request with one body; its list clock runs on like a real one.
func fakeServer(t *testing.T, body string, revision bool) Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().UnixMilli()
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, now))
		w.Header().Set("Last-Modified", httpTime(now))
		if revision {
			w.Header().Set("Quinto-Revision", "1")
		}
		fmt.Fprintf(w, `{"data":{"id":%q,"last_modified":%d},%s}`, r.URL.Path[len("/v1/buckets/"):], now, body)
	}))
	t.Cleanup(s.Close)
	return Server{Name: "fake", Base: s.URL}
}

func someScenarios() []*Scenario {
	requests := func() []*Request {
		return []*Request{
			{Label: "1", Method: "PUT", Target: "/buckets/{b}", Status: 200, User: "alice"},
			{Label: "2", Method: "PUT", Target: "/buckets/{b}", Status: 200, Header: [][2]string{{"If-Match", "{etag:1}"}}},
		}
	}
	return []*Scenario{
		{Name: "one", File: "a.txt", Line: 1, Rows: []string{"1"}, Requests: requests()},
		{Name: "two", File: "a.txt", Line: 9, Rows: []string{"1"}, Requests: requests(), Alone: true},
	}
}

func runSome(t *testing.T, target string, deviations []*Deviation) (tally, string) {
	t.Helper()
	to := fakeServer(t, target, true)
	suite := &Suite{Kinto: fakeServer(t, `"x":1`, false), Target: &to, IsQuinto: true, Workers: 2, RunID: "t", Deviations: deviations}
	outcomes := suite.Run(context.Background(), someScenarios())
	var text bytes.Buffer
	counted := report(&text, outcomes, staleDeviations(deviations, someScenarios(), "memory"), true)
	return counted, text.String()
}

func TestEqualServersHaveNoDifferences(t *testing.T) {
	counted, text := runSome(t, `"x":1`, nil)
	if counted.equal != 4 || !strings.Contains(text, "conformance: 2 scenarios, 4 requests, equal 4, deviations on purpose 0, unexplained 0\n4 passed, 0 failed\n") {
		t.Errorf("got %+v\n%s", counted, text)
	}
}

// What differs once and not again is named and does not count; what differs again counts.
func TestWhatDiffersIsRunOnceMore(t *testing.T) {
	same := fakeServer(t, `"x":1`, true)
	other := fakeServer(t, `"x":2`, true)
	var asked atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := same.Base
		if asked.Add(1) == 1 {
			to = other.Base
		}
		answer, err := http.Get(to + "/v1" + strings.TrimPrefix(r.URL.Path, "/v1"))
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}))
	t.Cleanup(target.Close)
	suite := &Suite{Kinto: fakeServer(t, `"x":1`, false), Target: &Server{Name: "fake", Base: target.URL}, IsQuinto: true, Workers: 1, RunID: "t"}
	outcomes := suite.Run(context.Background(), someScenarios())
	if differs(outcomes[0]) || differs(outcomes[1]) || len(suite.Chance) != 1 || !strings.Contains(suite.Chance[0], "body.x") {
		t.Errorf("%q", suite.Chance)
	}
}

func TestDifferencesAreExplainedByOneDeviationEach(t *testing.T) {
	deviations := []*Deviation{{Scenario: "one", Request: "1", Field: "body.x"}, {Scenario: "two", Request: "2", Field: "body.y"}}
	counted, text := runSome(t, `"x":2`, deviations)
	want := tally{scenarios: 2, requests: 4, deviations: 1, unexplained: 4} // three requests and the deviation that matches nothing
	if counted != want {
		t.Errorf("got %+v\n%s", counted, text)
	}
	for _, part := range []string{"body.x", "kinto   1", "target  2", "matches no difference any more", "deviation on purpose", "1 passed, 4 failed"} {
		if !strings.Contains(text, part) {
			t.Errorf("the report lacks %q:\n%s", part, text)
		}
	}
}

func TestAnExplainedStatusExplainsItsAnswer(t *testing.T) {
	for _, tt := range []struct {
		deviation, other string
		want             bool
	}{
		{"status", "body.data", true},
		{"status", "header:ETag", true},
		{"status", "errno", true},
		{"status", "header:Quinto-Revision", false},
		{"status", "scenario", false},
		{"body.responses[1].status", "body.responses[1].body.errno", true},
		{"body.responses[1].status", "body.responses[1].headers.ETag", true},
		{"body.responses[1].status", "body.responses[10].body.errno", false},
		{"body.responses[1].status", "body.responses[2].status", false},
		{"body.data.status", "body.data.x", false},
		{"header:ETag", "header:Last-Modified", false},
	} {
		if got := follows(tt.other, followingStatus(tt.deviation)); got != tt.want {
			t.Errorf("%s explains %s: got %v", tt.deviation, tt.other, got)
		}
	}
}

func TestAServerThatIsNotThereIsADifference(t *testing.T) {
	suite := &Suite{Kinto: fakeServer(t, `"x":1`, false), Target: &Server{Base: "http://127.0.0.1:1"}, Workers: 1, RunID: "t"}
	outcomes := suite.Run(context.Background(), someScenarios()[:1])
	for _, o := range outcomes[0] {
		if len(o.Diffs) != 1 || o.Diffs[0].Field != "answer" {
			t.Errorf("request %s: got %v", o.Request.Label, o.Diffs)
		}
	}
}

func TestKintoMustAnswerWhatTheScenarioSays(t *testing.T) {
	scenarios := someScenarios()[:1]
	scenarios[0].Requests[0].Status = 201
	suite := &Suite{Kinto: fakeServer(t, `"x":1`, false), Workers: 1, RunID: "t"}
	outcomes := suite.Run(context.Background(), scenarios)
	if diffs := outcomes[0][0].Diffs; len(diffs) != 1 || diffs[0].Field != "scenario" {
		t.Errorf("got %v", diffs)
	}
}

func TestSampleIsDecidedByItsSeed(t *testing.T) {
	var all []*Scenario
	for i := range 50 {
		all = append(all, &Scenario{Name: fmt.Sprint(i)})
	}
	names := func(seed uint64) string {
		var text strings.Builder
		for _, sc := range sample(all, 5, seed) {
			text.WriteString(sc.Name + " ")
		}
		return text.String()
	}
	if first, again := names(1), names(1); first != again {
		t.Errorf("one seed gave %q and %q", first, again)
	}
	if names(1) == names(2) || len(sample(all, 0, 1)) != 50 || len(sample(all, 5, 1)) != 5 {
		t.Errorf("got %q and %q", names(1), names(2))
	}
}

func TestTablesKeepTheTextAroundThem(t *testing.T) {
	root := t.TempDir()
	rows := []Row{{ID: "1", Evidence: "V", InScope: true, Text: "a|b"}, {ID: "2", Evidence: "V", Text: "later"}, {ID: "3", Evidence: "S", Else: true, Text: "TestX"}}
	deviations := []*Deviation{{Scenario: "one", Request: "1", Field: "status", Kinto: "k", Quinto: "q", Reason: "r"}}
	if err := writeTables(root, rows, someScenarios(), deviations); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "compatibility.md")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "| one | 1 | `status` | k | q | r |") {
		t.Fatalf("%v\n%s", err, text)
	}
	edited := strings.Replace(string(text), "# Compatibility", "By hand.\n\n# Compatibility", 1) + "\nThe end.\n"
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeTables(root, rows, someScenarios(), nil); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "By hand.") || !strings.HasSuffix(string(text), "The end.\n") || strings.Contains(string(text), "| one |") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = os.ReadFile(filepath.Join(root, "docs", "conformance.md"))
	if err != nil || !strings.Contains(string(text), "| 1 | V | a\\|b | one; two |") || !strings.Contains(string(text), "## Shown otherwise\n\n| row | evidence | rule and reason |\n|---|---|---|\n| 3 | S | TestX |") || !strings.Contains(string(text), "| 2 | V | later |") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestIniServesBothServers(t *testing.T) {
	text := iniText(21000, "paginate_by=3 readonly=false", "postgresql", "postgresql://h/d")
	for _, line := range []string{"port = 21000", "kinto.paginate_by = 3", "kinto.readonly = false", "kinto.storage_backend = kinto.core.storage.postgresql",
		"multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy", "kinto.userid_hmac_secret = " + userSecret} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("lacks %q", line)
		}
	}
	if strings.Contains(iniText(21000, "", "memory", ""), "storage_backend") {
		t.Error("the backend must stay unnamed, so that the target keeps its data on disk")
	}
}

func TestTablesInDocsAreUpToDate(t *testing.T) {
	script, rows, deviations := loadHere(t)
	root := t.TempDir()
	names := []string{"conformance.md", "compatibility.md"}
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "docs", name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeTables(root, rows, script.Scenarios, deviations); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		want, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join("..", "..", "docs", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is old: go run ./scripts/conformance --table", name)
		}
	}
}
