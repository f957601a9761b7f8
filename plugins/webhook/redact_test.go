package webhook

import (
	"strings"
	"testing"
)

// Secrets are taken out of metadata and of the history of metadata, whether the rest is
// right or not; anything else stays byte for byte.
func TestRedactor(t *testing.T) {
	const data = `{"a":{"secret":1},"quinto":{"webhooks":{"h":{"secret":SECRET"url":"https://a.b/"},"i":{"secret":[1]},"j":7},"x":1}}`
	with := strings.Replace(data, "SECRET", `"whsec_x",`, 1)
	without := strings.NewReplacer(`"secret":SECRET`, "", `"secret":[1]`, "").Replace(data)
	entry := func(kind, data string) string {
		return `{"resource_name":"` + kind + `","target":{"data":` + data + `,"permissions":{}},"uri":"/x"}`
	}
	m := new(Metadata)
	for _, c := range []struct{ kind, data, want string }{
		{"bucket", with, without},
		{"collection", with, without},
		{"bucket", without, without},
		{"bucket", `{}`, `{}`},
		{"bucket", `{"quinto":7}`, `{"quinto":7}`},
		{"bucket", `{"quinto":{"webhooks":[{"secret":"x"}]}}`, `{"quinto":{"webhooks":[{"secret":"x"}]}}`},
		{"history", entry("bucket", with), entry("bucket", without)},
		{"history", entry("collection", with), entry("collection", without)},
		{"history", entry("record", with), entry("record", with)},
		{"history", `{"resource_name":"bucket"}`, `{"resource_name":"bucket"}`},
	} {
		if got := string(m.Redactor(c.kind)([]byte(c.data))); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.data, got, c.want)
		}
	}
	for _, kind := range []string{"record", "group", "account"} {
		if m.Redactor(kind) != nil {
			t.Errorf("a %s", kind)
		}
	}
}
