package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"quinto/internal/freeport"
)

// What kinto-redis and kinto-emailer send out is compared on a pair of servers with the same settings, each with a Redis
// database and an SMTP server of its own, after each request of effectSteps.
const (
	effectScenario = "what is sent out" // in plugins/deviations.txt
	effectList     = "events"
	effectWait     = 10 * time.Second // until both have sent as much
	effectUneven   = 2 * time.Second  // where they never do, on purpose
	effectRest     = 300 * time.Millisecond
	effectSettings = "includes=kinto_emailer|kinto.plugins.default_bucket|kinto.plugins.accounts account_create_principals=system.Everyone account_write_principals=system.Authenticated multiauth.policies=account|basicauth multiauth.policy.account.use=kinto.plugins.accounts.AccountsPolicy project_name=side http_scheme=https http_host=www.example.org " +
		"event_listeners=redis event_listeners.redis.use=kinto_redis.listeners event_listeners.redis.listname=" + effectList
)

// effectHooks are in the metadata of the collection c.
const effectHooks = `{"data":{"kinto-emailer":{"hooks":[` +
	`{"resource_name":"record","action":"create","subject":"{id} was {action}d","template":"{bucket_id}/{collection_id}/{record_id} by {user_id}: {resource_name}",` +
	`"sender":"Editors <editors@example.com>","recipients":["Ann <ann@example.com>","/buckets/fx/groups/g"]},` +
	`{"action":"update","subject":"Änderung an {id}","template":"„{impacted_objects[0][old][title]}“ wird\n\n„{impacted_objects[0][new][title]}“ = {uri}.","recipients":["bob@example.com"]},` +
	`{"action":"delete","resource_name":"record","template":"{settings[project_name]} {root_url} {event}","recipients":["bob@example.com"]},` +
	`{"resource_name":"collection","template":"{collection_id} {id} {record_id} {action}","recipients":["carol@example.com"]},` +
	`{"record_id":"^special-","subject":"special","template":"{record_id}","recipients":["/buckets/fx/groups/{collection_id}-people"]},` +
	`{"collection_id":"^other","template":"never","recipients":["bob@example.com"]}` +
	`]}}}`

// effectStep is one request to both.
type effectStep struct{ method, target, body string }

// effectSteps are all of them: first those after which the order counts.
func effectSteps() []effectStep { return append(ofOneList(), ofSeveralLists()...) }

// ofOneList are requests that change objects of one list, or one after the other.
func ofOneList() []effectStep {
	const c = "/buckets/fx/collections/c"
	return []effectStep{
		{"PUT", "/buckets/fx", `{"data":{"kinto-emailer":{"hooks":[{"resource_name":"record","template":"of the bucket: {record_id}","recipients":["dora@example.com"]}]}}}`},
		{"PUT", "/buckets/fx/groups/g", `{"data":{"members":["ldap:eve@example.com","fred@example.com","basicauth:0123"]}}`},
		{"PUT", "/buckets/fx/groups/c-people", `{"data":{"members":["ldap:gus@example.com"]}}`},
		{"PUT", c, effectHooks},
		{"PUT", c + "/records/r1", `{"data":{"title":"one"}}`},
		{"PUT", c + "/records/r1", `{"data":{"title":"zwölf"}}`},
		{"PATCH", c + "/records/r1", `{"data":{"title":"thirteen"}}`},
		{"PUT", c + "/records/special-1", `{"data":{"title":"s"}}`},
		{"POST", c + "/records", `{"data":{"title":"posted"}}`},
		{"DELETE", c + "/records/r1", ""},
		{"PUT", c + "/records/r1", `{"data":{"title":"again"}}`},
		{"POST", "/batch", `{"defaults":{"method":"PUT"},"requests":[{"path":"` + c + `/records/b1","body":{"data":{"title":"b1"}}},{"path":"` + c + `/records/b2","body":{"data":{"title":"b2"}}},` +
			`{"path":"` + c + `/records/r1","body":{"data":{"title":"updated"}}},{"method":"DELETE","path":"` + c + `/records/special-1"}]}`},
		{"DELETE", c + "/records?title=b2", ""},
		{"PUT", "/buckets/fx/collections/plain", `{"data":{"a":1}}`},
		{"PUT", "/buckets/fx/collections/plain/records/p", ""},
		{"PATCH", "/buckets/fx/groups/g", `{"data":{"members":[]}}`},
		{"DELETE", "/buckets/fx/groups/g", ""},
		{"DELETE", "/buckets/fx/collections/plain/records/p", ""},
		{"DELETE", c, ""},
		{"PUT", c, ""},
		{"PATCH", "/buckets/fx", `{"data":{"a":1}}`},
	}
}

// effectSide is one of the two servers with its receivers.
type effectSide struct {
	process *process
	list    *redis.Client
	mails   string            // file
	seen    [2]int            // of list and mails
	symbols map[string]string // what a server chose: by its text
}

// runEffects is the mode --effects. The code is 1 when a difference is not one of the deviations, or one of them is no more.
func runEffects(ctx context.Context, o options) (code int, err error) {
	deviations, err := LoadDeviations(filepath.Join(o.root, "scripts", "conformance", "plugins", "deviations.txt"))
	if err != nil {
		return 2, err
	}
	dir, err := os.MkdirTemp("", "conformance-effects-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(dir)
	port, err := freeport.Get()
	if err != nil {
		return 2, err
	}
	store, err := startProgram(filepath.Join(dir, "redis.log"), port, o.redis, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "")
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, store.stop()) }()
	var sides [2]*effectSide
	for i := range sides {
		s, stop, err := startSide(ctx, o, dir, i, port)
		defer stop()
		if err != nil {
			return 2, err
		}
		sides[i] = s
	}
	differences := 0
	client := newHTTPClient()
	for i, step := range effectSteps() {
		apart := i >= len(ofOneList()) // what is sent out is of several collections, between which quinto keeps no order
		n, err := compareStep(ctx, client, sides, strconv.Itoa(i+1), step, apart, deviations)
		if err != nil {
			return 2, fmt.Errorf("%s %s: %w", step.method, step.target, err)
		}
		differences += n
	}
	for _, d := range deviations {
		if d.Scenario == effectScenario && !d.used.Load() {
			fmt.Printf("plugins/deviations.txt:%d: the difference is no more\n", d.Line)
			differences++
		}
	}
	fmt.Printf("effects: %d requests, %d payloads on the list, %d mails, unexplained %d\n", len(effectSteps()), sides[0].seen[0], sides[0].seen[1], differences)
	return min(differences, 1), nil
}

func startSide(ctx context.Context, o options, dir string, i, store int) (_ *effectSide, stop func(), err error) {
	var all []*process
	stop = func() {
		for _, p := range slices.Backward(all) {
			_ = p.stop() // its folder goes with it
		}
	}
	name := []string{"kinto", "quinto"}[i]
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, stop, err
	}
	s := &effectSide{mails: filepath.Join(dir, "mails"), symbols: map[string]string{}}
	port, err := freeport.Get()
	if err != nil {
		return nil, stop, err
	}
	mail, err := startProgram(filepath.Join(dir, "smtp.log"), port, filepath.Join(o.smtp, "bin", "python"), "-B",
		filepath.Join(o.root, "scripts", "lib", "smtp", "server.py"), "--port", strconv.Itoa(port), "--out", s.mails)
	if err != nil {
		return nil, stop, err
	}
	all = append(all, mail)
	s.list = redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", store), DB: i, Protocol: 2})
	settings := fmt.Sprintf("%s event_listeners.redis.url=redis://127.0.0.1:%d/%d mail.host=127.0.0.1 mail.port=%d mail.default_sender=kinto@example.com", effectSettings, store, i, port)
	if i == 0 {
		s.process, err = startKinto(ctx, o.venv, dir, name, settings, "memory", "")
	} else {
		s.process, err = startQuinto(ctx, o.quinto, dir, settings)
	}
	if s.process != nil {
		all = append(all, s.process)
	}
	return s, stop, err
}

// startProgram runs a receiver and waits until it listens.
func startProgram(log string, port int, program string, args ...string) (*process, error) {
	p, err := runProgram(filepath.Base(program), port, log, program, args...)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(startPoll) {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return p, c.Close()
		}
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen: %s", p.Name, p.logTail()), p.stop())
}

// compareStep sends one request to both and compares what follows from it.
func compareStep(ctx context.Context, client *http.Client, sides [2]*effectSide, label string, step effectStep, apart bool, deviations []*Deviation) (differences int, err error) {
	for _, s := range sides {
		request := Sent{Method: step.method, Target: step.target, User: "alice", Password: userPassword}
		if step.body != "" {
			request.Body = []byte(step.body)
		}
		answer := s.process.do(ctx, client, request)
		if answer.Err == nil && answer.Status > 299 {
			answer.Err = fmt.Errorf("%s: %d %s", s.process.Name, answer.Status, answer.Body)
		}
		if err := errors.Join(answer.Err, s.learn(label, answer.Body)); err != nil {
			return 0, err
		}
	}
	time.Sleep(effectRest) // what is too much comes too
	wait := effectWait
	if slices.ContainsFunc(deviations, func(d *Deviation) bool {
		return d.Scenario == effectScenario && d.Request == label && (d.Field == "redis" || d.Field == "mail")
	}) {
		wait = effectUneven
	}
	out, err := news(ctx, sides, wait)
	if err != nil {
		return 0, err
	}
	differ := func(field, kinto, quinto string) {
		if kinto != quinto && explain(deviations, "memory", effectScenario, label, field) == nil {
			differences++
			fmt.Printf("%s  %s %s: %s\n  kinto   %s\n  quinto  %s\n", label, step.method, step.target, field, kinto, quinto)
		}
	}
	for _, kind := range []struct {
		name string
		of   func(sent) []map[string]string
	}{{"redis", func(s sent) []map[string]string { return s.payloads }}, {"mail", func(s sent) []map[string]string { return s.mails }}} {
		kinto, quinto := kind.of(out[0]), kind.of(out[1])
		differ(kind.name, fmt.Sprint(len(kinto)), fmt.Sprint(len(quinto)))
		if apart {
			inOrder(kinto)
			inOrder(quinto)
		}
		for i := range min(len(kinto), len(quinto)) {
			names := slices.Sorted(maps.Keys(kinto[i]))
			for name := range quinto[i] {
				if _, ok := kinto[i][name]; !ok {
					names = append(names, name)
				}
			}
			for _, name := range names {
				differ(fmt.Sprintf("%s[%d].%s", kind.name, i, name), shown(kinto[i], name), shown(quinto[i], name))
			}
		}
	}
	return differences, nil
}

func shown(fields map[string]string, name string) string {
	if value, ok := fields[name]; ok {
		return value
	}
	return "(absent)"
}

// sent is what a side has sent out since the last request: payloads of the list, and mails.
type sent struct{ payloads, mails []map[string]string }

// news waits until both sides have sent as much, or for a while.
func news(ctx context.Context, sides [2]*effectSide, wait time.Duration) (out [2]sent, err error) {
	for deadline := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		for i, s := range sides {
			if out[i], err = s.unseen(ctx); err != nil {
				return out, err
			}
		}
		if time.Now().After(deadline) || len(out[0].payloads) == len(out[1].payloads) && len(out[0].mails) == len(out[1].mails) {
			break
		}
	}
	for i, s := range sides {
		s.seen[0] += len(out[i].payloads)
		s.seen[1] += len(out[i].mails)
	}
	return out, nil
}

func (s *effectSide) unseen(ctx context.Context) (out sent, err error) {
	bodies, err := s.list.LRange(ctx, effectList, 0, -1).Result()
	if err != nil {
		return out, err
	}
	slices.Reverse(bodies)
	for _, b := range bodies[s.seen[0]:] {
		fields, err := payloadFields(b)
		if err != nil {
			return out, err
		}
		out.payloads = append(out.payloads, s.named(fields))
	}
	text, err := os.ReadFile(s.mails)
	if err != nil {
		return out, err
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range lines[s.seen[1] : len(lines)-1] {
		fields, err := mailFields(line)
		if err != nil {
			return out, err
		}
		out.mails = append(out.mails, s.named(fields))
	}
	return out, nil
}

// payloadFields are the members of a payload, without those that quinto adds.
func payloadFields(text string) (map[string]string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for name, value := range members {
		if name != "revision" && name != "delivery_id" {
			fields[name] = string(value)
		}
	}
	return fields, nil
}

// mailFields are the envelope and what a reader sees of a mail.
func mailFields(line string) (map[string]string, error) {
	var mail struct {
		From, Body string
		To         []string
		Headers    [][2]string
	}
	if err := json.Unmarshal([]byte(line), &mail); err != nil {
		return nil, err
	}
	slices.Sort(mail.To)
	fields := map[string]string{"envelope-from": mail.From, "envelope-to": strings.Join(mail.To, " "), "body": strings.TrimRight(strings.ReplaceAll(mail.Body, "\r\n", "\n"), "\n")}
	for _, h := range mail.Headers {
		if name := strings.ToLower(h[0]); name == "subject" || name == "from" || name == "to" {
			fields[name] = h[1]
		}
	}
	return fields, nil
}

// chosen are the times and ids that servers choose.
var chosen = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b1[0-9]{12}\b`)

// learn names what an answer has of them, in the order in which they come.
func (s *effectSide) learn(label string, answer []byte) error {
	if len(answer) == 0 {
		return nil
	}
	value, err := decodeJSON(answer)
	if err != nil {
		return err
	}
	canonical, err := json.Marshal(value) // objects in the order of their keys
	if err != nil {
		return err
	}
	n := 0
	for _, found := range chosen.FindAllString(string(canonical), -1) {
		if s.symbols[found] == "" {
			n++
			s.symbols[found] = fmt.Sprintf("<%s.%d>", label, n)
		}
	}
	return nil
}

// named puts the names in place of what was chosen.
func (s *effectSide) named(fields map[string]string) map[string]string {
	for name, value := range fields {
		fields[name] = chosen.ReplaceAllStringFunc(value, func(found string) string {
			if symbol := s.symbols[found]; symbol != "" {
				return symbol
			}
			return "<unknown>"
		})
	}
	return fields
}
