package resource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quinto/fsm"
)

// 64 clients that patch one record all get 200, and no change is lost.
func TestContendedPatchesAllSucceed(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(1)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c.want(200, "", "alice", "PATCH "+records+"/r1", fmt.Sprintf(`{"data":{"k%d":1}}`, i))
		}()
	}
	wg.Wait()
	body := string(c.want(200, "", "alice", "GET "+records+"/r1", "").Body)
	if got := strings.Count(body, `"k`); got != 64 {
		t.Errorf("%d of 64 patches are there", got)
	}
	if n.proposed > 64+10 {
		t.Errorf("%d proposals: the lock per object saves the conflicts", n.proposed)
	}
}

// A write that is overtaken each time is planned by the proposer in the end.
func TestConflictsEndInAnExclusivePlan(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(1)
	other := newService(t, n, nil) // another front of the same state, without its locks
	busy := false
	n.beforePropose = func() {
		if busy {
			return
		}
		busy = true
		defer func() { busy = false }()
		if r := other.Do(context.Background(), request("alice", "PATCH "+records+"/r1", `{"data":{"other":1}}`)); r.Status != 200 {
			t.Errorf("other: %d %s", r.Status, r.Body)
		}
	}
	c.want(200, `"mine":1`, "alice", "PATCH "+records+"/r1", `{"data":{"mine":1}}`)
	if n.exclusive != 1 {
		t.Errorf("planned exclusively %d times", n.exclusive)
	}
	// An If-Match that was overtaken is refused, not forced through.
	etag := c.want(200, "", "alice", "GET "+records+"/r1", "").Get("ETag")
	c.want(412, "", "alice", "PUT "+records+"/r1", `{}`, "if-match", etag)
}

// A leader that has not applied yet what it knows to be committed, and what a follower
// may have shown already, does not decide on the older state. Found by scripts/sim.
func TestAnswerWithoutWriteIsDecidedOnAllThatIsCommitted(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(1)
	other := newService(t, n, nil)
	// apply stands for the leader's state machine, which catches up while it is asked
	// whether it still leads.
	apply := func(line, body string) {
		n.confirm = func() {
			n.confirm = nil
			if r := other.Do(context.Background(), request("alice", line, body)); r.Status >= 300 {
				t.Errorf("%s: %d %s", line, r.Status, r.Body)
			}
		}
	}
	apply("PUT "+records+"/r2", `{"data":{"late":1}}`)
	c.want(200, `"mine":1`, "alice", "PATCH "+records+"/r2", `{"data":{"mine":1}}`)
	apply("DELETE "+records+"/r2", "")
	c.want(201, "", "alice", "PUT "+records+"/r2", `{}`, "if-none-match", "*")
	apply("DELETE "+records+"/r2", "")
	resp := c.want(404, "", "alice", "DELETE "+records+"/r3", "")
	if got, want := resp.Get(revisionHeader), fmt.Sprint(n.machine.Revision()); got != want {
		t.Errorf("decided at revision %s, applied is %s", got, want)
	}
}

func TestIdempotencyKey(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(1)
	etag := c.want(200, "", "alice", "GET "+records+"/r1", "").Get("ETag")
	cases := []struct {
		line, body string
		headers    []string
	}{
		{"POST " + records, `{"data":{"x":1}}`, nil},
		{"PUT " + records + "/r1", `{"data":{"y":1}}`, []string{"if-match", etag}},
		{"PATCH " + records + "/r1", `{"data":{"z":1},"permissions":{"read":["system.Everyone"]}}`, nil},
		{"DELETE " + records + "/r1", ``, nil},
		{"POST /batch", `{"requests":[{"method":"PUT","path":"` + records + `/b"},{"path":"` + records + `"},{"path":"` + records + `/b"},{"path":"/buckets/b"},{"method":"DELETE","path":"` + records + `"}]}`, nil},
		{"DELETE /buckets/b/collections/c", ``, nil},
	}
	for i, tc := range cases {
		headers := append([]string{"idempotency-key", fmt.Sprint("key", i)}, tc.headers...)
		first := c.do("alice", tc.line, tc.body, headers...)
		before := n.machine.Revision()
		second := c.do("alice", tc.line, tc.body, headers...)
		if first.Status/100 != 2 || second.Status != first.Status || string(first.Body) != string(second.Body) ||
			fmt.Sprint(first.Header) != fmt.Sprint(second.Header) {
			t.Errorf("%s:\nfirst  %d %v %s\nsecond %d %v %s", tc.line, first.Status, first.Header, first.Body, second.Status, second.Header, second.Body)
		}
		if n.machine.Revision() != before {
			t.Errorf("%s: the second one had an effect", tc.line)
		}
		c.want(400, "The key was used for another request", "alice", tc.line+"?x=1", tc.body, headers...)
	}
	c.want(404, "", "bob", cases[0].line, cases[0].body, "idempotency-key", "key0") // keys are per user: this one is new
	c.want(400, "Longer than 256 bytes", "alice", cases[0].line, cases[0].body, "idempotency-key", strings.Repeat("k", 257))
}

func TestSameKeyInFlightWaits(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(0)
	before := n.machine.Revision()
	var wg sync.WaitGroup
	bodies := make([]string, 8)
	for i := range bodies {
		wg.Add(1)
		go func() {
			defer wg.Done()
			bodies[i] = string(c.want(201, "", "alice", "POST "+records, `{"data":{"x":1}}`, "idempotency-key", "k").Body)
		}()
	}
	wg.Wait()
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("answers differ: %s, %s", b, bodies[0])
		}
	}
	if got := n.machine.Revision() - before; got != 1 {
		t.Errorf("%d effects of one key", got)
	}
}

// An outcome that is unknown is asked for again with the same id: one effect.
func TestUnknownOutcomeIsRetriedOnce(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(0)
	before := n.machine.Revision()
	lost := true
	n.answer = func(error) error {
		if lost {
			lost = false
			return fsm.ErrUnknownOutcome
		}
		return nil
	}
	c.want(201, `"x":1`, "alice", "POST "+records, `{"data":{"x":1}}`)
	if got := n.machine.Revision() - before; got != 1 {
		t.Errorf("%d effects", got)
	}
	// Without end, the client is told so.
	n.answer = func(error) error { return fsm.ErrUnknownOutcome }
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	r := c.s.Do(ctx, request("alice", "PUT "+records+"/new", "{}"))
	if r.Status != 503 && r.Status != 201 {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// A follower forwards the whole request; a node that lost its leadership says so
// and the follower asks again.
func TestForwarding(t *testing.T) {
	leader, n := newClient(t, nil)
	leader.withRecords(1)
	follower := &loneNode{machine: n.machine, clock: n.clock, leads: func() bool { return false }}
	calls := 0
	follower.forward = func(request []byte) ([]byte, error) {
		if calls++; calls == 1 {
			return EncodeResponse(&Response{outcome: outcomeNotLeader}), nil
		}
		return leader.s.Serve(context.Background(), request), nil
	}
	c := &client{t, newService(t, follower, nil)}
	c.want(201, `"f":1`, "alice", "PUT "+records+"/f", `{"data":{"f":1}}`)
	c.want(412, "existing", "alice", "PUT "+records+"/f", `{}`, "if-none-match", "*")
	c.want(200, `"f":1`, "alice", "GET "+records+"/f", "")
	c.want(200, `"status":200`, "alice", "POST /batch", `{"requests":[{"path":"`+records+`/f"}]}`)
	if calls != 3 {
		t.Errorf("%d forwards: reads stay here", calls)
	}
	follower.forward = func([]byte) ([]byte, error) { return nil, fsm.ErrOverloaded }
	if r := c.want(503, `"errno":201`, "alice", "PUT "+records+"/f", "{}"); r.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	follower.forward = nil
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if r := c.s.Do(ctx, request("alice", "PUT "+records+"/f", "{}")); r.Status != 503 || strings.Contains(string(r.Body), "unknown") {
		t.Errorf("no leader: %d %s", r.Status, r.Body)
	}
}

func TestNodeErrorsHaveAnswers(t *testing.T) {
	c, n := newClient(t, nil)
	c.withRecords(0)
	for err, want := range map[error]int{fsm.ErrOverloaded: 503, fsm.ErrTooLarge: 413, fsm.ErrNoSpace: 507, fsm.ErrHalted: 503} {
		n.answer = func(error) error { return err }
		if r := c.want(want, `"code":`, "alice", "POST "+records, "{}"); !json.Valid(r.Body) {
			t.Errorf("%v: %s", err, r.Body)
		} else if again := slices.ContainsFunc(r.Header, func(h HeaderField) bool { return h.Name == "Retry-After" }); again != (want >= 500) {
			t.Errorf("%v: %v", err, r.Header)
		}
	}
	n.answer = nil
	c.want(413, `"errno":113`, "alice", "POST "+records, `{"data":{"x":"`+strings.Repeat("x", 1<<20)+`"}}`)
}

// What costs memory or time beyond the size of a request must be bounded.
func TestHostileBodiesAreCheap(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	var keys, items strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&keys, `,"k%d":1`, i)
		items.WriteString(",1")
	}
	many, list := keys.String()[1:], items.String()[1:]
	start := time.Now()
	bodies := []string{"{" + many + "}", `{"permissions":{` + many + `}}`, `{"permissions":{"read":[` + list + `]}}`, `{"data":{` + many + `}}`}
	for _, b := range bodies {
		for _, line := range []string{"PUT " + records + "/r1", "PATCH " + records + "/r1", "POST " + records} {
			if r := c.do("alice", line, b, "response-behavior", "light"); r.Status >= 500 || len(r.Body) > 2<<20 {
				t.Errorf("%s: %d with %d bytes", line, r.Status, len(r.Body))
			}
		}
	}
	c.do("alice", "PUT /buckets/b/groups/g", `{"data":{"members":[`+list+`]}}`)
	parts := strings.Repeat(`,{"path":"/buckets/b","method":"PUT"}`, 25)[1:]
	c.want(413, "", "alice", "POST /batch", `{"defaults":{"body":{"data":{`+many+`}}},"requests":[`+parts+`]}`)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

// A session that shows a time which this node has not seen waits for it; a list
// that was made anew is answered after the wait as the leader sees it.
func TestSessionReads(t *testing.T) {
	c, n := newClient(t, map[string]string{})
	c.withRecords(1)
	etag := c.want(200, "", "alice", "GET "+records, "").Get("ETag")
	session := []string{"quinto-consistency", "session", "if-none-match"}
	c.want(304, "", "alice", "GET "+records, "", append(session, etag)...)
	ahead := fmt.Sprintf(`"%d"`, n.clock()+60_000)
	short := c.s.cfg.Timeouts.SessionWait
	c.s.cfg.Timeouts.SessionWait = time.Minute
	start := time.Now()
	go func() {
		time.Sleep(50 * time.Millisecond)
		c.do("alice", "PUT "+records+"/r2", fmt.Sprintf(`{"data":{"last_modified":%s}}`, strings.Trim(ahead, `"`)))
	}()
	c.want(304, "", "alice", "GET "+records, "", append(session, ahead)...)
	if took := time.Since(start); took > 50*time.Second {
		t.Errorf("waited %v though the write came", took)
	}
	c.s.cfg.Timeouts.SessionWait = short
	c.want(200, `"id":"r2"`, "alice", "GET "+records, "", append(session, fmt.Sprintf(`"%d"`, n.clock()+120_000))...)
	r := c.want(200, "", "alice", "GET "+records+"?_consistency=stale", "")
	if r.Get("Quinto-Staleness") == "" {
		t.Error("a stale answer does not say its age")
	}
	revision := r.Get("Quinto-Revision")
	c.want(200, "", "alice", "GET "+records, "", "quinto-consistency", "session", "quinto-revision", revision)
	c.want(400, "Quinto-Revision", "alice", "GET "+records, "", "quinto-consistency", "session", "quinto-revision", "x")
}

// TestLevelOfAReadByHeaderAndParameter: only a stale answer has an age, which tells
// the levels apart.
func TestLevelOfAReadByHeaderAndParameter(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	for _, one := range []struct {
		header, parameter string
		stale             bool
	}{
		{"", "", false}, {"stale", "", true}, {"", "stale", true}, {"session", "", false}, {"linearizable", "", false},
		{"linearizable", "stale", true}, {"stale", "linearizable", false}, {"stale", "session", false},
	} {
		line, headers := "GET "+records, []string{}
		if one.parameter != "" {
			line += "?_consistency=" + one.parameter
		}
		if one.header != "" {
			headers = []string{"quinto-consistency", one.header}
		}
		r := c.want(200, "", "alice", line, "", headers...)
		if got := r.Get("Quinto-Staleness") != ""; got != one.stale || r.Get("Quinto-Revision") == "" {
			t.Errorf("%+v: %v", one, r.Header)
		}
	}
	c.want(400, "_consistency", "alice", "GET "+records+"?_consistency=newest", "")
}

// TestPagesOfASessionDoNotGoBack: the second page comes from a node that lags behind
// the first one's. It has to wait for the first page's revision, since the client
// keeps the first page's ETag and would miss for ever what came between. A page asked
// for in a batch is no other.
func TestPagesOfASessionDoNotGoBack(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprintf("batch=%t", batch), func(t *testing.T) {
			c, n := newClient(t, map[string]string{})
			c.s.cfg.Timeouts.SessionWait = time.Minute // the write comes earlier
			c.withRecords(2)
			path := pageAhead(t, c, n)
			go func() {
				time.Sleep(50 * time.Millisecond)
				c.do("alice", "PUT "+records+"/between", "")
			}()
			if batch {
				c.want(200, `"id":"between"`, "alice", "POST /batch", fmt.Sprintf(`{"requests":[{"path":"/"},{"path":%q}]}`, path), "quinto-consistency", "session")
				return
			}
			c.want(200, `"id":"between"`, "alice", "GET "+path+"&_consistency=session", "")
		})
	}
}

// pageAhead is the path of the second page of the records as a node shows it that is
// one revision ahead of n.
func pageAhead(t *testing.T, c *client, n *loneNode) string {
	t.Helper()
	first := c.want(200, "", "alice", "GET "+records+"?_sort=last_modified&_limit=1", "")
	next, err := url.Parse(first.Get("Next-Page"))
	if err != nil {
		t.Fatal(err)
	}
	query := next.Query()
	token, err := base64.StdEncoding.DecodeString(query.Get("_token"))
	if err != nil {
		t.Fatal(err)
	}
	revision := fmt.Sprintf(`"revision":%d`, n.machine.Revision())
	if !strings.Contains(string(token), revision) {
		t.Fatalf("%s is not in %s", revision, token)
	}
	ahead := strings.Replace(string(token), revision, fmt.Sprintf(`"revision":%d`, n.machine.Revision()+1), 1)
	query.Set("_token", base64.StdEncoding.EncodeToString([]byte(ahead)))
	query.Set("_limit", "10")
	return records + "?" + query.Encode()
}

// TestTimesShownInABatch: the list's time that a part of a batch shows is waited for
// as outside of a batch.
func TestTimesShownInABatch(t *testing.T) {
	c, n := newClient(t, map[string]string{})
	c.s.cfg.Timeouts.SessionWait = time.Minute // the write comes earlier
	c.withRecords(1)
	ahead := n.clock() + 60_000
	go func() {
		time.Sleep(50 * time.Millisecond)
		c.do("alice", "PUT "+records+"/late", fmt.Sprintf(`{"data":{"last_modified":%d}}`, ahead))
	}()
	body := fmt.Sprintf(`{"requests":[{"path":"/"},{"path":%q,"headers":{"If-None-Match":"\"%d\""}}]}`, records, ahead)
	c.want(200, `"status":304`, "alice", "POST /batch", body, "quinto-consistency", "session")
}

// TestSessionBeyondEveryNode: a revision that nobody has (a token of another
// service) is not waited for until the request's end; the leader's word counts.
func TestSessionBeyondEveryNode(t *testing.T) {
	c, _ := newClient(t, nil)
	c.want(201, "", "alice", "PUT /buckets/b", "")
	began := time.Now()
	c.want(200, `"id":"b"`, "alice", "GET /buckets/b", "", "quinto-consistency", "session", "quinto-revision", "999999")
	if took := time.Since(began); took > 20*time.Second { // the request may take 30 s
		t.Fatalf("waited %s", took)
	}
}
