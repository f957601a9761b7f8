package openid

import "testing"

// What real Kinto 26.5.0 says (is_trusted_callback), but for characters beyond ASCII and
// text behind a bracket, which are never trusted here.
func TestTrusted(t *testing.T) {
	local := append([]string{"https://kinto.example/v1/admin/*", "https://*.trusted.com/cb*", "http://[::1]:*/*", "https://app.example/a?x=[1]*"}, localCallbacks...)
	for url, want := range map[string]bool{
		"http://localhost:3000/":                      true,
		"http://localhost:3000":                       true,
		"http://localhost/":                           true,
		"HTTP://LOCALHOST:1/#t=":                      true,
		"https://localhost:3000/":                     false,
		"http://localhost.evil.com:3000/":             false,
		"http://127.0.0.1:8080/x?y#z":                 true,
		"http://127.0.0.11/":                          false,
		"http://[::1]:99/a":                           true,
		"http://[::1]evil.com:99/a":                   false,
		"http://[::1/a":                               false,
		"https://kinto.example/v1/admin/#/auth":       true,
		"https://kinto.example:443/v1/admin/":         true,
		"https://kinto.example:444/v1/admin/":         false,
		"https://kinto.example/v1/admin/../x":         false,
		"https://kinto.example/v1/admin/%2e%2E/x":     false,
		`https://kinto.example/v1/admin/..\x`:         false,
		"https://kinto.example/v1/admin/?a=../b":      true,
		"https://a.trusted.com/cb":                    true,
		"https://a.b.trusted.com/cb2":                 true,
		"https://trusted.com/cb":                      false,
		`https://evil.com\.trusted.com/cb`:            false,
		"https://evil.com/.trusted.com/cb":            false,
		"https://evil.com#.trusted.com/cb":            false,
		"https://user@a.trusted.com/cb":               false,
		"https://a.trusted.com@evil.com/cb":           false,
		"https://a.trusted.com:80@evil.com/cb":        false,
		"https://evil.com%2f.trusted.com/cb":          false,
		"https://a.trusted.com /cb":                   false,
		"https://a.trusted.com/cb\r\nSet-Cookie: a=b": false,
		" https://a.trusted.com/cb":                   false,
		"//a.trusted.com/cb":                          false,
		"javascript:alert(1)":                         false,
		"https://app.example/a?x=[1]2":                true,
		"https://app.example/abx=1":                   false,
		"https:///cb":                                 false,
		"":                                            false,
	} {
		if got := trusted(url, local); got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"*", "", true}, {"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*b", "ab", true}, {"a*a", "a", false},
		{"a*b*c", "axbxbc", true}, {"a*b*c", "acb", false}, {"**", "x", true}, {"a*bc*c", "abc", false}, {"a?c", "abc", false},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("%q of %q: %v", c.pattern, c.text, got)
		}
	}
}
