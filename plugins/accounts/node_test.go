package accounts_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quinto/cmd/command"
	"quinto/internal/config"
	"quinto/internal/freeport"
	"quinto/plugins"
	"quinto/plugins/accounts"
)

const accountsINI = `[server:main]
host = 127.0.0.1
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = s3cr3t
kinto.includes = kinto.plugins.accounts
kinto.multiauth.policies = account
kinto.multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy
kinto.account_create_principals = system.Everyone
kinto.account_write_principals = account:admin
kinto.account_read_principals = account:admin
quinto.request_timeout_seconds = 120
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
func start(t *testing.T, n int, more string) (urls []string) {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "quinto.ini")
	if err := os.WriteFile(ini, []byte(accountsINI+more), 0o600); err != nil {
		t.Fatal(err)
	}
	addresses := ports(t, 2*n)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range n {
		flags := map[string]string{"quinto.data_dir": t.TempDir(), config.HostKey: "127.0.0.1", config.PortKey: "0"}
		if n > 1 {
			flags["quinto.cluster"], flags["quinto.gossip"] = addresses[2*i], addresses[2*i+1]
			flags["quinto.expect"], flags["quinto.join"] = fmt.Sprint(n), addresses[1]
		}
		known := plugins.Registered()
		c, err := config.Load(config.Options{Path: ini, Flags: flags, Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
		if err != nil {
			t.Fatal(err)
		}
		node, err := command.OpenNode(ctx, command.NodeOptions{Config: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = node.Close() })
		urls = append(urls, node.URL())
		defer func() {
			if err := node.WaitReady(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	return urls
}

// ask sends a request as user ("name:password", or empty) and wants a status.
func ask(t *testing.T, want int, method, url, user, body string) string {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		r.SetBasicAuth(name, password)
	}
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(body, "[") {
		r.Header.Set("Content-Type", "application/json-patch+json")
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != want {
		t.Errorf("%s %s as %q: %d, want %d: %s", method, url, user, a.StatusCode, want, text)
	}
	return string(text)
}

// An account is good at once on every node, whichever made it; a change and the end
// of it hold at once too, although the other nodes remember the old password.
func TestLoginOnEveryNode(t *testing.T) {
	accounts.SkipRaced(t)
	urls := start(t, 3, "")
	who := func(url, user string) bool {
		return strings.Contains(ask(t, 200, "GET", url, user, ""), `"id":"account:bob"`)
	}
	makers := urls
	if testing.Short() {
		makers = urls[:1]
	}
	last := fmt.Sprint("bob:pw", len(makers)-1)
	for i, from := range makers {
		password := fmt.Sprint("pw", i)
		method, user := "PUT", ""
		if i > 0 {
			method, user = "PATCH", fmt.Sprint("bob:pw", i-1)
		}
		ask(t, []int{201, 200, 200}[i], method, from+"accounts/bob", user, `{"data":{"password":"`+password+`"}}`)
		for _, at := range urls {
			if !who(at, "bob:"+password) {
				t.Errorf("made on %s, not good on %s", from, at)
			}
			if i > 0 && who(at, user) {
				t.Errorf("changed on %s, the old one still good on %s", from, at)
			}
		}
	}
	ask(t, 200, "DELETE", urls[0]+"accounts/bob", last, "")
	for _, at := range urls {
		if who(at, last) {
			t.Errorf("deleted, still good on %s", at)
		}
	}
}

// A part of a batch logs in with what an earlier part has made.
func TestBatchUsesItsOwnAccount(t *testing.T) {
	accounts.SkipRaced(t)
	url := start(t, 1, "")[0]
	body := ask(t, 200, "POST", url+"batch", "", `{"requests":[
		{"method":"PUT","path":"/accounts/new","body":{"data":{"password":"pw"}}},
		{"method":"PUT","path":"/buckets/b","headers":{"Authorization":"Basic bmV3OnB3"}},
		{"method":"PATCH","path":"/accounts/new","headers":{"Authorization":"Basic bmV3OnB3"},"body":{"data":{"password":"other"}}},
		{"method":"PUT","path":"/buckets/c","headers":{"Authorization":"Basic bmV3OnB3"}},
		{"path":"/accounts","headers":{"Authorization":"Basic bmV3Om90aGVy"}}]}`)
	if n := strings.Count(body, `"status":20`); n != 4 || !strings.Contains(body, `"status":401`) {
		t.Error(body)
	}
	if strings.Count(body, `$2b$12$`) != 3 {
		t.Error("not three hashes:", body)
	}
	ask(t, 200, "GET", url+"buckets/b", "new:other", "")
}

// The hash is in no answer when it is to be hidden, and cannot be found out.
func TestHiddenHashes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a dozen hashes")
	}
	url := start(t, 1, "quinto.hide_password_hashes = true\n")[0]
	const bob = "bob:pw"
	for _, c := range []struct {
		status                   int
		method, path, user, body string
	}{
		{201, "PUT", "accounts/bob", "", `{"data":{"password":"pw","a":1}}`},
		{200, "GET", "accounts/bob", bob, ""},
		{200, "GET", "accounts", bob, ""},
		{200, "GET", "accounts?_fields=password,a", bob, ""},
		{200, "GET", "accounts/bob?_fields=password,a", bob, ""},
		{200, "POST", "accounts", bob, `{"data":{"id":"bob","password":"pw"}}`},
		{200, "PATCH", "accounts/bob", bob, `{"data":{"b":2}}`},
		{200, "PATCH", "accounts/bob", bob, `[{"op":"add","path":"/data/c","value":3}]`},
		{400, "PATCH", "accounts/bob", bob, `[{"op":"copy","from":"/data/password","path":"/data/d"}]`},
		{200, "POST", "batch", bob, `{"requests":[{"path":"/accounts/bob"},{"path":"/accounts"},{"method":"PATCH","path":"/accounts/bob","body":{"data":{"e":5}}}]}`},
		{200, "PATCH", "accounts/bob", bob, `[{"op":"add","path":"/data/password","value":"pw"}]`},
	} {
		if body := ask(t, c.status, c.method, url+c.path, c.user, c.body); strings.Contains(body, "$2b$") {
			t.Errorf("%s %s: %s", c.method, c.path, body)
		}
	}
	if body := ask(t, 200, "GET", url+"accounts?like_password=2b", bob, ""); body != `{"data":[]}` {
		t.Error("a filter finds the hash:", body)
	}
	if body := ask(t, 200, "GET", url+"accounts/bob", bob, ""); !strings.Contains(body, `"c":3`) {
		t.Error(body)
	}
}

// While strangers try passwords, those who are known, and those who need no
// password, are answered.
func TestFloodLeavesTheNodeAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes dozens of hashes")
	}
	url := start(t, 1, "")[0]
	ask(t, 201, "PUT", url+"accounts/bob", "", `{"data":{"password":"pw"}}`)
	ask(t, 200, "GET", url+"accounts/bob", "bob:pw", "")
	var flooding atomic.Int64
	flooding.Add(80)
	var wg sync.WaitGroup
	statuses := make(chan int, 80)
	for i := range cap(statuses) {
		wg.Go(func() {
			defer flooding.Add(-1)
			r, err := http.NewRequest(http.MethodGet, url, nil)
			if err != nil {
				return
			}
			r.SetBasicAuth(fmt.Sprint("stranger", i), "guess")
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				return
			}
			_ = a.Body.Close()
			if a.StatusCode == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			statuses <- a.StatusCode
		})
	}
	time.Sleep(300 * time.Millisecond)
	ask(t, 200, "GET", url+"accounts/bob", "bob:pw", "")
	ask(t, 200, "GET", url, "", "")
	if flooding.Load() == 0 {
		t.Error("two requests that need no verification were not answered before the flood was over")
	}
	wg.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[503] == 0 || count[200] == 0 || len(count) != 2 {
		t.Errorf("answers %v, want some of 200 and 503", count)
	}
}
