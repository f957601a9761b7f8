package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/internal/config"
	_ "quinto/plugins/history"
)

// An import brings no secret of a webhook that metadata declares: nobody can read it, in
// the object, its event or the history, and the report says so. The same import again
// changes nothing, and a webhook that waits can be given its secret.
func TestImportBringsNoSecretsOfWebhooks(t *testing.T) {
	dir := t.TempDir()
	ini, data := filepath.Join(dir, "k.ini"), filepath.Join(dir, "data")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ini)
	if err == nil {
		text = []byte(strings.Replace(string(text), "[app:main]", "[app:main]\nkinto.includes = quinto.webhooks kinto.plugins.history", 1))
		err = os.WriteFile(ini, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "--ini", ini, "--data", data, "--port", "0")
	const secret = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	hook := func(secret string) string {
		return `{"a":1,"quinto":{"webhooks":{"h":{"url":"https://example.com/x"` + secret + `},"wrong":7}}}`
	}
	with := hook(`,"secret":"` + secret + `"`)
	everyone := `"permissions":{"write":["system.Everyone"]}}` + "\n"
	lines := `{"quinto_export":1,"cluster":"x","revision":1}` + "\n" +
		`{"path":"/buckets/b","last_modified":1700000000000,"data":` + with + `,` + everyone +
		`{"path":"/buckets/b/collections/c","last_modified":1700000000001,"data":` + strings.Replace(with, "secret\"", `s\u0065cret"`, 1) + `,` + everyone +
		`{"path":"/buckets/b/collections/c/records/r","last_modified":1700000000002,"data":{"a":1},` + everyone +
		`{"path":"/buckets/b/history/e1","last_modified":1700000000003,"data":{"action":"create","resource_name":"collection","uri":"/buckets/b/collections/c","collection_id":"c",` +
		`"user_id":"x","date":"2023","timestamp":1700000000001,"target":{"data":` + with + `,"permissions":{}}},` + everyone + `{"end":true,"items":4}` + "\n"
	from := filepath.Join(dir, "export")
	if err := os.WriteFile(from, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"4 written", "0 written, 4 unchanged"} {
		code, out, stderr := run(t, "import", "--ini", ini, "--data", data, "--from", from, "-q")
		if code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "left out: secrets in the data of 3 objects") {
			t.Fatalf("exit %d: %s %s", code, out, stderr)
		}
	}
	for _, path := range []string{"buckets/b", "buckets/b/collections/c", "buckets/b/collections", "buckets/b/history", "changes"} {
		if _, answer := send(t, "GET", p.url+path, ""); strings.Contains(answer, "whsec_") || !strings.Contains(answer, "https://example.com/x") && path != "changes" {
			t.Errorf("%s: %s", path, answer)
		}
	}
	if code, out, stderr := run(t, "export", "--ini", ini, "--data", data); code != 0 || strings.Contains(out, "whsec_") {
		t.Errorf("exit %d: %s %s", code, out, stderr)
	}
	given := strings.Replace(with, `,"wrong":7`, "", 1)
	if _, answer := send(t, "PUT", p.url+"buckets/b", `{"data":`+given+`}`); strings.Contains(answer, "whsec_") || !strings.Contains(answer, "https://example.com/x") {
		t.Error(answer)
	}
	if code, out, stderr := run(t, "hooks", "list", "--ini", ini, "--data", data); code != 0 || strings.Count(out, "\"h\" of /buckets/b,") != 1 {
		t.Errorf("exit %d: %s %s", code, out, stderr)
	}
}
