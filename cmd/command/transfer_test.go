package command

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quinto/internal/config"
)

// An import tells no event listener, unless it is asked to; what is written
// afterwards is told.
func TestImportTellsListenersOnlyWhenAsked(t *testing.T) {
	dir := t.TempDir()
	told := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := make([]byte, 64<<10)
		n, _ := r.Body.Read(body)
		told <- string(body[:n])
	}))
	t.Cleanup(hook.Close)
	ini := filepath.Join(dir, "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ini)
	if err == nil {
		text = []byte(strings.Replace(string(text), "[app:main]", "[app:main]\nkinto.event_listeners = hook\nkinto.event_listeners.hook.use = quinto.webhook\n"+
			"kinto.event_listeners.hook.secret = whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\nkinto.event_listeners.hook.url = "+hook.URL, 1))
		err = os.WriteFile(ini, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "--ini", ini, "--data", filepath.Join(dir, "data"), "--port", "0")
	for registered := false; !registered; { // what was written before, it is not told
		send(t, "PUT", p.url+"buckets/first", "")
		select {
		case <-told:
			registered = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	for i, one := range []struct{ bucket, flag string }{{"quiet", "-q"}, {"loud", "--notify"}} {
		from := filepath.Join(dir, one.bucket)
		lines := `{"quinto_export":1,"cluster":"x","revision":1}` + "\n" +
			`{"path":"/buckets/` + one.bucket + `","last_modified":1700000000000,"data":{},"permissions":{}}` + "\n" + `{"end":true,"items":1}` + "\n"
		if err := os.WriteFile(from, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		// It says that there is more here than in the source.
		if code, out, stderr := run(t, "import", "--ini", ini, "--data", filepath.Join(dir, "data"), "--from", from, one.flag); code != ExitFailure || !strings.Contains(out, "1 written") {
			t.Fatalf("exit %d: %s %s", code, out, stderr)
		}
		if i == 0 {
			send(t, "PUT", p.url+"buckets/after", "")
			awaitTold(t, told, "/buckets/after")
		}
	}
	awaitTold(t, told, "/buckets/loud")
}

// awaitTold fails unless the next that the listener is told is of this object.
func awaitTold(t *testing.T, told <-chan string, path string) {
	t.Helper()
	for {
		select {
		case got := <-told:
			if strings.Contains(got, `"/buckets/first"`) {
				continue
			}
			if !strings.Contains(got, `"`+path+`"`) {
				t.Errorf("told of %s, not of %s", got, path)
			}
		case <-time.After(time.Minute):
			t.Errorf("not told of %s", path)
		}
		return
	}
}
