package auth

import (
	"context"
	"encoding/base64"
	"testing"

	"quinto/plugins"
)

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// The vector and the ways to write a header were taken from Kinto 26.5.
func TestBasicUserIDIsKintos(t *testing.T) {
	const x = "710739bcca667dba57562183c23ac5ecf1d63f196e821a88f7f58d15aa706029"
	cases := map[string]string{
		"Basic " + encoded("x:"):        x,
		"basic " + encoded("x:"):        x,
		"BASIC  " + encoded("x:") + " ": x,
		"Basic !!" + encoded("x:"):      x,
		"Basic " + encoded("x:") + "==": x,
		"Basic eDo=zz":                  x,
		"Basic " + encoded("\xff:\xfe"): "02ff075f44634150edd82de5848c633887d65633c688307037567561cabe155c",
		"Basic " + encoded("a:b"):       "a03e25e73dad10cb71a3d084145cdbc2dc9f8a75d2070553a3dee903f44b3d1d",
		"Basic":                         "",
		"Basic eD":                      "",
		"Basic eDo":                     "",
		"Basic zzz":                     "",
		"Basic " + encoded("nocolon"):   "",
		"Basic " + encoded(":pass"):     "",
		"Bearer " + encoded("x:"):       "",
		"":                              "",
	}
	policy := NewBasic("basicauth", "s3cr3t")
	for header, want := range cases {
		got, ok, err := policy.Authenticate(context.Background(), header, nil)
		if got != want || ok != (want != "") || err != nil {
			t.Errorf("%q: got %q, %v, %v, want %q", header, got, ok, err, want)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add("Basic eDo=")
	f.Fuzz(func(t *testing.T, header string) { plugins.Credentials(header) })
}
