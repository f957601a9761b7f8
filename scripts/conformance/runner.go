package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// settle is the pause between two requests of a scenario. Kinto's clocks count milliseconds: without it
// two lists could be written in the same one, and "equal or rising" would be decided by chance.
const settle = 2 * time.Millisecond

// Outcome is what became of one request.
type Outcome struct {
	Scenario  *Scenario
	Request   *Request
	Sent      [2]Sent
	Answers   [2]Answer
	Diffs     []Difference // the unexplained ones
	Deviation []*Deviation // the explained ones
	Ended     bool         // what is different on purpose changed what is stored: nothing after it is compared
}

// Suite runs scenarios against a reference and a target.
type Suite struct {
	Kinto      Server
	Target     *Server // nil: only the reference answers
	Deviations []*Deviation
	IsQuinto   bool // every answer of the target must carry Quinto-Revision
	Workers    int
	RunID      string
	Backend    string   // storage of the reference
	Chance     []string // differences that did not come again

	client *http.Client
	alias  [2][]string // further addresses that the answers of reference and target name
	trials int         // sequences that ran on this pair so far
	shared sync.Mutex  // held while a list that all scenarios share is written; only for PostgreSQL
}

// Run gives the outcomes in the order of the scenarios. Those marked alone run last, one by one.
func (s *Suite) Run(ctx context.Context, scenarios []*Scenario) [][]Outcome {
	s.client = newHTTPClient()
	defer s.client.CloseIdleConnections()
	outcomes := make([][]Outcome, len(scenarios))
	queue := make(chan int)
	var workers sync.WaitGroup
	for range s.Workers {
		workers.Go(func() {
			for i := range queue {
				outcomes[i] = s.runScenario(ctx, i, scenarios[i])
			}
		})
	}
	for i, sc := range scenarios {
		if !sc.Alone {
			queue <- i
		}
	}
	close(queue)
	workers.Wait()
	for i, sc := range scenarios {
		if sc.Alone {
			outcomes[i] = s.runScenario(ctx, i, sc)
		}
	}
	s.repeat(ctx, scenarios, outcomes)
	return outcomes
}

// maxRepeats bounds the scenarios of one pair that are run again.
const maxRepeats = 10

// repeat runs what differed once more, alone. Kinto leaves some things to chance, such as two writes in one millisecond of
// its clock: a difference that does not come again is named in the report and not
// counted. What is wrong in quinto every time comes again; a race of its own has other tests (-race, faults).
func (s *Suite) repeat(ctx context.Context, scenarios []*Scenario, outcomes [][]Outcome) {
	repeats := 0
	for i, sc := range scenarios {
		if s.Target == nil || !differs(outcomes[i]) || repeats == maxRepeats {
			continue
		}
		repeats++
		if again := s.runScenario(ctx, len(scenarios)+i, sc); !differs(again) {
			s.Chance = append(s.Chance, chance(outcomes[i]))
			outcomes[i] = again
		}
	}
}

func differs(outcomes []Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o Outcome) bool { return len(o.Diffs) > 0 })
}

// chance tells of the first difference that did not come again.
func chance(outcomes []Outcome) string {
	i := slices.IndexFunc(outcomes, func(o Outcome) bool { return len(o.Diffs) > 0 })
	o := &outcomes[i]
	return fmt.Sprintf("%s, scenario %q: %s: %s, then %s", o.Scenario.File, o.Scenario.Name, o.Diffs[0].Field, o.Diffs[0].Kinto, o.Diffs[0].Target)
}

// staticText joins all texts of a scenario with the values it chose itself.
func staticText(sc *Scenario, vars variables) string {
	var all strings.Builder
	for _, r := range sc.Requests {
		for _, text := range r.texts() {
			all.WriteString(vars.static(text))
			all.WriteByte('\n')
		}
	}
	return all.String()
}

func (s *Suite) servers() []Server {
	if s.Target == nil {
		return []Server{s.Kinto}
	}
	return []Server{s.Kinto, *s.Target}
}

func (s *Suite) runScenario(ctx context.Context, number int, sc *Scenario) []Outcome {
	vars := variables{suffix: fmt.Sprintf("%s%03d", s.RunID, number), now: time.Now().UnixMilli()}
	servers := s.servers()
	target := servers[len(servers)-1]
	rel := newRelations(staticText(sc, vars), vars.now, s.Kinto.Base, target.Base)
	rel.bases[0] = append(rel.bases[0], s.alias[0]...)
	rel.bases[1], rel.jsonb = append(slices.Clone(target.bases()), s.alias[1]...), s.Backend == "postgresql"
	rel.generated = sc.Generated
	answers := [2]map[string]Answer{{}, {}}
	var outcomes []Outcome
	for _, r := range sc.Requests {
		o := Outcome{Scenario: sc, Request: r}
		times := [2][]int64{}
		unlock := s.lockShared(r)
		var exchange sync.WaitGroup
		for side, server := range servers {
			exchange.Go(func() {
				sent, at, err := prepare(r, vars, answers[side])
				o.Sent[side], times[side] = sent, at
				if err != nil {
					o.Answers[side] = Answer{Err: err}
					return
				}
				o.Answers[side] = server.do(ctx, s.client, sent)
			})
		}
		exchange.Wait()
		if sc.Generated && missingOnBoth(o) {
			unlock()
			continue
		}
		s.judge(&o, rel, times, outcomes)
		for side := range servers {
			answers[side][r.Label] = o.Answers[side]
		}
		outcomes = append(outcomes, o)
		time.Sleep(settle + time.Duration(r.Settle)*time.Millisecond)
		unlock()
		if sc.Generated && (len(o.Diffs) > 0 || o.Ended || readsUnwritten(&o, outcomes[:len(outcomes)-1])) {
			break
		}
	}
	return outcomes
}

// missingOnBoth tells that a request names what neither server's answers have, as a generator cannot foresee.
func missingOnBoth(o Outcome) bool {
	return errors.Is(o.Answers[0].Err, errNotInAnswer) && errors.Is(o.Answers[1].Err, errNotInAnswer)
}

// lockShared keeps scenarios from writing a list that they share in one millisecond: Kinto on PostgreSQL would answer 409 (row 3.7).
func (s *Suite) lockShared(r *Request) func() {
	const mine = 3 // segments of a path below a scenario's own bucket
	path, _, _ := strings.Cut(strings.Trim(r.Target, "/"), "?")
	isDefault := strings.HasPrefix(path, "buckets/default") // also made by being read
	if s.Backend != "postgresql" || !isDefault && (!isWrite(r.Method) || strings.Count(path, "/")+1 >= mine) {
		return func() {}
	}
	s.shared.Lock()
	return s.shared.Unlock
}

// prepare fills the placeholders of a request for one side; times are those computed from earlier answers.
func prepare(r *Request, vars variables, answers map[string]Answer) (Sent, []int64, error) {
	sent := Sent{Method: r.Method, Password: userPassword}
	if r.User != "" {
		sent.User, sent.Password = vars.credentials(r.User)
	}
	var times []int64
	fill := func(text string) (string, error) {
		out, at, err := captured(vars.static(text), answers)
		times = append(times, at...)
		return out, err
	}
	var err error
	if sent.Target, err = fill(r.Target); err != nil {
		return sent, nil, err
	}
	if r.Body != nil {
		body, err := fill(string(r.Body))
		if err != nil {
			return sent, nil, err
		}
		sent.Body = []byte(body)
	}
	for _, h := range r.Header {
		value, err := fill(h[1])
		if err != nil {
			return sent, nil, err
		}
		sent.Header = append(sent.Header, [2]string{h[0], value})
	}
	return sent, times, nil
}

// judge compares the answers of one request and sorts the differences into explained and unexplained.
func (s *Suite) judge(o *Outcome, rel *relations, times [2][]int64, before []Outcome) {
	if want := o.Request.statusOn(s.Backend); want != 0 && o.Answers[0].Err == nil && o.Answers[0].Status != want {
		o.Diffs = append(o.Diffs, Difference{Field: "scenario", Kinto: fmt.Sprintf("answers %d", o.Answers[0].Status), Target: fmt.Sprintf("the scenario says %d", want)})
	}
	if s.Target == nil {
		if err := o.Answers[0].Err; err != nil {
			o.Diffs = append(o.Diffs, Difference{Field: "answer", Kinto: err.Error()})
		}
		return
	}
	for i := range min(len(times[0]), len(times[1])) {
		rel.learnTime(o.Request.Label, times[0][i], times[1][i])
	}
	var followers []string
	for _, d := range compareAnswers(rel, o.Request, o.Answers[0], o.Answers[1], s.IsQuinto) {
		on := explain(s.Deviations, s.Backend, o.Scenario.Name, o.Request.Label, d.Field)
		if on == nil && o.Scenario.Generated && s.IsQuinto {
			on = s.explainByRule(o, d, before)
		}
		if on != nil {
			o.Deviation = append(o.Deviation, on)
			followers = append(followers, followingStatus(d.Field))
		} else {
			o.Diffs = append(o.Diffs, d)
		}
	}
	o.Diffs = slices.DeleteFunc(o.Diffs, func(d Difference) bool {
		return slices.ContainsFunc(followers, func(prefix string) bool { return follows(d.Field, prefix) })
	})
}

// noFollower is a prefix that no field has.
const noFollower = "\x00"

// followingStatus gives the prefix of the fields that another status changes with it: an answer of another status has another body and
// other headers. In a batch these are the fields of the same part.
func followingStatus(field string) string {
	if field == "status" {
		return ""
	}
	if part, isStatus := strings.CutSuffix(field, "].status"); isStatus {
		return part + "]."
	}
	return noFollower
}

// follows never holds for what is wanted of every answer whatever its status.
func follows(field, prefix string) bool {
	return strings.HasPrefix(field, prefix) && field != "header:Quinto-Revision" && field != "scenario" && field != "answer"
}

// sample picks n scenarios by a seed and keeps their order; n = 0 keeps all.
func sample(scenarios []*Scenario, n int, seed uint64) []*Scenario {
	if n <= 0 || n >= len(scenarios) {
		return scenarios
	}
	picked := map[int]bool{}
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(scenarios))[:n] {
		picked[i] = true
	}
	var out []*Scenario
	for i, sc := range scenarios {
		if picked[i] {
			out = append(out, sc)
		}
	}
	return out
}
