package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// event is what a stream sends.
type event struct {
	Event string          `json:"event"`
	ID    string          `json:"id"`
	Data  json.RawMessage `json:"data"`
}

// change is the data of an event.
type change struct {
	Revision uint64         `json:"revision"`
	Action   string         `json:"action"`
	URI      string         `json:"uri"`
	Reason   string         `json:"reason"`
	Status   int            `json:"status"`
	Resumed  bool           `json:"resumed"`
	Count    int            `json:"count"`
	Data     map[string]any `json:"data"`
}

func (e *event) change(t *testing.T) (c change) {
	t.Helper()
	if err := json.Unmarshal(e.Data, &c); err != nil {
		t.Fatalf("%s: %v", e.Data, err)
	}
	return c
}

// eventStream is a client of Server-Sent Events.
type eventStream struct {
	t      *testing.T
	events chan event // closed at the end
	last   string
	status int
	body   string
	cancel context.CancelFunc
}

func as(user string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":secret"))
}

// listen opens a stream; without a user it is anonymous.
func listen(t *testing.T, url, user, last string) *eventStream {
	t.Helper()
	authorization := ""
	if user != "" {
		authorization = as(user)
	}
	return listenWith(t, url, authorization, last)
}

// listenWith opens a stream with an Authorization header.
func listenWith(t *testing.T, url, authorization, last string) *eventStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	s := &eventStream{t: t, events: make(chan event, 1000), status: res.StatusCode, cancel: cancel}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(res.Body) // only to be shown
		s.body = b.String()
		return s
	}
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	go func() {
		defer close(s.events)
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 8<<20)
		var e event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "id":
				s.last = value
			case "event":
				e.Event = value
			case "data":
				e.Data = json.RawMessage(value)
			case "":
				if lines.Text() == "" && e.Event != "" {
					e.ID = s.last
					s.events <- e
					e = event{}
				}
			}
		}
	}()
	return s
}

// next is the next event but heartbeats; its name must be one of those.
func (s *eventStream) next(names ...string) (event, change) {
	s.t.Helper()
	if s.status != 200 {
		s.t.Fatalf("no stream: %d %s", s.status, s.body)
	}
	select {
	case e, ok := <-s.events:
		if !ok {
			s.t.Fatalf("the stream ended, want %v", names)
		}
		if e.Event == "heartbeat" {
			return s.next(names...)
		}
		if !slices.Contains(names, e.Event) {
			s.t.Fatalf("got %s %s, want %v", e.Event, e.Data, names)
		}
		return e, e.change(s.t)
	case <-time.After(time.Minute):
		s.t.Fatalf("waited in vain for %v", names)
	}
	return event{}, change{}
}

// ended waits for the end of the stream.
func (s *eventStream) ended() {
	s.t.Helper()
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				return
			}
			s.t.Errorf("after the end: %s %s", e.Event, e.Data)
		case <-time.After(time.Minute):
			s.t.Fatal("the connection stays open")
		}
	}
}

// do sends a request of a user, and wants the status.
func do(t *testing.T, status int, user, method, url, body string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.Header.Set("Authorization", as(user))
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d", method, url, res.StatusCode, b.Bytes(), status)
	}
	return b.Bytes()
}

// liveNode starts a node in memory with a collection of alice's.
func liveNode(t *testing.T, more string) (url, records string, p *program) {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "live.ini")
	text := "[server:main]\nport = 0\n[app:main]\nkinto.storage_backend = kinto.core.storage.memory\nkinto.userid_hmac_secret = a\n" + more
	if !strings.Contains(more, "multiauth.policies") {
		text += "multiauth.policies = basicauth\n"
	}
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startProgram(t, "--ini", ini)
	do(t, 201, "alice", "PUT", p.url+"buckets/b", "")
	do(t, 201, "alice", "PUT", p.url+"buckets/b/collections/c", "")
	return p.url, p.url + "buckets/b/collections/c/records", p
}

func TestStreamOfAList(t *testing.T) {
	_, records, p := liveNode(t, "")
	do(t, 201, "alice", "PUT", records+"/a", `{"data":{"n":1}}`)
	s := listen(t, records+"?_snapshot=true", "alice", "")
	if _, c := s.next("start"); c.Resumed {
		t.Error("resumed from nothing")
	}
	if e, c := s.next("snapshot"); c.Data["id"] != "a" || e.ID != "" {
		t.Errorf("snapshot %s %s", e.ID, e.Data)
	}
	ready, c := s.next("ready")
	if c.Count != 1 || !strings.HasPrefix(ready.ID, fmt.Sprint(c.Revision, "-")) {
		t.Errorf("ready %s %s", ready.ID, ready.Data)
	}
	do(t, 201, "alice", "PUT", records+"/b", `{"data":{"n":2}}`)
	if _, c := s.next("change"); c.Action != "create" || c.Data["id"] != "b" || c.Data["n"] != 2.0 || c.URI != "/buckets/b/collections/c/records/b" {
		t.Errorf("%+v", c)
	}
	do(t, 200, "alice", "PATCH", records+"/b", `{"data":{"n":3}}`)
	second, c := s.next("change")
	if c.Action != "update" || c.Data["n"] != 3.0 {
		t.Errorf("%+v", c)
	}
	do(t, 200, "alice", "DELETE", records+"/a", "")
	if _, c := s.next("change"); c.Action != "delete" || c.Data["deleted"] != true || c.Data["id"] != "a" {
		t.Errorf("%+v", c)
	}
	s.cancel()
	// Whoever comes back gets what he has missed, and nothing twice.
	do(t, 200, "alice", "DELETE", records+"/b", "")
	again := listen(t, records, "alice", second.ID)
	if _, c := again.next("start"); !c.Resumed {
		t.Error("not resumed")
	}
	var got []string
	for range 2 {
		_, c := again.next("change")
		got = append(got, c.Action+" "+fmt.Sprint(c.Data["id"]))
	}
	if want := []string{"delete a", "delete b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// A point of another history, or of none, is told.
	for id, reason := range map[string]string{"999999": "unknown", strings.Split(second.ID, "-")[0] + "-00000000": "restored"} {
		lost := listen(t, records+"?_snapshot=true", "alice", id)
		if e, c := lost.next("reset"); c.Reason != reason || e.ID != "" {
			t.Errorf("%s: %s %s", id, e.ID, e.Data)
		}
		lost.next("ready")
	}
	if bad := listen(t, records, "alice", "x"); bad.status != 400 {
		t.Errorf("a bad id: %d %s", bad.status, bad.body)
	}
	p.end(t)
	if _, c := again.next("end"); c.Reason != "shutdown" {
		t.Errorf("%+v", c)
	}
	again.ended()
}

// What a filter no longer lets through is told once.
func TestStreamWithAFilter(t *testing.T) {
	_, records, _ := liveNode(t, "")
	s := listen(t, records+"?min_n=5&_fields=n", "alice", "")
	s.next("start")
	do(t, 201, "alice", "PUT", records+"/a", `{"data":{"n":1,"x":1}}`)
	do(t, 200, "alice", "PUT", records+"/a", `{"data":{"n":6,"x":1}}`)
	do(t, 200, "alice", "PUT", records+"/a", `{"data":{"n":2,"x":1}}`)
	do(t, 200, "alice", "PUT", records+"/a", `{"data":{"n":3,"x":1}}`)
	do(t, 201, "alice", "PUT", records+"/b", `{"data":{"n":9,"x":1}}`)
	var got []string
	for range 3 {
		_, c := s.next("change")
		if _, all := c.Data["x"]; all {
			t.Errorf("all fields: %v", c.Data)
		}
		got = append(got, c.Action+" "+fmt.Sprint(c.Data["id"]))
	}
	if want := []string{"update a", "leave a", "create b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, query := range []string{"_sort=n", "_limit=3", "_since=4", "gt_last_modified=3"} {
		if bad := listen(t, records+"?"+query, "alice", ""); bad.status != 400 {
			t.Errorf("%s: %d %s", query, bad.status, bad.body)
		}
	}
}

func TestStreamEndsWithThePermission(t *testing.T) {
	url, records, _ := liveNode(t, "")
	bob := hello(t, url, "bob")
	if refused := listen(t, records, "bob", ""); refused.status != 403 || !strings.Contains(refused.body, `"errno":121`) {
		t.Errorf("%d %s", refused.status, refused.body)
	}
	if refused := listen(t, records, "", ""); refused.status != 401 {
		t.Errorf("%d %s", refused.status, refused.body)
	}
	// By the permissions of the collection.
	coll := url + "buckets/b/collections/c"
	do(t, 200, "alice", "PATCH", coll, `{"permissions":{"read":["`+bob+`"]}}`)
	s := listen(t, records, "bob", "")
	s.next("start")
	do(t, 200, "alice", "PATCH", coll, `{"permissions":{"read":[]}}`)
	do(t, 201, "alice", "PUT", records+"/secret", "")
	if _, c := s.next("end"); c.Reason != "permissions" || c.Status != 403 {
		t.Errorf("%+v", c)
	}
	s.ended()
	// By a group.
	do(t, 201, "alice", "PUT", url+"buckets/b/groups/g", `{"data":{"members":["`+bob+`"]}}`)
	do(t, 200, "alice", "PATCH", coll, `{"permissions":{"read":["/buckets/b/groups/g"]}}`)
	s = listen(t, records, "bob", "")
	s.next("start")
	do(t, 200, "alice", "PATCH", url+"buckets/b/groups/g", `{"data":{"members":[]}}`)
	if _, c := s.next("end"); c.Reason != "permissions" {
		t.Errorf("%+v", c)
	}
	s.ended()
	// By a share of one record: what is taken away leaves.
	for _, id := range []string{"/shared", "/stays"} { // without any, a GET is refused
		do(t, 201, "alice", "PUT", records+id, `{"permissions":{"read":["`+bob+`"]}}`)
	}
	s = listen(t, records, "bob", "")
	s.next("start")
	do(t, 201, "alice", "PUT", records+"/other", "")
	do(t, 200, "alice", "PATCH", records+"/shared", `{"permissions":{"read":[]}}`)
	if _, c := s.next("change"); c.Action != "leave" || c.Data["id"] != "shared" {
		t.Errorf("%+v", c)
	}
	// By the end of the collection.
	s = listen(t, records, "alice", "")
	s.next("start")
	do(t, 200, "alice", "DELETE", coll, "")
	e, c := s.next("reset", "end") // the stream may have been on its way to be live
	if e.Event == "reset" {
		_, c = s.next("end")
	}
	if c.Reason != "gone" || c.Status != 404 {
		t.Errorf("%+v", c)
	}
	s.ended()
}

// A group that no longer has a user is not shown to him any more, where he saw it as its
// member: neither in the list of groups nor below the bucket.
func TestStreamEndsBeforeTheChangeThatEndsIt(t *testing.T) {
	url, _, _ := liveNode(t, "")
	bob, group := hello(t, url, "bob"), url+"buckets/b/groups/g"
	do(t, 201, "alice", "PUT", group, `{"data":{"members":["`+bob+`"]}}`)
	do(t, 200, "alice", "PATCH", url+"buckets/b", `{"permissions":{"read":["/buckets/b/groups/g"]}}`)
	for _, path := range []string{"buckets/b/groups", "buckets/b", "buckets/b/collections"} {
		do(t, 200, "alice", "PUT", group, `{"data":{"members":["`+bob+`"]}}`)
		s := listen(t, url+path, "bob", "")
		s.next("start")
		do(t, 200, "alice", "PUT", group, `{"data":{"members":[],"secret":true}}`)
		if e, c := s.next("change", "end"); e.Event != "end" || c.Reason != "permissions" || c.Status != 403 {
			t.Errorf("%s: %s %s", path, e.Event, e.Data)
		}
		s.ended()
	}
}

// A list that may be seen because something in it is shared ends when nothing is, as the
// GET is refused then, and one of somebody who may only create shows what is shared with
// him from then on.
func TestStreamOfWhatIsShared(t *testing.T) {
	url, records, _ := liveNode(t, "")
	bob, coll := hello(t, url, "bob"), url+"buckets/b/collections/c"
	share := `{"data":{"kind":1},"permissions":{"read":["` + bob + `"]}}`
	const hide = `{"data":{"kind":1},"permissions":{"read":[]}}`
	for method, body := range map[string]string{"PUT": hide, "DELETE": ""} {
		for i, query := range []string{"", "?kind=1", "?kind=2"} {
			one := fmt.Sprint(records, "/", method, i)
			do(t, 201, "alice", "PUT", one, share)
			s := listen(t, records+query, "bob", "")
			s.next("start")
			do(t, 200, "alice", method, one, body)
			e, c := s.next("change", "end")
			if e.Event == "change" {
				e, c = s.next("end")
			}
			if c.Reason != "permissions" || c.Status != 403 {
				t.Errorf("%s %q: %s %s", method, query, e.Event, e.Data)
			}
			s.ended()
		}
	}
	do(t, 200, "alice", "PATCH", coll, `{"permissions":{"record:create":["`+bob+`"]}}`)
	s := listen(t, records, "bob", "")
	s.next("start")
	do(t, 201, "alice", "PUT", records+"/hidden", hide)
	do(t, 201, "alice", "PUT", records+"/later", share)
	if _, c := s.next("change"); c.Action != "create" || c.Data["id"] != "later" {
		t.Errorf("%+v", c)
	}
	do(t, 200, "alice", "PUT", records+"/later", hide)
	if _, c := s.next("change"); c.Action != "leave" || c.Data["id"] != "later" {
		t.Errorf("%+v", c)
	}
	do(t, 200, "alice", "PUT", records+"/hidden", share)
	if _, c := s.next("change"); c.Data["id"] != "hidden" {
		t.Errorf("%+v", c)
	}
}

func hello(t *testing.T, url, user string) string {
	t.Helper()
	var body struct{ User struct{ ID string } }
	if err := json.Unmarshal(do(t, 200, user, "GET", url, ""), &body); err != nil {
		t.Fatal(err)
	}
	return body.User.ID
}

func TestStreamsOfABucketAndOfTheServer(t *testing.T) {
	url, records, _ := liveNode(t, "")
	bob := hello(t, url, "bob")
	bucket, server, other := listen(t, url+"buckets/b?_snapshot=true", "alice", ""), listen(t, url+"changes", "alice", ""), listen(t, url+"changes", "bob", "")
	bucket.next("start")
	for _, want := range []string{"/buckets/b", "/buckets/b/collections/c"} {
		if _, c := bucket.next("snapshot"); c.URI != want {
			t.Errorf("%s, want %s", c.URI, want)
		}
	}
	bucket.next("ready")
	server.next("start")
	other.next("start")
	do(t, 201, "alice", "PUT", records+"/a", `{"permissions":{"read":["`+bob+`"]}}`)
	do(t, 201, "alice", "PUT", records+"/b", "")
	do(t, 201, "bob", "PUT", url+"buckets/bobs", "")
	for s, want := range map[*eventStream][]string{
		bucket: {"/buckets/b/collections/c/records/a", "/buckets/b/collections/c/records/b"},
		server: {"/buckets/b/collections/c/records/a", "/buckets/b/collections/c/records/b"},
		other:  {"/buckets/b/collections/c/records/a", "/buckets/bobs"},
	} {
		for _, uri := range want {
			if _, c := s.next("change"); c.URI != uri {
				t.Errorf("%s, want %s", c.URI, uri)
			}
		}
	}
	// The same as a feed, by pages.
	type feed struct {
		Data []change
		Next string
		More bool
	}
	read := func(user, query string) (f feed) {
		if err := json.Unmarshal(do(t, 200, user, "GET", url+query, ""), &f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := read("bob", "changes?_since_revision=0&_limit=1")
	if len(first.Data) != 1 || first.Data[0].URI != "/buckets/b/collections/c/records/a" || !first.More {
		t.Errorf("%+v", first)
	}
	rest := read("bob", "changes?_since_revision="+first.Next)
	if len(rest.Data) != 1 || rest.Data[0].URI != "/buckets/bobs" || rest.More {
		t.Errorf("%+v", rest)
	}
	if in := read("alice", "buckets/b/changes?_since_revision=0"); len(in.Data) != 4 || in.Data[0].URI != "/buckets/b" {
		t.Errorf("%+v", in)
	}
	if none := read("bob", "buckets/b/changes?_since_revision="+rest.Next+"&_wait=1"); len(none.Data) != 0 || none.Next == "" {
		t.Errorf("%+v", none)
	}
	got := make(chan feed)
	go func() { got <- read("bob", "changes?_wait=25&_since_revision="+rest.Next) }()
	do(t, 200, "bob", "PATCH", url+"buckets/bobs", `{"data":{"x":1}}`)
	if f := <-got; len(f.Data) != 1 || f.Data[0].Action != "update" {
		t.Errorf("%+v", f)
	}
}

// A readonly server refuses every write, but gives tickets and takes them: browsers could
// not follow it otherwise.
func TestTicketOfAReadOnlyServer(t *testing.T) {
	ini := filepath.Join(t.TempDir(), "readonly.ini")
	text := "[server:main]\nport = 0\n[app:main]\nkinto.storage_backend = kinto.core.storage.memory\nkinto.userid_hmac_secret = a\nkinto.readonly = true\nmultiauth.policies = basicauth\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	url := startProgram(t, "--ini", ini).url
	do(t, 405, "alice", "PUT", url+"buckets/b", "")
	do(t, 405, "alice", "DELETE", url+"stream-tickets/0000", "x")
	do(t, 405, "alice", "PUT", url+"stream-tickets", "")
	do(t, 405, "alice", "POST", url+"batch", `{"requests":[{"path":"/stream-tickets","method":"POST"}]}`)
	do(t, 401, "", "POST", url+"stream-tickets", "")
	var ticket struct{ Ticket string }
	if err := json.Unmarshal(do(t, 201, "alice", "POST", url+"stream-tickets", ""), &ticket); err != nil {
		t.Fatal(err)
	}
	at := url + "changes?_ticket=" + ticket.Ticket
	s := listen(t, at, "", "")
	s.next("start")
	again, err := http.NewRequest(http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(again)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a ticket worked twice: %d", resp.StatusCode)
	}
}

func TestWebSocketAndTicket(t *testing.T) {
	url, records, _ := liveNode(t, "")
	do(t, 401, "", "POST", url+"stream-tickets", "")
	var ticket struct{ Ticket string }
	if err := json.Unmarshal(do(t, 201, "alice", "POST", url+"stream-tickets", ""), &ticket); err != nil {
		t.Fatal(err)
	}
	at := "ws" + strings.TrimPrefix(records, "http") + "?_snapshot=true&_ticket=" + ticket.Ticket
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, buffered, _, err := ws.Dial(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	from := buffered
	if from == nil {
		from = bufio.NewReader(conn)
	}
	next := func(name string) change {
		t.Helper()
		for {
			h, err := ws.ReadHeader(from)
			if err != nil {
				t.Fatal(err)
			}
			payload := make([]byte, h.Length)
			if _, err := io.ReadFull(from, payload); err != nil {
				t.Fatal(err)
			}
			if h.OpCode != ws.OpText {
				continue
			}
			var e event
			if err := json.Unmarshal(payload, &e); err != nil || e.Event != name {
				t.Fatalf("%s: %v, want %s", payload, err, name)
			}
			return e.change(t)
		}
	}
	next("start")
	next("ready")
	do(t, 201, "alice", "PUT", records+"/a", `{"data":{"n":1}}`)
	if c := next("change"); c.Data["n"] != 1.0 {
		t.Errorf("%+v", c)
	}
	if _, _, _, err := ws.Dial(ctx, at); err == nil {
		t.Error("a ticket worked twice")
	}
	if err := wsutil.WriteClientMessage(conn, ws.OpText, []byte("whatever")); err != nil {
		t.Fatal(err)
	}
	do(t, 200, "alice", "DELETE", url+"buckets/b", "")
	if c := next("end"); c.Status != 403 {
		t.Errorf("%+v", c)
	}
}
