package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"quinto/internal/canon"
)

var testOptions = Options{Now: 1_800_000_000_000, MaxFetch: 1000}

func mustParse(t testing.TB, qs string) *Query {
	t.Helper()
	q, err := Parse(qs, testOptions)
	if err != nil {
		t.Fatalf("%s: %v", qs, err)
	}
	return q
}

// randomObjects gives objects with values of all types, some timestamps twice, some objects deleted.
func randomObjects(t testing.TB, rng *rand.Rand, n int) []Object {
	values := []string{`null`, `""`, `"a"`, `"b\n\u0000"`, `"é"`, `0`, `1`, `1.0`, `-2.5`, `18446744073709551615`, `true`, `false`, `[]`, `[1]`, `[1,{"k":null}]`, `{}`, `{"x":[]}`, `{"x":1}`}
	objects := make([]Object, n)
	for i := range objects {
		o := &objects[i]
		o.ID = fmt.Sprintf("r%d", i)
		o.LastModified = int64(rng.IntN(n)) - 3
		if o.Deleted = rng.IntN(8) == 0; o.Deleted {
			continue
		}
		data := canon.Value("{}")
		for _, key := range []string{"a", "b", "c.d"} {
			if rng.IntN(4) > 0 {
				data = canon.Set(data, key, mustCanonical(t, values[rng.IntN(len(values))]))
			}
		}
		o.Data = data
	}
	return objects
}

var sorts = []string{"", "a", "-a", "a,-b", "-b,a,last_modified", "last_modified", "-last_modified", "id", "-id", "a,id", "c.d,-a", "a.x,b.x", "deleted,a"}

// Following the tokens visits every match exactly once, in the order of the query, whatever the data, sort and page length.
func TestPagesVisitEachObjectOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range 300 {
		objects := randomObjects(t, rng, 1+rng.IntN(60))
		qs := fmt.Sprintf("_sort=%s&_limit=%d", sorts[round%len(sorts)], 1+rng.IntN(9))
		if rng.IntN(2) == 0 {
			qs += fmt.Sprintf("&_since=%d&not_a=1", rng.IntN(20))
		}
		q := mustParse(t, qs)
		var want []Object
		for _, o := range objects {
			if q.Match(o) {
				want = append(want, o)
			}
		}
		slices.SortFunc(want, func(a, b Object) int {
			if q.Less(a, b) {
				return -1
			}
			return 1
		})
		got := follow(t, q, objects)
		if !slices.EqualFunc(got, want, func(a, b Object) bool { return a.ID == b.ID }) {
			t.Fatalf("%s: %d objects, want %d, or another order", qs, len(got), len(want))
		}
	}
}

func follow(t *testing.T, q *Query, objects []Object) []Object {
	t.Helper()
	var got []Object
	for pages := 0; ; pages++ {
		page, more := scan(q, objects)
		unordered, _ := pageOf(q, objects)
		if !slices.EqualFunc(page, unordered, func(a, b Object) bool { return a.ID == b.ID }) {
			t.Fatalf("the scan of %+v gives another page", q.ScanRange())
		}
		got = append(got, page...)
		if !more {
			return got
		}
		if len(page) != q.Limit || pages > len(objects) {
			t.Fatalf("page %d has %d objects of %d", pages, len(page), q.Limit)
		}
		token, err := q.EncodeToken(page[len(page)-1], Token{Offset: int64(len(got)), Nonce: "n"})
		if err != nil {
			t.Fatal(err)
		}
		q = mustParse(t, q.NextPage(token))
	}
}

// scan reads the objects as a store does: by last_modified, only the range, and no further than needed.
func scan(q *Query, objects []Object) ([]Object, bool) {
	r := q.ScanRange()
	index := slices.Clone(objects)
	slices.SortFunc(index, func(a, b Object) int {
		if a.LastModified != b.LastModified {
			return int(a.LastModified - b.LastModified)
		}
		return strings.Compare(a.ID, b.ID)
	})
	if r.Descending {
		slices.Reverse(index)
	}
	page := q.NewPage()
	for _, o := range index {
		if o.LastModified <= r.Since || o.LastModified >= r.Before {
			continue
		}
		if page.Add(o); r.Ordered && page.Full() {
			break
		}
	}
	return page.Objects()
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		qs            string
		since, before int64 // 0: none
		tombstones    bool
	}{
		{"", 0, 0, false},
		{"a=1", 0, 0, false},
		{"_since=5", 5, 0, true},
		{`_since="5"&_before=9`, 5, 9, true},
		{"_to=9", 0, 9, true},
		{"_since=5&gt_last_modified=7&min_last_modified=9&lt_last_modified=20&max_last_modified=15", 8, 16, true},
		{"last_modified=7", 6, 8, true},
		{"gt_last_modified=1.5&lt_last_modified=3.5", 1, 4, true},
		{"min_last_modified=1.5&max_last_modified=3.5", 1, 4, true},
		{"not_last_modified=7", 0, 0, true},
		{"_since=null", 0, 0, false},
	} {
		q := mustParse(t, c.qs)
		since, hasSince := q.SinceBound()
		before, hasBefore := q.BeforeBound()
		if hasSince != (c.since != 0) || hasSince && since != c.since || hasBefore != (c.before != 0) || hasBefore && before != c.before || q.IncludesTombstones() != c.tombstones {
			t.Errorf("%s: %d %v, %d %v, tombstones %v", c.qs, since, hasSince, before, hasBefore, q.IncludesTombstones())
		}
	}
	if q := mustParse(t, "last_modified=7.5"); !q.Match(Object{LastModified: 7}) {
		t.Error("last_modified=7.5 is not truncated, as Kinto's schema does")
	}
	if q := mustParse(t, "eq_last_modified=7.5"); q.Match(Object{LastModified: 7}) || q.Match(Object{LastModified: 8}) {
		t.Error("eq_last_modified=7.5 matches an integer")
	}
}

func TestIDs(t *testing.T) {
	for qs, want := range map[string]string{"": "-", "id=b": "b", "in_id=b,a,b": "a,b", "not_id=a": "-", "in_id=": "", "eq_id=5": "5", "v=1&in_id=x": "x"} {
		ids, ok := mustParse(t, qs).IDs()
		if got := strings.Join(ids, ","); ok == (want == "-") || ok && got != want {
			t.Errorf("%s: %q, %v", qs, got, ok)
		}
	}
}

func TestSeenTimestamp(t *testing.T) {
	q := mustParse(t, "_limit=1")
	token, err := q.EncodeToken(Object{ID: "a", LastModified: 50}, Token{Revision: 1 << 63})
	if err != nil {
		t.Fatal(err)
	}
	q = mustParse(t, "_since=20&_token="+url.QueryEscape(token))
	if seen, ok := q.SeenTimestamp(); seen != 50 || !ok || q.Token.Revision != 1<<63 {
		t.Errorf("seen %d, %v", seen, ok)
	}
	if _, ok := mustParse(t, "gt_last_modified=3").SeenTimestamp(); ok {
		t.Error("a filter is no position")
	}
}

// A strict resource (history) refuses unknown fields in filters, sort and projection.
func TestKnownFields(t *testing.T) {
	opt := testOptions
	opt.KnownFields = []string{"action", "target"}
	for qs, want := range map[string]string{
		"action=create&target.data.id=1&_sort=-target.x,id&_fields=target.data,deleted": "",
		"foo=1":              "Unknown filter field 'foo'",
		"gt_foo.x=1":         "Unknown filter field 'gt_foo.x'",
		"_sort=action,foo":   "querystring: Unknown sort field 'foo'",
		"_fields=foo,bar.x,": "Invalid _fields parameter in querystring: Fields bar,foo do not exist",
	} {
		_, err := Parse(qs, opt)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", qs, err, want)
		}
	}
}

func TestLimits(t *testing.T) {
	for name, qs := range map[string]string{
		"bytes":           "a=" + strings.Repeat("x", MaxQueryBytes),
		"filters":         "a=1&" + manyFilters(MaxFilters),
		"in":              "in_a=" + strings.Repeat("1,", MaxInValues) + "1",
		"contains":        "contains_a=[" + strings.Repeat("1,", MaxContainsValues) + "1]",
		"nested contains": "contains_a=[[" + strings.Repeat("1,", MaxContainsValues) + "1]]",
		"contains often":  strings.Repeat("contains_any_a=1&", MaxContainsValues+1),
		"depth":           "a=" + strings.Repeat("[", 600) + strings.Repeat("]", 600),
		"sort":            "_sort=" + strings.Repeat("a,", MaxSortFields) + "b",
	} {
		var e *Error
		if _, err := Parse(qs, testOptions); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustParse(t, manyFilters(MaxFilters))
	mustParse(t, "in_a="+strings.Repeat("1,", MaxInValues-1)+"1")
	_, err := mustParse(t, "_sort=a").EncodeToken(Object{ID: "x", Data: canon.Set(nil, "a", stringValue(strings.Repeat("y", MaxTokenBytes)))}, Token{})
	if !errors.Is(err, ErrTokenTooLong) {
		t.Errorf("long token: %v", err)
	}
}

func manyFilters(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "f%d=1&", i)
	}
	return b.String()
}

// The query keeps no bytes of the request, whose buffer Fiber uses again.
func TestParseCopies(t *testing.T) {
	buffer := []byte("in_id=abc,def&like_v=xyz&_sort=-size&_fields=size&_limit=2")
	q := mustParse(t, string(buffer))
	want := fmt.Sprintf("%+v", *q)
	for i := range buffer {
		buffer[i] = '#'
	}
	if got := fmt.Sprintf("%+v", *q); got != want {
		t.Errorf("query became %s", got)
	}
}

func TestDottedKeys(t *testing.T) {
	o := Object{Data: mustCanonical(t, `{"a.b":1,"a":{"b":2,"c.d":3},"x.y":{"z":4}}`)}
	for qs, want := range map[string]bool{"a.b=2": true, "a.b=1": false, "a.c.d=3": true, "x.y.z=4": true, "has_x.y=true": true, "has_x=true": false} {
		if mustParse(t, qs).Match(o) != want {
			t.Errorf("%s: not %v", qs, want)
		}
	}
}

func TestParseFields(t *testing.T) {
	f, err := ParseFields("_fields=a.b,c&_limit=x", testOptions)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Project(Object{Data: mustCanonical(t, `{"a":{"b":1,"x":2},"c":[1.0],"d":0}`)})
	if string(got) != `{"a":{"b":1},"c":[1.0]}` || !slices.Equal(f.Names(), []string{"a.b", "c"}) {
		t.Errorf("%s, %q", got, f.Names())
	}
	if f, err := ParseFields("_fields=", testOptions); f != nil || err != nil {
		t.Errorf("%v, %v", f, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, qs := range []string{"", "_limit=1&_sort=-a,b&_token=e30=", "in_a=1,%22x%22&like_b=*x*", "_since=%221%22&contains_a=[1]", "a.b=1&%FF", "_fields=a.b,c"} {
		f.Add(qs)
	}
	objects := randomObjects(f, rand.New(rand.NewPCG(1, 1)), 20)
	f.Fuzz(func(t *testing.T, qs string) {
		q, err := Parse(qs, testOptions)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("empty error")
			}
			return
		}
		page, more := pageOf(q, objects)
		if len(page) > q.Limit {
			t.Fatalf("%d objects, limit %d", len(page), q.Limit)
		}
		if q.Fields != nil {
			for _, o := range page {
				mustCanonical(t, string(q.Fields.Project(o)))
			}
		}
		if more {
			token, err := q.EncodeToken(page[len(page)-1], Token{})
			if err != nil {
				return
			}
			if next, err := Parse(q.NextPage(token), testOptions); err == nil && next.After(page[len(page)-1]) {
				t.Fatalf("the token of %q gives its object again", qs)
			}
		}
	})
}

func BenchmarkPage(b *testing.B) {
	objects := make([]Object, 10_000)
	for i := range objects {
		objects[i] = Object{ID: fmt.Sprint("r", i), LastModified: int64(i), Data: canon.Value(fmt.Sprintf(`{"name":"city %d","population":%d,"country":"IS"}`, i, i*7919%10007))}
	}
	for _, qs := range []string{"_limit=100", "_limit=100&_sort=population", "country=IS&min_population=5000"} {
		b.Run(qs, func(b *testing.B) {
			q := mustParse(b, qs)
			for b.Loop() {
				pageOf(q, objects)
			}
		})
	}
}
