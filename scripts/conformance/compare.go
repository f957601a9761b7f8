package main

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

// ignoredHeaders are not compared, each for its reason. Names are in canonical form.
var ignoredHeaders = map[string]string{
	"Date":              "the clock",
	"Server":            "the program's name",
	"Connection":        "between client and server only",
	"Keep-Alive":        "between client and server only",
	"Transfer-Encoding": "between client and server only",
	"Quinto-Revision":   "the target's own; its presence is checked",
}

var (
	subHeaders = regexp.MustCompile(`^body\.responses\[\d+\]\.headers$`)
	subAnswer  = regexp.MustCompile(`^body\.responses\[\d+\]$`)
	aclPath    = regexp.MustCompile(`\.permissions\.[^.]+$`)
	// permissionsPath is an entry's set in the answer of /permissions.
	permissionsPath = regexp.MustCompile(`\.data\[[0-9]+\]\.permissions$`)
	escapedTxt      = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
)

// Difference is one field in which two answers disagree.
type Difference struct {
	Field  string // status | errno | header:X | body.path
	Kinto  string
	Target string
}

const absent = "(absent)"

// comparison is the comparing of one request's two answers.
type comparison struct {
	rel     *relations
	req     *Request
	list    string
	diffs   []Difference
	resized bool // numbers were equal but not in their forms, so the bodies' lengths say nothing
	jsonb   bool // the reference keeps JSON as PostgreSQL does
	part    int  // how many differences there were before the part of a batch that is being compared
}

// compareAnswers lists every difference between two answers to the same request, status first.
func compareAnswers(rel *relations, req *Request, a, b Answer, wantRevision bool) []Difference {
	c := &comparison{rel: rel, req: req, list: listOf(req.Target), jsonb: rel.jsonb}
	if a.Err != nil || b.Err != nil {
		c.add("answer", errorText(a.Err), errorText(b.Err))
		return c.diffs
	}
	if a.Status != b.Status {
		c.add("status", fmt.Sprint(a.Status), fmt.Sprint(b.Status))
	}
	if wantRevision && b.Header.Get("Quinto-Revision") == "" {
		c.add("header:Quinto-Revision", "(wanted of every answer)", absent)
	}
	before := len(c.diffs)
	c.body(a.Body, b.Body)
	skipLength := len(c.diffs) > before || c.resized || len(c.req.Typed)+len(c.req.Any) > 0 || c.req.IsExt || c.req.Words || c.req.Unordered || c.req.Only != nil || c.req.Metrics != nil
	if strings.HasPrefix(req.Target, "/batch") { // its parts hold headers that are not compared, and each part's length is
		skipLength = true
	}
	c.headers("header:", flatHeader(a.Header), flatHeader(b.Header), skipLength && req.Method != http.MethodHead)
	return c.diffs
}

func errorText(err error) string {
	if err == nil {
		return "answered"
	}
	return err.Error()
}

func (c *comparison) add(field, kinto, target string) {
	c.diffs = append(c.diffs, Difference{Field: field, Kinto: kinto, Target: target})
}

// value compares two texts by relation and reports a difference.
func (c *comparison) value(field, a, b string) {
	at := place{request: c.req.Label, field: field, list: c.list}
	if isHistory(c.list) && strings.Contains(field, ".target.") {
		at.list = "" // another list's
	}
	if sayA, sayB, ok := c.rel.same(at, a, b); !ok {
		c.add(field, sayA, sayB)
	}
}

func flatHeader(h http.Header) map[string]string {
	flat := map[string]string{}
	for name, values := range h {
		flat[name] = strings.Join(values, ", ")
	}
	return flat
}

// headers compares all headers that are part of the protocol. skipLength: the bodies differ, so their lengths say nothing new.
func (c *comparison) headers(prefix string, a, b map[string]string, skipLength bool) {
	for _, name := range unionKeys(a, b) {
		canonical := http.CanonicalHeaderKey(name)
		if ignoredHeaders[canonical] != "" || canonical == "Content-Length" && skipLength {
			continue
		}
		field := prefix + displayName(name)
		textA, inA := a[name]
		textB, inB := b[name]
		if slices.Contains(c.req.Any, field) && inA && inB {
			continue
		}
		if !inA || !inB {
			c.presence(field, textA, inA, textB, inB)
			continue
		}
		switch canonical {
		case "Last-Modified":
			textA, textB = httpDate(textA, etagOf(a)), httpDate(textB, etagOf(b))
			textB = sameDate(textA, textB)
		case "Expires":
			textB = sameDate(textA, textB)
		case "Access-Control-Expose-Headers", "Access-Control-Allow-Headers": // sets, which Python sends in any order
			textA, textB = sortedNames(textA), sortedNames(textB)
		case "Next-Page":
			textA, textB = pageURL(textA), pageURL(textB)
		}
		c.value(field, textA, textB)
	}
}

// clockSlack is how far apart two answers to one request may have been made.
const clockSlack = 3 * time.Second

// sameDate gives a where b is the same date but for the time between two answers.
func sameDate(a, b string) string {
	atA, errA := http.ParseTime(a)
	atB, errB := http.ParseTime(b)
	if errA != nil || errB != nil || atA.Sub(atB).Abs() > clockSlack {
		return b
	}
	return a
}

func sortedNames(list string) string {
	names := strings.Split(list, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

func (c *comparison) presence(field, textA string, inA bool, textB string, inB bool) {
	if inA {
		textA, _ = c.rel.normal(0, textA)
		c.add(field, textA, absent)
	} else if inB {
		textB, _ = c.rel.normal(1, textB)
		c.add(field, absent, textB)
	}
}

func etagOf(h map[string]string) string {
	if etag := h["ETag"]; etag != "" { // the name inside a batch
		return etag
	}
	return h["Etag"] // the canonical form of net/http
}

func displayName(name string) string {
	if name == "Etag" {
		return "ETag"
	}
	return name
}

// body compares two bodies: as JSON when both are, as text otherwise.
func (c *comparison) body(a, b []byte) {
	if c.req.Metrics != nil {
		c.metrics(string(a), string(b))
		return
	}
	treeA, errA := decodeJSON(a)
	treeB, errB := decodeJSON(b)
	if errA != nil || errB != nil {
		c.value("body", string(a), string(b))
		return
	}
	if c.req.Unordered {
		treeA, treeB = unordered(treeA), unordered(treeB)
	}
	if c.req.Only != nil {
		treeA, treeB = only(treeA, c.req.Only), only(treeB, c.req.Only)
	}
	c.rel.learnIDs(0, treeA)
	c.rel.learnIDs(1, treeB)
	c.tree("body", treeA, treeB)
	if c.req.Raw {
		c.value("body.escapes", escapesOf(a), escapesOf(b))
	}
}

// metrics compares two Prometheus texts by the series of the named metrics.
func (c *comparison) metrics(a, b string) {
	seriesA, seriesB := samples(a, c.req.Metrics), samples(b, c.req.Metrics)
	for _, series := range seriesA {
		if !slices.Contains(seriesB, series) {
			c.add("body."+series, "there", absent)
		}
	}
	for _, series := range seriesB {
		if !slices.Contains(seriesA, series) {
			c.add("body."+series, absent, "there")
		}
	}
}

// escapesOf lists the string tokens that hold an escape or a byte beyond ASCII, in one order.
func escapesOf(text []byte) string {
	var tokens []string
	for _, token := range escapedTxt.FindAllString(string(text), -1) {
		if strings.ContainsRune(token, '\\') || strings.ContainsFunc(token, func(r rune) bool { return r > 126 }) {
			tokens = append(tokens, token)
		}
	}
	sort.Strings(tokens)
	return strings.Join(tokens, " ")
}

// tree compares two JSON values: the order of keys does not count, all else does.
func (c *comparison) tree(path string, a, b any) {
	if slices.Contains(c.req.Any, path) {
		return
	}
	if kindA, kindB := kindOf(a), kindOf(b); kindA != kindB {
		c.add(fieldName(path), c.show(0, a), c.show(1, b))
		return
	}
	if slices.Contains(c.req.Typed, path) {
		return
	}
	switch at := a.(type) {
	case map[string]any:
		c.object(path, at, b.(map[string]any))
	case []any:
		c.array(path, at, b.([]any))
	default:
		textA, textB := plain(a), plain(b)
		if c.jsonb {
			sent := textB
			textA, textB = asJSONB(a, textA, textB)
			c.resized = c.resized || textB != sent
		}
		if c.jsonb || c.rel.generated {
			textA, textB = withoutDict(textA), withoutDict(textB)
		}
		if c.req.Words {
			textA, textB = withoutWords(textA), withoutWords(textB)
		}
		c.value(fieldName(path), textA, textB)
	}
}

// printedDict is a stored object that Python printed into a message, its keys in the order of the storage.
var printedDict = regexp.MustCompile(`not found in \{.*\}`)

func withoutDict(text string) string {
	return printedDict.ReplaceAllString(text, "not found in ‹object›")
}

// asJSONB brings two leaves to what jsonb keeps of them: the value of a number but not its exponent nor the sign of zero.
func asJSONB(leaf any, a, b string) (string, string) {
	if _, isNumber := leaf.(json.Number); !isNumber || !strings.ContainsAny(b, "eE") && !strings.HasPrefix(b, "-0") {
		return a, b
	}
	numA, okA := new(big.Rat).SetString(a)
	numB, okB := new(big.Rat).SetString(b)
	if okA && okB && numA.Cmp(numB) == 0 {
		return a, a
	}
	return a, b
}

// withoutWords cuts what a JSON parser says in its own words.
func withoutWords(text string) string {
	before, _, found := strings.Cut(text, "Invalid JSON: ")
	if !found {
		return text
	}
	return before + "Invalid JSON: ‹parser's words›"
}

func (c *comparison) object(path string, a, b map[string]any) {
	if subHeaders.MatchString(path) {
		c.headers(path+".", stringValues(a), stringValues(b), len(c.diffs) > c.part) // "body" sorts before "headers"
		return
	}
	if subAnswer.MatchString(path) {
		outer := c.list
		answered, _ := a["path"].(string)
		c.list = listOf(strings.TrimPrefix(answered, "/v1"))
		c.part = len(c.diffs)
		defer func() { c.list = outer }()
	}
	for _, key := range unionKeys(a, b) {
		valueA, inA := a[key]
		valueB, inB := b[key]
		switch {
		case slices.Contains(c.req.Any, path+"."+key) && inA && inB:
		case inA && inB:
			c.tree(path+"."+key, valueA, valueB)
		case inA:
			c.add(fieldName(path+"."+key), c.show(0, valueA), absent)
		case !c.allowedExtra(path, key, valueB):
			c.add(fieldName(path+"."+key), absent, c.show(1, valueB))
		}
	}
}

// allowedExtra tells whether the request lets the target have this key beside Kinto's.
func (c *comparison) allowedExtra(path, key string, value any) bool {
	_, isBool := value.(bool)
	return c.req.IsExt && path == "body" && (isBool || slices.Contains(c.req.Extra, key))
}

func (c *comparison) array(path string, a, b []any) {
	if len(a) != len(b) {
		c.add(fieldName(path), fmt.Sprintf("%d items: %s", len(a), c.show(0, a)), fmt.Sprintf("%d items: %s", len(b), c.show(1, b)))
		return
	}
	// An ACL is a set, and so are a user's principals after his own id; Kinto itself gives them in no stable order.
	switch {
	case aclPath.MatchString(path):
		a, b = sortedText(a), sortedText(b)
	case permissionsPath.MatchString(path):
		a, b = sortedText(a), sortedText(b)
	case path == "body.user.principals" && len(a) > 0:
		a, b = append(a[:1:1], sortedText(a[1:])...), append(b[:1:1], sortedText(b[1:])...)
	}
	for i := range a {
		c.tree(fmt.Sprintf("%s[%d]", path, i), a[i], b[i])
	}
}

// show gives a value as one line of JSON with its symbols.
func (c *comparison) show(side int, value any) string {
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err.Error()
	}
	normal, _ := c.rel.normal(side, strings.TrimSpace(text.String()))
	return normal
}

// plain gives a leaf as text: numbers in the form they were sent, strings bare (their kind was compared before).
func plain(value any) string {
	switch at := value.(type) {
	case string:
		return at
	case json.Number:
		return at.String()
	}
	return fmt.Sprint(value)
}

func kindOf(value any) string {
	switch value.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "boolean"
	}
	return "null"
}

// fieldName gives the outermost errno its own name; everything else is a path.
func fieldName(path string) string {
	if path == "body.errno" {
		return "errno"
	}
	return path
}

// listOf names the plural endpoint that a path belongs to: /buckets/b and /buckets have one clock.
func listOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts)%2 == 0 {
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, "/")
}

func sortedText(items []any) []any {
	sorted := slices.Clone(items)
	sort.SliceStable(sorted, func(i, j int) bool { return plain(sorted[i]) < plain(sorted[j]) })
	return sorted
}

func stringValues(m map[string]any) map[string]string {
	out := map[string]string{}
	for key, value := range m {
		out[key] = plain(value)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func unionKeys[V any](a, b map[string]V) []string {
	keys := sortedKeys(a)
	for _, key := range sortedKeys(b) {
		if _, in := a[key]; !in {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}
