package main

import (
	"slices"
	"testing"
)

func TestSamples(t *testing.T) {
	text := "# HELP a_total x\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"}b\"} 3.0\na_total{y=\"q\"} 1\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_sum 2\nother 1\na_total_more 2\n"
	want := []string{"a_total{x=1,y=a\\\"}b}", "a_total{y=q}", "h_bucket{le=1.0}", "h_sum{}", "type a_total counter", "type h histogram"}
	if got := samples(text, []string{"a_total", "h"}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := samples(text, []string{"none"}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestForms(t *testing.T) {
	for name, c := range map[string]struct {
		req  Request
		a, b string
		n    int
	}{
		"sets":                {Request{Unordered: true}, `{"a":[1,{"b":[2,3]}]}`, `{"a":[{"b":[3,2]},1]}`, 0},
		"lists":               {Request{}, `{"a":[1,2]}`, `{"a":[2,1]}`, 2},
		"a part":              {Request{Only: []string{"a", "/b"}}, `{"a":{"/b":1,"c":2}}`, `{"a":{"/b":1}}`, 0},
		"a part that differs": {Request{Only: []string{"a"}}, `{"a":1}`, `{"a":2}`, 1},
		"a part is missing":   {Request{Only: []string{"a"}}, `{"a":1}`, `{}`, 1},
		"metrics":             {Request{Metrics: []string{"m"}}, "# TYPE m counter\nm{a=\"1\"} 3\nn 1\n", "# TYPE m counter\nm{a=\"1\"} 4\n", 0},
		"another label":       {Request{Metrics: []string{"m"}}, "m{a=\"1\"} 3\n", "m{a=\"2\"} 3\n", 2},
		"another type":        {Request{Metrics: []string{"m"}}, "# TYPE m counter\n", "# TYPE m gauge\n", 2},
	} {
		c.req.Target = "/x"
		diffs := compareAnswers(newRelations("", 0, "http://a", "http://b"), &c.req, Answer{Status: 200, Body: []byte(c.a)}, Answer{Status: 200, Body: []byte(c.b)}, false)
		if len(diffs) != c.n {
			t.Errorf("%s: %+v", name, diffs)
		}
	}
}
