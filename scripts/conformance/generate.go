package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Sizes of a generated sequence.
const (
	minSteps      = 12
	maxSteps      = 36
	maxBatchParts = 5
)

// step is one request of a generated sequence, in parts that can be taken away one by one.
type step struct {
	id     int // placeholders name it g<id>, however many other steps are taken away
	method string
	path   string
	query  [][2]string
	user   string
	header [][2]string
	body   any // map[string]any, []any or nil
	parts  int // of a batch
}

// sequence is a random conversation of several users about buckets of their own.
type sequence struct {
	seed     uint64
	settings string
	steps    []step
}

// maker draws a sequence. It keeps only what makes the draws meaningful: which step spoke of what.
type maker struct {
	r       *rand.Rand
	backend string
	steps   []step
	spoke   map[string][]int // path to the steps whose answer should carry its ETag
	pages   []int            // reads of lists with a limit
	drawn   bool             // ids that the server draws are in use: nothing is ordered by id
	past    int64            // the last client's time in the past that was used
	grouped bool             // a group may exist in the first bucket
	inBatch bool
	made    map[string]bool // buckets and collections that exist, as far as one can know
}

var (
	users       = []string{"alice", "alice", "alice", "alice", "bob", "bob", "bob", "carol", ""}
	buckets     = []string{"/buckets/{b}", "/buckets/{b}", "/buckets/{b}", "/buckets/{b2}"}
	collections = []string{"c", "c", "c", "d"}
	groups      = []string{"g", "g", "h"}
	records     = []string{"r1", "r2", "r3", "r4", "r5", "R-6_x"}
	badIDs      = []string{"-x", "a.b", "%C3%A9", "_r", "a%20b"}
)

// generate draws the sequence of a seed; what it avoids depends on the backend of the reference (see avoided).
func generate(seed uint64, backend string) sequence {
	m := &maker{r: rand.New(rand.NewPCG(seed, 26)), backend: backend, spoke: map[string][]int{}, made: map[string]bool{}}
	m.drawn = m.r.IntN(3) == 0
	m.begin()
	for n := minSteps + m.r.IntN(maxSteps-minSteps); len(m.steps) < n; {
		m.add(m.any())
	}
	q := sequence{seed: seed, steps: m.steps}
	if m.r.IntN(4) == 0 {
		q.settings = "paginate_by=3"
	}
	return q
}

// pick draws one of several values.
func pick[T any](m *maker, values []T) T { return values[m.r.IntN(len(values))] }

// chance is true in one of n cases.
func (m *maker) chance(n int) bool { return m.r.IntN(n) == 0 }

// begin makes a bucket, a collection and some records, which nearly every rule of Kinto's needs.
func (m *maker) begin() {
	bucket := step{method: "PUT", path: "/buckets/{b}", user: "alice"}
	if m.chance(2) {
		bucket.body = m.body("bucket", m.data("bucket"), m.permissions("bucket"))
	}
	m.add(bucket)
	coll := step{method: "PUT", path: "/buckets/{b}/collections/c", user: "alice"}
	if m.chance(2) {
		coll.body = m.body("collection", nil, m.permissions("collection"))
	}
	m.add(coll)
	for _, id := range records[:m.r.IntN(4)] {
		m.add(step{method: "PUT", path: "/buckets/{b}/collections/c/records/" + id, user: pick(m, users), body: m.body("record", m.data("record"), m.permissions("record"))})
	}
}

// add numbers a step and remembers what later ones may refer to.
func (m *maker) add(s step) {
	s.id = len(m.steps) + 1
	m.steps = append(m.steps, s)
	if s.method != "HEAD" && s.path != "/batch" {
		m.spoke[s.path] = append(m.spoke[s.path], s.id)
	}
	if s.method == "GET" && slices.ContainsFunc(s.query, func(q [2]string) bool { return q[0] == "_limit" }) {
		m.pages = append(m.pages, s.id)
	}
	if s.method == "DELETE" {
		delete(m.made, s.path)
	}
	if s.method == "PUT" && !m.made[s.path] {
		m.made[s.path] = true
		m.fill(s)
	}
}

// fill writes into the lists of a new bucket or collection: until somebody does, their times differ on purpose.
func (m *maker) fill(parent step) {
	lists := []string{"/groups/w", "/collections/w"}
	switch {
	case strings.Contains(parent.path, "/collections/") && !strings.Contains(parent.path, "/records/"):
		lists = []string{"/records/w"}
	case strings.Count(parent.path, "/") > 2:
		return
	}
	for _, name := range lists {
		m.made[parent.path+name] = true // its own lists may stay empty
		m.add(step{method: "PUT", path: parent.path + name, user: parent.user})
	}
}

// weighted is one kind of request and how often it is drawn.
type weighted struct {
	weight int
	make   func(m *maker) step
}

func single(kind string, weight int) weighted {
	return weighted{weight, func(m *maker) step { return m.object(kind) }}
}

func plural(kind string, weight int) weighted {
	return weighted{weight, func(m *maker) step { return m.list(kind) }}
}

// insideBatch are those that a batch may hold.
var insideBatch = []weighted{
	single("record", 40), plural("record", 24), single("collection", 6), plural("collection", 3), single("group", 8), plural("group", 3),
	single("bucket", 6), plural("bucket", 1),
}

func (m *maker) any() step {
	kinds := insideBatch
	if !m.inBatch {
		kinds = append([]weighted{{10, (*maker).batch}, {6, (*maker).page}, {2, (*maker).hello}}, kinds...)
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at := m.r.IntN(total)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			return k.make(m)
		}
	}
	return m.object("record")
}

// parent gives the path of a list.
func (m *maker) parent(kind string) string {
	switch kind {
	case "bucket":
		return "/buckets"
	case "collection":
		return pick(m, buckets) + "/collections"
	case "group":
		return pick(m, buckets) + "/groups"
	}
	return pick(m, buckets) + "/collections/" + pick(m, collections) + "/records"
}

// name gives the path of an object in a list.
func (m *maker) name(kind, list string) string {
	if kind == "bucket" {
		return pick(m, buckets)
	}
	if m.chance(40) {
		return list + "/" + pick(m, badIDs)
	}
	return list + "/" + pick(m, m.ids(kind))
}

func (m *maker) ids(kind string) []string {
	switch kind {
	case "collection":
		return collections
	case "group":
		return groups
	}
	return records
}

// object draws a request to one object.
func (m *maker) object(kind string) step {
	list := m.parent(kind)
	s := step{user: pick(m, users), path: m.name(kind, list)}
	switch n := m.r.IntN(20); {
	case n < 6:
		s.method, s.body = "PUT", m.write(kind)
	case n < 9 && (kind != "bucket" || m.drawn):
		s.method, s.path, s.body = "POST", list, m.post(kind)
	case n < 14:
		m.patch(&s, kind)
	case n < 17:
		s.method = pick(m, []string{"GET", "GET", "GET", "HEAD"})
		if m.chance(4) {
			s.query = append(s.query, [2]string{"_fields", pick(m, fieldLists)})
		}
	default:
		s.method = "DELETE"
		if !m.mayDelete(kind, s.path) {
			s.method = "GET"
		} else if kind != "bucket" && m.chance(6) {
			s.query = append(s.query, [2]string{"last_modified", m.stamp()})
		}
	}
	if kind == "group" && isWrite(s.method) {
		m.grouped = true
	}
	m.condition(&s)
	return s
}

// mayDelete keeps from deletions whose consequences are known to differ (see avoided).
func (m *maker) mayDelete(kind, path string) bool {
	switch kind {
	case "bucket":
		return !m.grouped && !m.inBatch && m.chance(3)
	case "collection":
		return !m.inBatch && m.chance(2)
	}
	return true
}

// list draws a request to a list.
func (m *maker) list(kind string) step {
	s := step{user: pick(m, users), path: m.parent(kind), method: pick(m, []string{"GET", "GET", "GET", "GET", "GET", "HEAD"})}
	remove := m.chance(14) && (kind == "record" || kind == "group")
	if kind == "bucket" {
		s.query = append(s.query, [2]string{"like_id", "bkt*{s}"}) // other sequences have buckets in this list
	}
	for range m.r.IntN(3) {
		s.query = append(s.query, m.filter(kind))
	}
	if remove {
		s.method = "DELETE"
	} else {
		if m.chance(3) {
			s.query = append(s.query, [2]string{"_sort", m.sort()})
		}
		if m.chance(3) {
			s.query = append(s.query, [2]string{"_limit", pick(m, []string{"1", "2", "3", "2", "1", "0", "100", "-1", "x", "1.5", ""})})
		}
		if m.chance(6) {
			s.query = append(s.query, [2]string{"_fields", pick(m, fieldLists)})
		}
	}
	if m.chance(4) {
		s.query = append(s.query, m.bound())
	}
	if kind != "bucket" {
		m.condition(&s)
	}
	return s
}

// page follows the Next-Page of an earlier read, or uses its token in another query.
func (m *maker) page() step {
	if len(m.pages) == 0 {
		return m.list("record")
	}
	from := m.steps[pick(m, m.pages)-1]
	s := step{method: "GET", user: from.user}
	switch n := m.r.IntN(6); {
	case n < 2 && !strings.HasPrefix(from.path, "{"):
		s.method = []string{"HEAD", "GET"}[n]
		s.path, s.query = from.path, append(slices.Clone(from.query), [2]string{"_token", fmt.Sprintf("{token:g%d}", from.id)})
	default:
		s.path = fmt.Sprintf("{next:g%d}", from.id)
		s.query = nil
	}
	if s.method == "GET" {
		m.pages = append(m.pages, len(m.steps)+1) // its answer may have a next page too
	}
	return s
}

// hello shows the principals of a user.
func (m *maker) hello() step { return step{method: "GET", path: "/", user: pick(m, users)} }

// batch draws a batch of requests to objects and lists.
func (m *maker) batch() step {
	s := step{method: "POST", path: "/batch", user: pick(m, users)}
	m.inBatch = true
	defer func() { m.inBatch = false }()
	requests := []any{}
	defaults := map[string]any{}
	if m.chance(4) {
		defaults["method"] = pick(m, []string{"PUT", "GET", "DELETE"})
	}
	if m.chance(6) {
		defaults["body"] = map[string]any{"data": map[string]any{"n": m.r.IntN(5), "o": map[string]any{"d": true}}}
	}
	if m.chance(8) {
		defaults["headers"] = map[string]any{"If-None-Match": "*"}
	}
	s.parts = 1 + m.r.IntN(maxBatchParts)
	for range s.parts {
		part := m.any()
		if _, isPatch := part.body.([]any); isPatch || hasHeader(Sent{Header: part.header}, "Content-Type") {
			part = m.list("record")
		}
		method, _ := defaults["method"].(string)
		requests = append(requests, m.part(part, method))
	}
	body := map[string]any{"requests": requests}
	if len(defaults) > 0 {
		body["defaults"] = defaults
	}
	s.body = body
	return s
}

// part brings a request into the form it has in a batch.
// fallback is the method of the batch's defaults.
func (m *maker) part(s step, fallback string) map[string]any {
	path := s.path
	if m.chance(4) {
		path = "/v1" + path
	}
	part := map[string]any{"path": path + queryText(s.query), "method": s.method}
	small := strings.Contains(s.path, "/records/") || strings.Contains(s.path, "/groups/") // what may be deleted in a batch
	if fallback != "" && small && m.chance(2) || fallback == "" && s.method == "GET" && m.chance(4) {
		delete(part, "method")
	}
	headers := map[string]any{}
	for _, h := range s.header {
		if h[0] == "If-None-Match" && strings.Contains(h[1], "etag") { // a 304 in a batch is a 500 of Kinto's
			continue
		}
		headers[h[0]] = h[1]
	}
	if len(headers) > 0 {
		part["headers"] = headers
	}
	if s.body != nil {
		part["body"] = s.body
	}
	return part
}

// condition adds preconditions and other headers.
func (m *maker) condition(s *step) {
	if !m.chance(5) {
		return
	}
	name := pick(m, []string{"If-Match", "If-Match", "If-None-Match"})
	value := pick(m, []string{`"1500000000000"`, "*", "*", "abc", `"abc"`, `W/"1"`, "12", `"0"`, `"-5"`, ""})
	if before := m.spoke[s.path]; len(before) > 0 && !m.chance(3) {
		at := before[m.r.IntN(len(before))]
		value = pick(m, []string{"{etag:g%d}", "{etag:g%d}", "{etag:g%d}", `"{ts:g%d-1}"`, `"{ts:g%d+1}"`})
		value = fmt.Sprintf(value, at)
	}
	s.header = append(s.header, [2]string{name, value})
}
