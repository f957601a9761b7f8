package command

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quinto/internal/config"
)

// accountsFile writes settings with the accounts plugin.
func accountsFile(t *testing.T, more string) string {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "k.ini")
	if err := config.WriteDefault(ini); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	out := strings.Replace(string(text), "[app:main]\n", "[app:main]\n"+more, 1)
	out = strings.Replace(out, "multiauth.policies = basicauth", "multiauth.policies = account basicauth\n"+
		"multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy", 1)
	if err := os.WriteFile(ini, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return ini
}

func whoIs(t *testing.T, url, name, password string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(name, password)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	_, err = body.ReadFrom(a.Body)
	_ = a.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return body.String()
}

// create-user works on a stopped node and on a running one, and replaces.
func TestCreateUser(t *testing.T) {
	t.Parallel()
	ini := accountsFile(t, "kinto.includes = kinto.plugins.accounts\n")
	dir := filepath.Join(t.TempDir(), "data")
	create := func(want int, input string, args ...string) string {
		t.Helper()
		var out, errs output
		in := bytes.NewBufferString(input)
		code := mainWith(context.Background(), append([]string{"create-user", "--ini", ini, "--data", dir}, args...), in, &out, &errs)
		if code != want {
			t.Errorf("%q %v: exit %d, want %d: %s %s", input, args, code, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	create(0, "", "-u", "offline", "-p", "first")
	p := startProgram(t, "--ini", ini, "--data", dir, "--port", "0")
	create(0, "", "-u", "online", "-p", "second")
	if said := create(0, "not valid\ntyped\nthird\nother\nthird\nthird\n"); !strings.Contains(said, "not a valid username") ||
		!strings.Contains(said, "do not match") || !strings.Contains(said, "Creating user 'typed'") {
		t.Error(said)
	}
	for name, password := range map[string]string{"offline": "first", "online": "second", "typed": "third"} {
		if who := whoIs(t, p.url, name, password); !strings.Contains(who, `"id":"account:`+name+`"`) {
			t.Errorf("%s: %s", name, who)
		}
	}
	create(0, "", "--quiet", "-u", "online", "-p", "changed")
	if who := whoIs(t, p.url, "online", "changed"); !strings.Contains(who, `"id":"account:online"`) {
		t.Error(who)
	}
	if who := whoIs(t, p.url, "online", "second"); strings.Contains(who, `"id":"account:online"`) {
		t.Error("the old password is still good")
	}
	create(exitAborted, "")
	create(exitAborted, "name\npassword\n")
	create(ExitUsage, "", "-u", "long", "-p", strings.Repeat("x", 73))
}

func TestCreateUserExitCodes(t *testing.T) {
	const plugin = "kinto.includes = kinto.plugins.accounts\n"
	for want, lines := range map[int]string{exitReadOnly: plugin + "kinto.readonly = true\n", exitNoPlugin: ""} {
		if code, _, stderr := run(t, "create-user", "--ini", accountsFile(t, lines), "-u", "a", "-p", "b"); code != want || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit %d, want %d: %s", code, want, stderr)
		}
	}
}

// Settings with which Kinto does not start do not start here, with one line that says why.
func TestAccountsStartUpRules(t *testing.T) {
	const plugin = "kinto.includes = kinto.plugins.accounts\n"
	for want, ini := range map[string]string{
		"account_create_principals": accountsFile(t, plugin+"kinto.account_create_principals = account:a\n"),
		"no policy has its class":   replaced(t, accountsFile(t, plugin), "kinto.plugins.accounts.AccountsPolicy", config.BasicAuthPolicy),
		"must not stand before":     replaced(t, accountsFile(t, plugin), "account basicauth", "basicauth account"),
	} {
		code, _, stderr := run(t, "start", "--ini", ini, "--data", filepath.Join(t.TempDir(), "d"), "--port", "0")
		if code == ExitOK || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d: %s", want, code, stderr)
		}
	}
}

func replaced(t *testing.T, file, old, with string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("%v: %q is not in %s", err, old, text)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
