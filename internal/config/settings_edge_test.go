package config

import (
	"maps"
	"testing"
	"time"
)

// What Python's fnmatch.fnmatchcase answers.
func TestOriginPattern(t *testing.T) {
	cases := []struct {
		pattern, origin string
		want            bool
	}{
		{"*", "http://a", true},
		{"http://*.example", "http://a/b.example", true},
		{"http://*.example", "http://example", false},
		{"http://a.example", "http://aXexample", false},
		{"http://?.example", "http://é.example", true},
		{"http://?.example", "http://ab.example", false},
		{"http://[ab].example", "http://b.example", true},
		{"http://[!ab].example", "http://b.example", false},
		{"http://[!ab].example", "http://c.example", true},
		{"http://[a-c].example", "http://b.example", true},
		{"http://[^a].example", "http://^.example", true},
		{"http://[]].example", "http://].example", true},
		{"http://[.example", "http://[.example", true},
		{"http://[!", "http://[!", true},
		{`[\]`, `\`, true},
		{"", "", true},
	}
	for _, test := range cases {
		re, err := OriginPattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
		} else if re.MatchString(test.origin) != test.want {
			t.Errorf("%s on %s: not %t", test.pattern, test.origin, test.want)
		}
	}
	if _, err := OriginPattern("[z-a]"); err == nil {
		t.Error("a class without members passes")
	}
}

func TestEdgeSettings(t *testing.T) {
	c, err := Load(Options{Path: write(t, `[app:main]
kinto.cors_origins = http://a.example
	http://*.b.example
cors_max_age_seconds =
eos = 2030-01-31T12:00:00+02:00
version_prefix_redirect_ttl_seconds = -1
record_cache_expires_seconds = 5
kinto.b.c.record_cache_expires_seconds = 0
b_record_cache_expires_seconds =
object_record_put_enabled = no
plural_bucket_get_enabled = true
record_id_generator = kinto.core.storage.generators.UUID4
`), Environ: []string{"KINTO_RECORD_CACHE_EXPIRES_SECONDS=60"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.CORS.Origins) != 2 || c.CORS.MaxAge != 0 || !c.EOS.At.Equal(time.Date(2030, 1, 31, 10, 0, 0, 0, time.UTC)) || c.Redirects.VersionSeconds != -1 {
		t.Errorf("%+v %+v %+v", c.CORS, c.EOS, c.Redirects)
	}
	if want := map[string]int64{"record": 60, "b.c.record": 0}; !maps.Equal(c.CacheExpires, want) {
		t.Errorf("%v, want %v", c.CacheExpires, want)
	}
	if c.EndpointEnabled("object", "record", "PUT") || !c.EndpointEnabled("plural", "bucket", "GET") || !c.EndpointEnabled("plural", "record", "PUT") {
		t.Errorf("disabled: %v", c.Disabled)
	}
	if c.IDGenerators["record"] != UUID4 || c.IDGenerators["group"] != NameGenerator {
		t.Errorf("%v", c.IDGenerators)
	}
	if len(c.Unknown)+len(c.NoEffect) != 0 {
		t.Errorf("unknown %v, without effect %v", c.Unknown, c.NoEffect)
	}
}
