package canon

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	v := canonical(t, `{"s":"é\n","i":-7,"u":18446744073709551615,"f":1.0,"b":true,"n":null,"a":[1,"x,]",{"k":[]}],"o":{"p":{"q":2}},"":0,"A":1,"é":9}`)
	if s, ok := mustGet(t, v, "s").String(); s != "é\n" || !ok {
		t.Errorf("s = %q", s)
	}
	if i, ok := mustGet(t, v, "i").Int(); i != -7 || !ok {
		t.Errorf("i = %d", i)
	}
	if _, ok := mustGet(t, v, "u").Int(); ok {
		t.Error("uint64 read as int64")
	}
	if _, ok := mustGet(t, v, "f").Int(); ok {
		t.Error("1.0 read as an integer")
	}
	if f, ok := mustGet(t, v, "f").Float(); f != 1 || !ok {
		t.Errorf("f = %v", f)
	}
	if b, ok := mustGet(t, v, "b").Bool(); !b || !ok {
		t.Error("b is not true")
	}
	if q, ok := v.GetPath("o", "p", "q"); !ok || string(q) != "2" {
		t.Errorf("o.p.q = %s", q)
	}
	if got := mustGet(t, v, "é"); string(got) != "9" {
		t.Errorf("é = %s", got)
	}
	for _, key := range []string{"a ", "S", "B", "ſ", "o.p"} {
		if got, ok := v.Get(key); ok {
			t.Errorf("%q found: %s", key, got)
		}
	}
	var elements []string
	mustGet(t, v, "a").Elements(func(e Value) bool { elements = append(elements, string(e)); return true })
	if want := []string{"1", `"x,]"`, `{"k":[]}`}; !slices.Equal(elements, want) {
		t.Errorf("elements %q, want %q", elements, want)
	}
	var keys []string
	v.Each(func(key string, _ Value) bool { keys = append(keys, key); return key != "b" })
	if want := []string{"s", "i", "u", "f", "b"}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
	if v.Len() != 11 {
		t.Errorf("Len = %d", v.Len())
	}
}

func mustGet(t *testing.T, v Value, key string) Value {
	t.Helper()
	got, ok := v.Get(key)
	if !ok {
		t.Fatalf("no %q in %s", key, v)
	}
	return got
}

// Each value is smaller than all that follow; those of one row are equal.
func TestCompare(t *testing.T) {
	order := [][]string{
		{`null`}, {`""`}, {`"A"`}, {`"a"`}, {`"a\n"`}, {`"a b"`}, {`"ab"`}, {`"é"`, `"\u00e9"`}, {`"\uffee"`}, {`"😀"`},
		{`-1e300`}, {`-9223372036854775808`, `-9223372036854775808.0`}, {`-1.5`}, {`-1`, `-1.0`}, {`0`, `-0`, `-0.0`, `0.0`}, {`0.1`}, {`1`, `1.0`, `1e0`}, {`2.5`},
		{`9007199254740992`, `9007199254740992.0`}, {`9007199254740993`}, {`9223372036854775807`}, {`9223372036854775808`, `9223372036854775808.0`},
		{`18446744073709551615`}, {`18446744073709551616`}, {`1e300`},
		{`false`}, {`true`},
		{`[]`}, {`[null]`}, {`["z"]`}, {`[1]`, `[1.0]`}, {`[2]`}, {`[1,1]`},
		{`{}`}, {`{"a":1}`, `{"a":1.0}`}, {`{"a":2}`}, {`{"b":1}`}, {`{"aa":0}`}, {`{"a":1,"b":[2]}`, `{"b":[2],"a":1}`},
	}
	for i, row := range order {
		for j, other := range order {
			for _, a := range row {
				for _, b := range other {
					want := 0
					if i < j {
						want = -1
					} else if i > j {
						want = 1
					}
					if got := Compare(canonical(t, a), canonical(t, b)); got != want {
						t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
					}
				}
			}
		}
		if Compare(nil, canonical(t, row[0])) != 1 {
			t.Errorf("missing is not above %s", row[0])
		}
	}
}

func TestContains(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`[1,2,3]`, `[3,1]`, true}, {`[1,2]`, `[3]`, false}, {`[1]`, `[]`, true}, {`[1]`, `1`, false}, {`"a"`, `["a"]`, false},
		{`[{"a":1,"b":2}]`, `[{"a":1}]`, true}, {`[{"a":1}]`, `[{"a":1,"b":2}]`, false}, {`[1.0]`, `[1]`, true}, {`["1"]`, `[1]`, false},
	} {
		if got := Contains(canonical(t, c.a), canonical(t, c.b)); got != c.want {
			t.Errorf("Contains(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

func TestEdits(t *testing.T) {
	o := canonical(t, `{"a":1,"b":{"c":[1.0]},"é":"x"}`)
	for _, c := range []struct {
		name string
		got  Value
		want string
	}{
		{"set in place", Set(o, "a", Value(`"y"`)), `{"a":"y","b":{"c":[1.0]},"\u00E9":"x"}`},
		{"set escaped key", Set(o, "é", Value(`2`)), `{"a":1,"b":{"c":[1.0]},"\u00E9":2}`},
		{"set new", Set(o, "A", Value(`null`)), `{"a":1,"b":{"c":[1.0]},"\u00E9":"x","A":null}`},
		{"set in empty", Set(Value(`{}`), "a", Value(`[]`)), `{"a":[]}`},
		{"set in nothing", Set(nil, "a", Value(`[]`)), `{"a":[]}`},
		{"delete first", Delete(o, "a"), `{"b":{"c":[1.0]},"\u00E9":"x"}`},
		{"delete last", Delete(o, "é"), `{"a":1,"b":{"c":[1.0]}}`},
		{"delete absent", Delete(o, "c"), string(o)},
		{"delete only", Delete(Value(`{"a":1}`), "a"), `{}`},
		{"merge", Merge(o, canonical(t, `{"b":{"d":null},"z":0,"a":null}`)), `{"a":null,"b":{"d":null},"\u00E9":"x","z":0}`},
		{"merge nothing", Merge(o, Value(`{}`)), string(o)},
		{"splice", Splice([]byte("["), "x1", 42, Value(`{"a":1}`)), `[{"a":1,"id":"x1","last_modified":42}`},
		{"splice empty", Splice(nil, "x1", -1, Value(`{}`)), `{"id":"x1","last_modified":-1}`},
		{"string", AppendString(nil, "a\"\\/\x00\x7fé😀\xff"), `"a\"\\/\u0000` + "\x7f" + `\u00E9\uD83D\uDE00\uFFFD"`},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

// Merge agrees with a map, for objects small and large.
func TestMergeManyMembers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		build := func() Value {
			var s strings.Builder
			for range rng.IntN(40) {
				s.WriteString(`"` + string(rune('a'+rng.IntN(26))) + `":` + string(rune('0'+rng.IntN(10))) + `,`)
			}
			return canonical(t, "{"+s.String()+`"z":0}`)
		}
		obj, patch := build(), build()
		want := map[string]string{}
		for _, v := range []Value{obj, patch} {
			v.Each(func(key string, val Value) bool { want[key] = string(val); return true })
		}
		got := Merge(obj, patch)
		if got.Len() != len(want) {
			t.Fatalf("Merge(%s, %s) = %s", obj, patch, got)
		}
		for key, val := range want {
			if g, _ := got.Get(key); string(g) != val {
				t.Fatalf("Merge(%s, %s) = %s: %s is %s", obj, patch, got, key, g)
			}
		}
	}
}

func TestPython(t *testing.T) {
	for src, want := range map[string]string{
		`null`: "None", `true`: "True", `false`: "False", `1e21`: "1e+21", `"it's"`: `"it's"`, `"a\"'b"`: `'a"\'b'`, `"a\\b\n\u0001é\u2028\ue000"`: `'a\\b\n\x01é\u2028\ue000'`,
		`{"foo":1,"b":[null,"x"]}`: `{'foo': 1, 'b': [None, 'x']}`, `[]`: "[]", `{}`: "{}",
	} {
		if got := Python(canonical(t, src)); got != want {
			t.Errorf("Python(%s) = %s, want %s", src, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for src, want := range map[string]string{
		`"a\u00e9"`: "aé", `1.50`: "1.5", `[1,"\u00e9\n\"\\u",{"k":null}]`: `[1, "é\n\"\\u", {"k": null}]`, `true`: "true",
	} {
		if got, ok := Text(canonical(t, src)); got != want || !ok {
			t.Errorf("Text(%s) = %s, want %s", src, got, want)
		}
	}
	if _, ok := Text(Value("null")); ok {
		t.Error("null has text")
	}
}
