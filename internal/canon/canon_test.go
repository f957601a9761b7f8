package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func canonical(t *testing.T, src string) Value {
	t.Helper()
	v, err := Canonical([]byte(src), Limits{})
	if err != nil {
		t.Fatalf("Canonical(%q): %v", src, err)
	}
	return v
}

// notAsKinto lists documents on which we differ from rapidjson on purpose.
var notAsKinto = map[string]string{
	"0e400": "a zero stays a zero",
}

// The canonical form and the words of errors are Kinto's: testdata/rapidjson.txt comes from python-rapidjson.
func TestCanonicalAsRapidjson(t *testing.T) {
	data, err := os.ReadFile("testdata/rapidjson.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		in, want, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		src, err := strconv.Unquote(in)
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		mark := want[0]
		want, err = strconv.Unquote(strings.TrimLeft(want, "!~"))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if notAsKinto[src] != "" {
			continue
		}
		got, err := Canonical([]byte(src), Limits{})
		switch {
		case mark == '!':
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Msg != want || syntax.Error() != "Invalid JSON: "+want {
				t.Errorf("Canonical(%q) = %q, %v, want error %q", src, got, err, want)
			}
		case err != nil:
			t.Errorf("Canonical(%q): %v, want %q", src, err, want)
		case mark == '~':
			// rapidjson is off by some units in the last place; we round to the nearest double.
			g, _ := strconv.ParseFloat(string(got), 64)
			w, _ := strconv.ParseFloat(want, 64)
			exact, _ := strconv.ParseFloat(src, 64)
			if g != exact || math.Abs(g-w) > math.Abs(g)*1e-14 {
				t.Errorf("Canonical(%q) = %s, want %v", src, got, exact)
			}
		case string(got) != want:
			t.Errorf("Canonical(%q) = %q, want %q", src, got, want)
		}
	}
}

func TestCanonicalLimits(t *testing.T) {
	lim := Limits{Depth: 3, Members: 5, KeyBytes: 4}
	for _, c := range []struct{ src, limit string }{
		{`[[[1]]]`, ""},
		{`[[[[1]]]]`, "depth"},
		{`{"a":{"a":{"a":{}}}}`, "depth"},
		{`[1,2,3,4,5]`, ""},
		{`[1,2,3,4,5,6]`, "members"},
		{`{"a":1,"b":[1,2,3]}`, ""},
		{`{"a":1,"b":[1,2,3],"c":1}`, "members"},
		{`{"a":1,"a":1,"a":1,"a":1,"a":1,"a":1}`, "members"},
		{`{"éé":1}`, ""},
		{`{"\u00e9\u00e9":1}`, ""},
		{`{"ééa":1}`, "key bytes"},
		{`{"abcde":1}`, "key bytes"},
		{`["abcdefgh"]`, ""},
	} {
		_, err := Canonical([]byte(c.src), lim)
		var le *LimitError
		if c.limit == "" && err != nil || c.limit != "" && (!errors.As(err, &le) || le.Name != c.limit) {
			t.Errorf("Canonical(%s) = %v, want limit %q", c.src, err, c.limit)
		}
	}
	if _, err := Canonical([]byte(strings.Repeat("[", 100_000)), Limits{}); err == nil {
		t.Error("100,000 levels were accepted")
	}
}

// Documents made to hurt stay linear in time and memory.
func TestCanonicalHostile(t *testing.T) {
	const mb4 = 4 << 20
	free := Limits{Members: 1 << 30, Depth: 1 << 20}
	nestedDup := strings.Repeat(`{"a":1,"a":`, 500) + `"` + strings.Repeat("x", mb4) + `"` + strings.Repeat("}", 500)
	var sameKeys, manyKeys strings.Builder
	for i := range mb4 / 12 {
		sameKeys.WriteString(`"a":1,`)
		manyKeys.WriteString(`"k` + strconv.Itoa(i) + `":1,`)
	}
	for name, c := range map[string]struct {
		src string
		lim Limits
	}{
		"empty objects":     {"[" + strings.Repeat("{},", mb4/3) + "{}]", free},
		"nested duplicates": {nestedDup, Limits{}},
		"one key":           {"{" + sameKeys.String() + `"b":1}`, free},
		"many keys":         {"{" + manyKeys.String() + `"b":1}`, free},
		"digits":            {strings.Repeat("1", mb4), free},
		"fraction":          {"0." + strings.Repeat("0", mb4) + "1", free},
		"escapes":           {`"` + strings.Repeat(`\u0001`, mb4/6) + `"`, free},
	} {
		start := time.Now()
		out, err := Canonical([]byte(c.src), c.lim)
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if err == nil && len(out) > 5*len(c.src) {
			t.Errorf("%s: %d bytes became %d", name, len(c.src), len(out))
		}
	}
	if _, err := Canonical([]byte("["+strings.Repeat("{},", mb4/3)+"{}]"), Limits{}); err == nil {
		t.Error("1.4 million elements were accepted by default")
	}
}

func TestDuplicateKeysOfBigObjects(t *testing.T) {
	var src, want strings.Builder
	for i := range 100 {
		src.WriteString(`"k` + strconv.Itoa(i%50) + `":{"x":` + strconv.Itoa(i) + `,"x":[` + strconv.Itoa(i) + `]},`)
		if i >= 50 {
			want.WriteString(`"k` + strconv.Itoa(i%50) + `":{"x":[` + strconv.Itoa(i) + `]},`)
		}
	}
	got := canonical(t, "{"+src.String()+`"z":0}`)
	if string(got) != "{"+want.String()+`"z":0}` {
		t.Errorf("got %s", got)
	}
}

func FuzzCanonical(f *testing.F) {
	data, _ := os.ReadFile("testdata/rapidjson.txt")
	for i, line := range strings.Split(string(data), "\n") {
		in, _, _ := strings.Cut(line, "\t")
		if src, err := strconv.Unquote(in); err == nil && i%20 == 0 {
			f.Add([]byte(src))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		out, err := Canonical(src, Limits{Members: 1 << 20, KeyBytes: 1 << 20})
		readEverything(Value(src)) // readers never panic, whatever the bytes
		if err != nil {
			if json.Valid(src) && !refusesMore(src, err) {
				t.Fatalf("refused %q: %v", src, err)
			}
			return
		}
		if !json.Valid(src) {
			t.Fatalf("accepted %q", src)
		}
		again, err := Canonical(out, Limits{Members: 1 << 20, KeyBytes: 1 << 20})
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("not idempotent: %q, then %q, %v", out, again, err)
		}
		readEverything(out)
		if !Equal(out, canonical(t, " "+string(out))) {
			t.Fatalf("%q is not equal to itself", out)
		}
	})
}

// refusesMore reports errors for what encoding/json accepts: huge numbers, bad UTF-8, lone surrogates, limits.
func refusesMore(src []byte, err error) bool {
	var le *LimitError
	msg := err.Error()
	return errors.As(err, &le) || strings.Contains(msg, "codec") || strings.Contains(msg, "surrogate") || strings.Contains(msg, "too big")
}

func readEverything(v Value) {
	v.String()
	v.Int()
	v.Float()
	v.Bool()
	v.Len()
	v.Get("a")
	Python(v)
	Text(v)
	Compare(v, Value(`{"a":[1]}`))
	Contains(v, v[:min(len(v), 1000)]) // its time is the product of both sizes
	Set(v, "a", Value("1"))
	Delete(v, "a")
	Merge(v, v)
}

func BenchmarkCanonical(b *testing.B) {
	src := []byte(`{"name":"Reykjavík","country":"IS","population":118918,"loc":{"type":"Point","coordinates":[-21.89541,64.13548]},"tags":["capital","port"],"active":true}`)
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Canonical(src, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
