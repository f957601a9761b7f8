package defaultbucket

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"quinto/plugins"
)

const aliceBucket = "3743a024-ec63-ba0e-a9ca-bb508689fb31"

func open(t *testing.T, secret string) *plugin {
	t.Helper()
	p := new(plugin)
	err := p.Provision(context.Background(), plugins.Settings{Log: slog.New(slog.DiscardHandler),
		Lookup: func(name string) (string, bool) { return secret, name == secretSetting && secret != "" }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The ids are those that Kinto 26.5.0 gives: a bucket must be found again after a move.
func TestBucketID(t *testing.T) {
	p := open(t, "s4lt")
	for user, want := range map[string]string{
		"account:alice": aliceBucket,
		"basicauth:8935ff1e054a89cd3435e3477d63ee1e133404c4caff80f020cf1c346202995f": "8f464322-2033-1429-ec35-5ab763a9e6db",
	} {
		if got := BucketID(p.secret, user); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
		info, err := p.UserInfo(context.Background(), user, nil)
		if err != nil || string(info["bucket"]) != `"`+want+`"` {
			t.Errorf("hello: %s %v", info, err)
		}
	}
	if got := BucketID(open(t, "").secret, "account:alice"); got == aliceBucket {
		t.Error("the secret does not count")
	}
}

func TestCovers(t *testing.T) {
	for path, want := range map[string]bool{
		"/buckets/default": true, "/buckets/default/": true, "/buckets/default/collections/c": true, "/buckets/default/nowhere": true,
		"/buckets/defaults": false, "/buckets": false, "/": false, "/buckets/x/collections/default": false, "/buckets/DEFAULT": false,
	} {
		if got := new(plugin).Covers(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestResolve(t *testing.T) {
	p, real := open(t, "s4lt"), "/buckets/"+aliceBucket
	for _, c := range []struct {
		method, path string
		ensure       string
		renames      bool
	}{
		{"GET", "", "[" + real + "]", true},
		{"PUT", "", "[]", true},
		{"PATCH", "", "[" + real + "]", true},
		{"GET", "/collections", "[" + real + "]", false},
		{"POST", "/collections", "[" + real + "]", false},
		{"PUT", "/groups/g", "[" + real + "]", false},
		{"GET", "/collections/c", "[" + real + " " + real + "/collections/c]", false},
		{"PUT", "/collections/c", "[" + real + "]", false},
		{"PUT", "/collections/c/", "[" + real + "]", false},
		{"DELETE", "/collections/c", "[" + real + " " + real + "/collections/c]", false},
		{"GET", "/collections/c/records", "[" + real + " " + real + "/collections/c]", false},
		{"PUT", "/collections/c/records/abc", "[" + real + " " + real + "/collections/c]", false}, // Kinto makes none: the path ends with "c"
		{"GET", "/collections//records", "[" + real + "]", false},
		{"GET", "/history", "[" + real + "]", false},
	} {
		got, err := p.Resolve(&plugins.AliasRequest{Method: c.method, Path: alias + c.path, UserID: "account:alice"})
		if err != nil {
			t.Fatal(err)
		}
		if got.Path != real+c.path || fmt.Sprint(got.Ensure) != c.ensure || (got.OldID == "default" && got.NewID == aliceBucket) != c.renames {
			t.Errorf("%s %s: %+v", c.method, c.path, got)
		}
	}
}
