package openid_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"quinto/cmd/command"
	"quinto/internal/config"
	"quinto/internal/freeport"
	"quinto/plugins"
	_ "quinto/plugins/accounts"
	_ "quinto/plugins/admin"
	_ "quinto/plugins/defaultbucket"
	_ "quinto/plugins/flush"
	_ "quinto/plugins/history"
)

// issuer is a provider whose token endpoint the tests can spoil.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu     sync.Mutex
	nonce  string                                    // of the next ID token
	answer func(w http.ResponseWriter, token string) // nil: as it should
	trades map[string]int                            // by code
	last   url.Values
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, trades: map[string]int{}}
	keys := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: oidc.RS256}}}
	mux := http.NewServeMux()
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	keys.SetIssuer(i.URL)
	mux.Handle("/keys", keys)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[1]s/auth?p=1","token_endpoint":"%[1]s/token","userinfo_endpoint":"%[1]s/me","jwks_uri":"%[1]s/keys"}`, i.URL)
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer good-")
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"sub":%q,"email":"%[1]s@example.org"}`, name)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		i.mu.Lock()
		defer i.mu.Unlock()
		i.trades[r.PostForm.Get("code")]++
		i.last = r.PostForm
		claims, _ := json.Marshal(map[string]any{"iss": i.URL, "aud": "cid", "sub": "bob", "nonce": i.nonce, "exp": time.Now().Add(time.Hour).Unix()})
		token := oidctest.SignIDToken(key, "k", oidc.RS256, string(claims))
		if i.answer != nil {
			i.answer(w, token)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":"good-bob", "id_token":%q}`, token)
	})
	return i
}

const openidINI = `[server:main]
host = 127.0.0.1
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = s3cr3t
kinto.includes = kinto.plugins.openid kinto.plugins.flush kinto.plugins.history
multiauth.policies = idp
multiauth.policy.idp.use = kinto.plugins.openid.OpenIDConnectPolicy
multiauth.policy.idp.issuer = %s
multiauth.policy.idp.client_id = cid
multiauth.policy.idp.client_secret = top
kinto.bucket_create_principals = system.Authenticated
`

// ports returns addresses on which nobody listens.
func ports(t *testing.T, n int) (all []string) {
	t.Helper()
	for range n {
		addr, err := freeport.Addr()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, addr)
	}
	return all
}

// start opens n nodes that serve, and returns their URLs.
func start(t *testing.T, n int, ini string) (urls []string) {
	t.Helper()
	return startIn(t, t.TempDir(), n, ini)
}

// startIn is start with all files below a folder.
func startIn(t *testing.T, root string, n int, ini string) (urls []string) {
	t.Helper()
	path := filepath.Join(root, "quinto.ini")
	if err := os.WriteFile(path, []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	addresses := ports(t, 2*n)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range n {
		flags := map[string]string{"quinto.data_dir": filepath.Join(root, fmt.Sprint("data", i)), config.HostKey: "127.0.0.1", config.PortKey: "0"}
		if n > 1 {
			flags["quinto.cluster"], flags["quinto.gossip"] = addresses[2*i], addresses[2*i+1]
			flags["quinto.expect"], flags["quinto.join"] = fmt.Sprint(n), addresses[1]
		}
		known := plugins.Registered()
		c, err := config.Load(config.Options{Path: path, Flags: flags, Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
		if err != nil {
			t.Fatal(err)
		}
		node, err := command.OpenNode(ctx, command.NodeOptions{Config: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = node.Close() })
		urls = append(urls, strings.TrimSuffix(node.URL(), "/"))
		defer func() {
			if err := node.WaitReady(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	return urls
}

var browser = &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// ask sends a GET, or what else method says, and wants a status; it returns body and Location.
func ask(t *testing.T, want int, method, url, token string) (body, location string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != want {
		t.Errorf("%s %s: %d, want %d: %s", method, url, a.StatusCode, want, text)
	}
	return string(text), a.Header.Get("Location")
}

const loginPath = "/openid/idp/login?callback=http://localhost:3000/%23t=&scope=openid+email"

// begin begins a login and returns state and nonce.
func (i *issuer) begin(t *testing.T, node string) (state string) {
	t.Helper()
	_, to := ask(t, 307, "GET", node+loginPath, "")
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, i.URL+"/auth?p=1&client_id=cid&response_type=code&scope=openid+email&redirect_uri="+url.QueryEscape(node+"/openid/idp/token")+"&state=") {
		t.Fatalf("sent to %q: %v", to, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.nonce = u.Query().Get("nonce")
	if state = u.Query().Get("state"); len(state) != 64 || i.nonce == "" {
		t.Errorf("state %q, nonce %q", state, i.nonce)
	}
	return state
}

// A login that is begun on one node is ended on another, once.
func TestLoginAcrossNodes(t *testing.T) {
	i := newIssuer(t)
	urls := start(t, 3, fmt.Sprintf(openidINI, i.URL))
	for n, from := range urls {
		state, to := i.begin(t, from), urls[(n+1)%3]
		code := fmt.Sprint("code ", n)
		end := to + "/openid/idp/token?code=" + url.QueryEscape(code) + "&state=" + state
		_, location := ask(t, 307, "GET", end, "")
		encoded, ok := strings.CutPrefix(location, "http://localhost:3000/#t=")
		encoded, err := url.PathUnescape(encoded)
		if err != nil || !ok {
			t.Fatalf("sent to %q: %v", location, err)
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		var got struct{ Access_token, Id_token string }
		if err == nil {
			err = json.Unmarshal(raw, &got)
		}
		if err != nil || got.Access_token != "good-bob" || got.Id_token == "" {
			t.Errorf("got %s: %v", raw, err)
		}
		i.mu.Lock()
		if want := (url.Values{"code": {code}, "client_id": {"cid"}, "client_secret": {"top"}, "grant_type": {"authorization_code"},
			"redirect_uri": {to + "/openid/idp/token"}}); fmt.Sprint(i.last) != fmt.Sprint(want) {
			t.Errorf("the provider was asked %v", i.last)
		}
		i.mu.Unlock()
		for _, node := range urls {
			if body, _ := ask(t, 400, "GET", node+"/openid/idp/token?code=again&state="+state, ""); !strings.Contains(body, `"errno":105`) {
				t.Errorf("the state was good twice: %s", body)
			}
			if body, _ := ask(t, 200, "GET", node+"/", got.Access_token); !strings.Contains(body, `"id":"idp:bob"`) ||
				!strings.Contains(body, `"profile":{"sub":"bob","email":"bob@example.org"}`) {
				t.Errorf("hello: %s", body)
			}
		}
		ask(t, 201, "PUT", fmt.Sprint(to, "/buckets/b", n), got.Access_token)
	}
	if i.trades["again"] != 0 {
		t.Error("a code was traded for a state that was used")
	}
	for _, node := range urls {
		ask(t, 401, "GET", node+"/buckets", "bad")
		body, _ := ask(t, 200, "GET", node+"/", "")
		if want := `"openid":{"description":"OpenID connect support.","url":"http://kinto.readthedocs.io/en/stable/api/1.x/authentication.html","providers":[{"name":"idp",` +
			`"issuer":"` + i.URL + `","auth_path":"/openid/idp/login","client_id":"cid","audience":"","header_type":"Bearer","userinfo_endpoint":"` + i.URL + `/me"}]}`; !strings.Contains(body, want) {
			t.Errorf("hello: %s", body)
		}
	}
	// A flush ends what is under way, as it empties Kinto's cache.
	state := i.begin(t, urls[0])
	ask(t, 202, "POST", urls[1]+"/__flush__", "")
	ask(t, 400, "GET", urls[2]+"/openid/idp/token?code=x&state="+state, "")
}

// Two at the same time: one gets the tokens, and the provider sees the code once.
func TestStateIsUsedOnce(t *testing.T) {
	i := newIssuer(t)
	node := start(t, 1, fmt.Sprintf(openidINI, i.URL))[0]
	for n := range 5 {
		state := i.begin(t, node)
		var all sync.WaitGroup
		won := make(chan int, 8)
		for range cap(won) {
			all.Go(func() {
				a, err := browser.Get(node + "/openid/idp/token?state=" + state + fmt.Sprint("&code=c", n))
				if err != nil {
					t.Error(err)
					return
				}
				_ = a.Body.Close()
				won <- a.StatusCode
			})
		}
		all.Wait()
		close(won)
		count := map[int]int{}
		for code := range won {
			count[code]++
		}
		if count[307] != 1 || count[400] != cap(won)-1 || i.trades[fmt.Sprint("c", n)] != 1 {
			t.Errorf("answers %v, %d trades", count, i.trades[fmt.Sprint("c", n)])
		}
	}
}

// Whatever the provider answers, the browser comes back and the server does not fail.
func TestBadTrades(t *testing.T) {
	i := newIssuer(t)
	node := start(t, 1, fmt.Sprintf(openidINI, i.URL))[0]
	sign := func(more string) string {
		return oidctest.SignIDToken(i.key, "k", oidc.RS256, fmt.Sprintf(`{"iss":%q,"sub":"bob","exp":%d,%s}`, i.URL, time.Now().Add(time.Hour).Unix(), more))
	}
	none := func(token string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(token, ".")[1] + "."
	}
	const untrusted, away = "error=server_error&error_description=The+provider%27s+answer+cannot+be+trusted.", "error=temporarily_unavailable&error_description=The+provider+does+not+answer."
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, token string)
		want   string // what follows the callback
	}{
		"wrong nonce": {func(w http.ResponseWriter, _ string) {
			_, _ = fmt.Fprintf(w, `{"id_token":%q}`, sign(`"aud":"cid","nonce":"x"`))
		}, untrusted},
		"no nonce": {func(w http.ResponseWriter, _ string) { _, _ = fmt.Fprintf(w, `{"id_token":%q}`, sign(`"aud":"cid"`)) }, untrusted},
		"wrong audience": {func(w http.ResponseWriter, _ string) {
			_, _ = fmt.Fprintf(w, `{"id_token":%q}`, sign(fmt.Sprintf(`"aud":"x","nonce":%q`, i.nonce)))
		}, untrusted},
		"alg none":    {func(w http.ResponseWriter, token string) { _, _ = fmt.Fprintf(w, `{"id_token":%q}`, none(token)) }, untrusted},
		"no token":    {func(w http.ResponseWriter, _ string) { _, _ = w.Write([]byte(`{"id_token":7}`)) }, untrusted},
		"no ID token": {func(w http.ResponseWriter, _ string) { _, _ = w.Write([]byte(`{"access_token":"x"}`)) }, "eyJhY2Nlc3NfdG9rZW4iOiJ4In0%3D"},
		"its own error": {func(w http.ResponseWriter, _ string) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		}, "eyJlcnJvciI6ImludmFsaWRfZ3JhbnQifQ%3D%3D"},
		"HTML": {func(w http.ResponseWriter, _ string) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>"))
		}, away},
		"nothing": {func(http.ResponseWriter, string) {}, away},
		"too much": {func(w http.ResponseWriter, _ string) {
			_, _ = w.Write([]byte(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`))
		}, away},
		"cut off": {func(w http.ResponseWriter, _ string) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"a`))
		}, away},
		"redirect with the secret": {func(w http.ResponseWriter, _ string) {
			w.Header().Set("Location", "/me")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, away},
	} {
		state := i.begin(t, node)
		i.mu.Lock()
		i.answer = c.answer
		i.mu.Unlock()
		_, location := ask(t, 307, "GET", node+"/openid/idp/token?code=c&state="+state, "")
		if want := "http://localhost:3000/#t=" + c.want; location != want {
			t.Errorf("%s: sent to %q, want %q", name, location, want)
		}
		ask(t, 400, "GET", node+"/openid/idp/token?code=c&state="+state, "") // it is used all the same
	}
	state := i.begin(t, node)
	if _, location := ask(t, 307, "GET", node+"/openid/idp/token?error=access+denied&error_description=a+%26b&state="+state, ""); location != "http://localhost:3000/#t=error=access+denied&error_description=a+%26b" {
		t.Errorf("sent to %q", location)
	}
	i.Close()
	state = i.begin(t, node) // it is known where to log in
	if _, location := ask(t, 307, "GET", node+"/openid/idp/token?code=c&state="+state, ""); location != "http://localhost:3000/#t="+away {
		t.Errorf("sent to %q", location)
	}
	ask(t, 401, "GET", node+"/buckets", "good-new")
}

// What a provider gives reaches the browser and no disk. Of the state, which is kept,
// this shows that it would be found.
func TestTokensAreNotStored(t *testing.T) {
	i := newIssuer(t)
	root := t.TempDir()
	node := startIn(t, root, 1, fmt.Sprintf(openidINI, i.URL)+"kinto.readonly = true\n")[0]
	state := i.begin(t, node) // a readonly server lets users in
	_, location := ask(t, 307, "GET", node+"/openid/idp/token?code=c&state="+state, "")
	_, given, _ := strings.Cut(location, "#t=")
	given, _ = url.PathUnescape(given)
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, needle := range []string{state, given, "good-bob"} {
			found[needle] = found[needle] || bytes.Contains(text, []byte(needle))
		}
		return err
	})
	if err != nil || len(given) < 100 || !found[state] || found[given] || found["good-bob"] {
		t.Errorf("found %v: %v", found, err)
	}
}

func TestStateExpires(t *testing.T) {
	i := newIssuer(t)
	node := start(t, 1, fmt.Sprintf(openidINI, i.URL)+"multiauth.policy.idp.state_ttl_seconds = 1\n")[0]
	state := i.begin(t, node)
	time.Sleep(1100 * time.Millisecond) // what is tested is that time passes
	if body, _ := ask(t, 400, "GET", node+"/openid/idp/token?code=c&state="+state, ""); !strings.Contains(body, "Invalid state") || len(i.trades) > 0 {
		t.Errorf("%s, trades %v", body, i.trades)
	}
}

// A node starts while its provider is away, says what it knows, and goes on when the
// provider is there.
func TestStartWithoutProvider(t *testing.T) {
	i := newIssuer(t)
	i.Close()
	node := start(t, 1, fmt.Sprintf(openidINI, i.URL))[0]
	body, _ := ask(t, 200, "GET", node+"/", "")
	if !strings.Contains(body, `"providers":[{"name":"idp","issuer":"`+i.URL+`","auth_path":"/openid/idp/login"`) {
		t.Errorf("hello: %s", body)
	}
	if _, location := ask(t, 307, "GET", node+loginPath, ""); location != "http://localhost:3000/#t=error=temporarily_unavailable&error_description=The+provider+does+not+answer." {
		t.Errorf("sent to %q", location)
	}
	ask(t, 401, "GET", node+"/buckets", "good-bob")
	ask(t, 200, "GET", node+"/__api__", "")
}

// The file that kinto init writes, with OpenID switched on beside its other plugins,
// starts as it is.
func TestKintoInit(t *testing.T) {
	text, err := os.ReadFile("../../internal/config/testdata/kinto_init.ini")
	if err != nil {
		t.Fatal(err)
	}
	i := newIssuer(t)
	ini := strings.NewReplacer("#                kinto.plugins.history", "                 kinto.plugins.history\n                 kinto.plugins.openid",
		"\nmultiauth.policies = account\n", "\nmultiauth.policies = account auth0\nmultiauth.policy.auth0.use = kinto.plugins.openid.OpenIDConnectPolicy\n"+
			"multiauth.policy.auth0.issuer = "+i.URL+"/\nmultiauth.policy.auth0.client_id = 055edafc\nmultiauth.policy.auth0.client_secret = bc3aff\n"+
			"multiauth.policy.auth0.userid_field = email\n").Replace(string(text))
	node := start(t, 1, ini)[0]
	body, _ := ask(t, 200, "GET", node+"/", "good-eve")
	for _, want := range []string{`"id":"auth0:eve@example.org"`, `"profile":{"sub":"eve"`, `"auth_path":"/openid/auth0/login"`, `"accounts":{`, `"history":{`, `"default_bucket":{`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in hello: %s", want, body)
		}
	}
	ask(t, 201, "PUT", node+"/buckets/default/collections/c/records/r", "good-eve")
}
