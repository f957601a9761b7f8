package checker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

const ms = int64(1e6)

// good is a small history without fault: two nodes, two objects, a batch, a poll.
func good() *History {
	a1 := Value{Object: "a", V: "a1", Modified: 100}
	a2 := Value{Object: "a", V: "a1", P: "a2", Modified: 101}
	b1 := Value{Object: "b", V: "b1", Modified: 102}
	a3 := Value{Object: "a", V: "a3", Modified: 103}
	gone := Value{Object: "b", Modified: 104, Deleted: true}
	hook := func(rev uint64, v Value) *Hook {
		return &Hook{At: int64(rev) * ms, ID: string(rune('a' + rev)), Revision: rev, Action: "update", Lane: "x/y", Value: v}
	}
	end := []Value{a3}
	return &History{
		Run: Run{Name: "test", Nodes: 2, RecoverWithin: 1000 * ms},
		Ops: []*Op{
			{Client: "w0", Call: 1 * ms, Return: 2 * ms, Tries: 1, Status: 201, Revision: 3, Digest: "x", Replays: []string{"x"}, Parts: []Part{{Object: "a", Kind: Create, V: "a1", Status: 201, Seen: &a1}}},
			{Client: "w1", Call: 3 * ms, Return: 4 * ms, Tries: 1, Status: 412, Revision: 3, Parts: []Part{{Object: "a", Kind: Create, V: "no", Status: 412}}},
			{Client: "w0", Call: 5 * ms, Return: 6 * ms, Tries: 1, Status: 200, Revision: 4, Parts: []Part{{Object: "a", Kind: Patch, P: "a2", IfMatch: 100, Status: 200, Seen: &a2}}},
			{Client: "w1", Call: 7 * ms, Return: 8 * ms, Tries: 1, Status: 200, Revision: 4, Parts: []Part{{Object: "a", Kind: Read, Status: 200, Seen: &a2}}},
			{Client: "w0", Call: 9 * ms, Return: 10 * ms, Tries: 2, Status: 200, Revision: 6, Parts: []Part{
				{Object: "b", Kind: Put, V: "b1", Status: 201, Seen: &b1}, {Object: "a", Kind: Put, V: "a3", Status: 200, Seen: &a3}}},
			{Client: "w1", Call: 11 * ms, Return: 12 * ms, Tries: 1, Status: 0, Unknown: true, Unsure: true, Parts: []Part{{Object: "b", Kind: Delete}}},
			{Client: "w1", Call: 13 * ms, Return: 14 * ms, Tries: 1, Status: 404, Revision: 7, Parts: []Part{{Object: "b", Kind: Read, Status: 404}}},
			{Client: "w1", Call: 13 * ms, Return: 14 * ms, Tries: 1, Status: 404, Revision: 4, Stale: true, Parts: []Part{{Object: "b", Kind: Read, Status: 404}}},
			{Client: "w1", Call: 15 * ms, Return: 16 * ms, Tries: 1, Status: 503, Parts: []Part{{Object: "b", Kind: Put, V: "refused", Status: 503}}},
		},
		Polls: []*Poll{
			{Client: "p0", Since: 1, Call: 8 * ms, Return: 9 * ms, Level: "linearizable", Status: 200, ETag: 101, Complete: true, Limit: 10, Pages: []Page{{Node: "n1", Revision: 4, Entries: []Value{a2}}}},
			{Client: "p0", Since: 101, Call: 18 * ms, Return: 19 * ms, Level: "linearizable", Status: 200, ETag: 104, Complete: true, Limit: 10, Pages: []Page{{Node: "n2", Revision: 7, Entries: []Value{a3, gone}}}},
		},
		Hooks:  []*Hook{hook(1, Value{}), hook(2, Value{}), hook(3, a1), hook(4, a2), hook(5, b1), hook(6, a3), hook(7, gone)},
		Faults: []*Fault{{Name: "kill", Begin: 8 * ms, Healed: 9 * ms}},
		Hashes: []*Hash{{Node: "n1", Applied: 9, Revision: 7, State: "s", Full: "f"}, {Node: "n2", Applied: 9, Revision: 7, State: "s", Full: "f"}},
		Finals: []*Final{{Node: "n1", Revision: 7, ETag: 104, Values: end}, {Node: "n2", Revision: 7, ETag: 104, Values: end}},
	}
}

func TestGoodHistoryHasNoViolation(t *testing.T) {
	r := Check(good())
	if !r.OK() {
		t.Fatalf("%s\n%s", r.Summary(), strings.Join(r.Violations, "\n"))
	}
	if r.Acked != 3 || r.Unknown != 1 || r.Refused != 1 || r.Decided != 1 || r.Reads != 3 {
		t.Errorf("counted %s", r.Summary())
	}
}

// Each case spoils the good history in one way, which the named invariant must find.
func TestViolationsAreFound(t *testing.T) {
	noHooks := func(h *History) { h.Hooks = h.Hooks[:3] }
	cases := map[string]struct {
		want  string
		spoil func(h *History)
	}{
		"a write is lost": {Durability, func(h *History) {
			h.Hooks = slices.Delete(h.Hooks, 5, 6)
			h.Hooks[5].Revision = 6
			h.Finals[0].Revision, h.Finals[1].Revision = 6, 6
		}},
		"lost, without deliveries":        {Durability, func(h *History) { noHooks(h); h.Finals[1].Values = nil }},
		"old, without deliveries":         {Durability, func(h *History) { noHooks(h); h.Finals[1].Values = []Value{{Object: "a", V: "a1", Modified: 100}} }},
		"a node has another value":        {Durability, func(h *History) { h.Finals[1].Values = []Value{{Object: "a", V: "zz", Modified: 103}} }},
		"a refused write shows":           {Durability, func(h *History) { h.Hooks[4].Value.V = "refused" }},
		"a 412 shows":                     {Durability, func(h *History) { h.Hooks[4].Value.V = "no" }},
		"two writes of one revision":      {Order, func(h *History) { h.Ops[2].Revision = 3 }},
		"a read of the past":              {Order, func(h *History) { h.Ops[3].Revision = 3 }},
		"a poll of the past":              {Order, func(h *History) { h.Polls[1].Pages[0].Revision = 4 }},
		"last_modified falls":             {Order, func(h *History) { h.Hooks[5].Value.Modified = 99 }},
		"a read of a replaced value":      {Linearizable, func(h *History) { noHooks(h); h.Ops[3].Parts[0].Seen = &Value{Object: "a", V: "a1", Modified: 100} }},
		"a stale read that never was":     {Linearizable, func(h *History) { h.Ops[7].Revision = 5 }},
		"a 412 without reason":            {Linearizable, func(h *History) { h.Ops[1].Call, h.Ops[1].Return = 0, 1 }},
		"two winners of one ETag":         {CAS, func(h *History) { h.Ops[4].Parts[1].IfMatch = 100 }},
		"a change that a poller missed":   {Changes, func(h *History) { h.Polls[1].Pages[0].Entries = h.Polls[1].Pages[0].Entries[1:] }},
		"a deletion that a poller missed": {Changes, func(h *History) { h.Polls[1].Pages[0].Entries = h.Polls[1].Pages[0].Entries[:1] }},
		"an ETag ahead of its list":       {Changes, func(h *History) { h.Polls[0].ETag = 102 }},
		"an ETag that goes back":          {Changes, func(h *History) { h.Polls[1].ETag = 100 }},
		"entries out of order":            {Changes, func(h *History) { slices.Reverse(h.Polls[1].Pages[0].Entries) }},
		"half a batch is seen":            {Atomicity, func(h *History) { h.Polls[0].Pages[0].Revision = 5 }},
		"states differ":                   {Identity, func(h *History) { h.Hashes[1].Full = "g" }},
		"nobody shows a hash":             {Identity, func(h *History) { h.Hashes = nil }},
		"another answer to one key":       {Once, func(h *History) { h.Ops[0].Replays[0] = "y" }},
		"done twice": {Once, func(h *History) {
			h.Hooks = append(h.Hooks, &Hook{ID: "z", Revision: 8, Action: "update", Lane: "x/y", Value: Value{Object: "a", V: "a1", Modified: 105}})
		}},
		"made twice": {Once, func(h *History) {
			h.Hooks = append(h.Hooks, &Hook{ID: "z", Revision: 8, Action: "create", Lane: "x/y", Value: Value{Object: "c", V: "a3", Modified: 105}})
		}},
		"a delivery is missing":    {Webhooks, func(h *History) { h.Hooks = slices.Delete(h.Hooks, 4, 5) }},
		"deliveries end too early": {Webhooks, func(h *History) { h.Hooks = h.Hooks[:6] }},
		"deliveries out of order":  {Webhooks, func(h *History) { h.Hooks[4], h.Hooks[5] = h.Hooks[5], h.Hooks[4] }},
		"one change under two ids": {Webhooks, func(h *History) { again := *h.Hooks[4]; again.ID = "other"; h.Hooks = append(h.Hooks, &again) }},
		"no write after the fault": {Liveness, func(h *History) { h.Faults[0].Healed = 20 * ms }},
		"nothing happened":         {Liveness, func(h *History) { h.Ops = nil }},
		"shown to a stranger":      {Authorization, func(h *History) { h.Ops[3].Parts[0].Kind = GuardedRead }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := good()
			c.spoil(h)
			if r := Check(h); r.Counts[c.want] == 0 {
				t.Errorf("not found: %s\n%s", r.Summary(), strings.Join(r.Violations, "\n"))
			}
		})
	}
}

// What may or may not have been done is allowed either way.
func TestUnknownOutcomes(t *testing.T) {
	h := good()
	h.Hooks = h.Hooks[:3] // the clients' word alone
	for _, done := range []bool{false, true} {
		if done { // the unknown deletion shows only after a later read
			h.Ops[6].Status, h.Ops[6].Parts[0].Status = 200, 200
			h.Ops[6].Parts[0].Seen = &Value{Object: "b", V: "b1", Modified: 102}
		}
		if r := Check(h); r.Counts[Linearizable] > 0 {
			t.Errorf("done=%v: %s", done, strings.Join(r.Violations, "\n"))
		}
	}
}

func TestHistoryIsWrittenAndRead(t *testing.T) {
	path := t.TempDir() + "/history.jsonl"
	rec, err := NewRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	want := good()
	rec.Add(&Line{Run: &want.Run})
	for _, o := range want.Ops {
		rec.Add(&Line{Op: o})
	}
	for _, h := range want.Hooks {
		rec.Add(&Line{Hook: h})
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got.Ops)
	b, _ := json.Marshal(want.Ops)
	if !bytes.Equal(a, b) || len(got.Hooks) != len(want.Hooks) || got.Run != want.Run {
		t.Error("the history read is not the one written")
	}
	if _, err := Load(strings.NewReader("{\"op\":{}}\n{\"op\":")); err == nil {
		t.Error("half a line was taken for a history")
	}
}
