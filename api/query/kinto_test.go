package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"quinto/internal/canon"
)

// answer is one line of testdata/kinto.txt, which Kinto wrote on PostgreSQL.
type answer struct {
	Error   string
	Details [][2]*string
	Pages   []json.RawMessage
	Count   int
	Last    []json.RawMessage
	Next    string
	Alert   bool
}

// goldenOptions are the settings of testdata/gen.py.
var goldenOptions = Options{Now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).UnixMilli(), PaginateBy: 7, MaxFetch: 50}

func mustCanonical(t testing.TB, src string) canon.Value {
	t.Helper()
	v, err := canon.Canonical([]byte(src), canon.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return v
}

// objectOf splits id and last_modified from the data, as the store does.
func objectOf(t testing.TB, src string) Object {
	v := mustCanonical(t, src)
	id, _ := v.Get("id")
	modified, _ := v.Get("last_modified")
	var obj Object
	obj.ID, _ = id.String()
	obj.LastModified, _ = modified.Int()
	obj.Data = canon.Delete(canon.Delete(v, "id"), "last_modified")
	_, deleted := v.Get("deleted")
	if obj.Deleted = deleted; deleted {
		obj.Data = nil
	}
	return obj
}

// deviations are the requests on which we differ from Kinto on purpose, with the reason.
var deviations = map[string]string{
	"exclude_v=":  "an empty list excludes nothing; SQL's NOT IN (NULL) matches only missing fields",
	"exclude_n=":  "the same",
	"exclude_id=": "the same",
	"like_v=%":    "% is no wildcard: SQL's must not leak",
	"like_g=%":    "the same",
	"like_id=%":   "the same",
	"like_tags=%": "the same",
	"like_deep=%": "the same",
	"not_id=null": "null is a value that differs from every id, as in other fields; SQL's NULL is not",
	"min_id=null": "the same",
	"gt_id=null":  "the same",
}

// The same requests over the same objects give the same pages, counts, tokens, projections and errors as Kinto on PostgreSQL.
func TestAsKinto(t *testing.T) {
	data, err := os.ReadFile("testdata/kinto.txt")
	if err != nil {
		t.Fatal(err)
	}
	var objects []Object
	tested := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "{") {
			objects = append(objects, objectOf(t, line))
			continue
		}
		qs, want, _ := strings.Cut(line, "\t")
		var a answer
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		tested++
		if deviations[qs] == "" {
			checkAnswer(t, objects, qs, a)
		}
	}
	if tested < 1500 {
		t.Errorf("only %d requests", tested)
	}
}

func checkAnswer(t *testing.T, objects []Object, qs string, a answer) {
	t.Helper()
	q, err := Parse(qs, goldenOptions)
	if a.Error != "" || err != nil {
		checkError(t, qs, err, a)
		return
	}
	if q.DeprecatedTo != a.Alert {
		t.Errorf("%s: alert %v", qs, q.DeprecatedTo)
	}
	count := 0
	for _, obj := range objects {
		if q.Match(obj) && !obj.Deleted {
			count++
		}
	}
	if count != a.Count {
		t.Errorf("%s: count %d, want %d", qs, count, a.Count)
	}
	for i, want := range a.Pages {
		got, more := pageOf(q, objects)
		if text := render(q, got, want[0] == '['); !sameJSON(t, text, string(want)) {
			t.Errorf("%s: page %d\n got %s\nwant %s", qs, i, text, want)
			return
		}
		if more != (i < len(a.Pages)-1) {
			t.Errorf("%s: page %d: more is %v", qs, i, more)
			return
		}
		if more {
			q = nextPage(t, q, got, a, i)
		}
	}
}

func nextPage(t *testing.T, q *Query, page []Object, a answer, i int) *Query {
	t.Helper()
	last := page[len(page)-1]
	if i == 0 {
		if got := q.NextPage("T"); got != a.Next {
			t.Errorf("next page %s, want %s", got, a.Next)
		}
		checkLastObject(t, q, last, mustCanonical(t, string(a.Last[0])))
	}
	token, err := q.EncodeToken(last, Token{Offset: int64(i), Nonce: "n", Revision: 7})
	if err != nil {
		t.Fatal(err)
	}
	next, err := Parse(q.NextPage(token), goldenOptions)
	if err != nil {
		t.Fatalf("%s: %v", q.NextPage(token), err)
	}
	if next.Token.Offset != int64(i) || next.Token.Nonce != "n" || next.Token.Revision != 7 {
		t.Fatalf("token became %+v", next.Token)
	}
	return next
}

// checkLastObject compares the fields that both tokens hold.
func checkLastObject(t *testing.T, q *Query, last Object, want canon.Value) {
	t.Helper()
	for _, s := range q.Sort {
		if w, ok := want.Get(s.Field); ok && !canon.Equal(w, field(&last, s.Field, s.path)) {
			t.Errorf("token field %s of %s, want %s", s.Field, last.ID, w)
		}
	}
}

func pageOf(q *Query, objects []Object) ([]Object, bool) {
	page := q.NewPage()
	for _, obj := range objects {
		page.Add(obj)
	}
	return page.Objects()
}

// render writes a page as the golden file does.
func render(q *Query, page []Object, whole bool) string {
	if !whole {
		ids := make([]string, len(page))
		for i, obj := range page {
			ids[i] = obj.ID
		}
		return string(canon.AppendString(nil, strings.Join(ids, " ")))
	}
	out := []byte{'['}
	for i, obj := range page {
		if i > 0 {
			out = append(out, ',')
		}
		data := obj.Data
		if q.Fields != nil {
			data = q.Fields.Project(obj)
		}
		out = canon.Splice(out, obj.ID, obj.LastModified, data)
	}
	return string(append(out, ']'))
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	return canon.Equal(mustCanonical(t, a), mustCanonical(t, b))
}

func checkError(t *testing.T, qs string, err error, a answer) {
	t.Helper()
	if err == nil || err.Error() != a.Error {
		t.Errorf("%s: error %v, want %s", qs, err, a.Error)
		return
	}
	var details []string
	var e *Error
	if errors.As(err, &e) {
		for _, d := range e.Details {
			name := d.Name
			if d.NoName {
				name = "<none>"
			}
			details = append(details, name+": "+d.Description)
		}
	}
	var want []string
	for _, d := range a.Details {
		name, text := "<none>", *d[1]
		if d[0] != nil {
			name = *d[0]
		}
		if text == "" {
			text = a.Error
		}
		want = append(want, fmt.Sprintf("%s: %s", name, text))
	}
	if !slices.Equal(details, want) {
		t.Errorf("%s: details %q, want %q", qs, details, want)
	}
}
