package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"quinto/fsm"
	"quinto/plugins"
)

// settings makes what a plugin is given of a file's lines.
func settings(lines map[string]string) plugins.Settings {
	return plugins.Settings{Lookup: func(name string) (string, bool) { text, ok := lines[name]; return text, ok }}
}

func TestHashesAreKintos(t *testing.T) {
	SkipRaced(t)
	// Made by Kinto 26.5 on bcrypt 5.0.
	for hash, password := range map[string]string{
		"$2b$12$dKU66byrEan3/Ik.wEoL7ewbFaGRVfTVW.fJPWB9VJYz8aK1jqW7K": "pw",
		"$2b$12$RXNrb3Ind1rbh.sOH3f70uwA5xYtObEPgTV9lsfpe3PztYJAepOmC": "a\x00b",
	} {
		if !matches(hash, password) || matches(hash, password+"x") {
			t.Errorf("%s: password %q", hash, password)
		}
	}
	hash, err := hashPassword("pw")
	if err != nil || !strings.HasPrefix(hash, "$2b$12$") || len(hash) != 60 || !matches(hash, "pw") {
		t.Errorf("%q %v", hash, err)
	}
	if cost, err := bcrypt.Cost([]byte(absentHash)); cost != hashCost || err != nil || len(absentHash) != 60 {
		t.Errorf("the hash of nobody has cost %d, length %d: %v", cost, len(absentHash), err)
	}
}

// The hash of nobody is one that bcrypt works through and finds different: were it
// malformed, an unknown name would be refused at once. TestPolicy counts the work.
func TestTheHashOfNobodyIsWorkedThrough(t *testing.T) {
	SkipRaced(t)
	if err := bcrypt.CompareHashAndPassword([]byte(absentHash), []byte("another")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Error(err)
	}
}

// Files that real Kinto refuses are refused, with one line.
func TestStartUpRules(t *testing.T) {
	const class = "kinto.plugins.accounts.AccountsPolicy"
	for name, c := range map[string]struct {
		lines map[string]string
		want  string
	}{
		"fine":     {map[string]string{"multiauth.policies": "account", "multiauth.policy.account.use": class}, ""},
		"by name":  {map[string]string{"multiauth.policies": "basicauth mine", "multiauth.policy.mine.use": class}, "basicauth must not stand before mine"},
		"behind":   {map[string]string{"multiauth.policies": "mine basicauth", "multiauth.policy.mine.use": class}, ""},
		"missing":  {map[string]string{"multiauth.policies": "basicauth"}, "no policy has its class"},
		"unlisted": {map[string]string{"multiauth.policies": "basicauth", "multiauth.policy.account.use": class}, ""},
		"helpless": {map[string]string{"multiauth.policies": "account", "multiauth.policy.account.use": class,
			"account_create_principals": "system.Everyone account:a\naccount:b", "account_write_principals": "account:b"}, "account_create_principals has account:a,"},
		"flag": {map[string]string{"multiauth.policies": "account", "multiauth.policy.account.use": class, "quinto.hide_password_hashes": "maybe"},
			"quinto.hide_password_hashes"},
	} {
		a := new(Accounts)
		err := a.Provision(context.Background(), settings(c.lines))
		if err == nil {
			err = a.Validate()
		}
		if fmt.Sprint(err) == "<nil>" != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// state is a reader in which objects stand.
type state struct {
	fsm.Reader
	objects map[fsm.Path]string
}

func (s state) Get(p fsm.Path) (fsm.Object, error) {
	data, ok := s.objects[p]
	if !ok {
		return fsm.Object{}, nil
	}
	return fsm.Object{Path: p, Revision: 1, Data: []byte(data)}, nil
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// login authenticates as the server does, and counts the verifications.
func login(t *testing.T, p *Policy, header string, r fsm.Reader) (user string, ok bool, work int) {
	t.Helper()
	ctx := plugins.WithMemo(context.Background())
	for {
		user, ok, err := p.Authenticate(ctx, header, r)
		var later *plugins.Later
		if !errors.As(err, &later) {
			if err != nil {
				t.Fatal(err)
			}
			return user, ok, work
		}
		if work++; work > 1 {
			t.Fatal("asks for the same work again")
		}
		if err := later.Work(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPolicy(t *testing.T) {
	cheap := func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return `{"password":"` + string(hash) + `"}`
	}
	now := time.Unix(1000, 0)
	p := new(Policy)
	if err := p.Provision(context.Background(), settings(nil)); err != nil {
		t.Fatal(err)
	}
	p.verifier.clock = func() time.Time { return now }
	s := state{objects: map[fsm.Path]string{"/accounts/bob": cheap("pw"), "/accounts/odd": `{"password":5}`}}
	for i, c := range []struct {
		user, password string
		ok             bool
		work           int
		wait           time.Duration
	}{
		{"bob", "pw", true, 1, 0},
		{"bob", "pw", true, 0, 29 * time.Second},
		{"bob", "pw", true, 0, 29 * time.Second}, // kept by use
		{"bob", "no", false, 1, 0},
		{"bob", "no", false, 0, 0},
		{"bob", "", false, 1, 0},
		{"nobody", "pw", false, 1, 0},
		{"nobody", "pw", false, 0, 0},
		{"nobody", "", false, 1, 0},
		{"../accounts/bob", "pw", false, 1, 0},
		{"odd", "5", false, 1, 0},
		{"bob", "pw", true, 1, 31 * time.Second},
		{"", "pw", false, 0, 0},
	} {
		now = now.Add(c.wait)
		user, ok, work := login(t, p, basic(c.user, c.password), s)
		if ok != c.ok || ok && user != c.user || work != c.work {
			t.Errorf("%d: %s:%s is %q %v after %d verifications, want %v after %d", i, c.user, c.password, user, ok, work, c.ok, c.work)
		}
	}
	s.objects["/accounts/bob"] = cheap("new") // by any node
	if _, ok, _ := login(t, p, basic("bob", "pw"), s); ok {
		t.Error("the old password is good after a change")
	}
	if _, ok, _ := login(t, p, basic("bob", "new"), s); !ok {
		t.Error("the new password is not good at once")
	}
	delete(s.objects, "/accounts/bob")
	if _, ok, _ := login(t, p, basic("bob", "new"), s); ok {
		t.Error("a deleted account is good")
	}
	if _, ok, work := login(t, p, "Bearer abc", s); ok || work > 0 {
		t.Error("another scheme")
	}
}

func TestNothingIsKeptWithoutTime(t *testing.T) {
	v := newVerifier(0)
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	pair := v.pairOf("a", string(hash), "pw")
	ctx := plugins.WithMemo(context.Background())
	if err := v.verify(ctx, pair, string(hash), "pw"); err != nil {
		t.Fatal(err)
	}
	if match, ok := v.known(ctx, pair); !match || !ok {
		t.Error("the request itself does not know")
	}
	if _, ok := v.known(context.Background(), pair); ok {
		t.Error("others know")
	}
}

func TestVerifiedPairsAreBounded(t *testing.T) {
	var r recent
	now := time.Unix(0, 0)
	for i := range maxVerified + 10 {
		r.add(pair{byte(i), byte(i >> 8)}, now.Add(time.Minute))
		r.use(pair{0, 0}, now, time.Minute)
	}
	if len(r.places) != maxVerified || r.order.Len() != maxVerified {
		t.Errorf("%d pairs", len(r.places))
	}
	if !r.use(pair{0, 0}, now, time.Minute) || r.use(pair{1, 0}, now, time.Minute) {
		t.Error("not the least recently used was forgotten")
	}
}

// A flood waits in a short queue and is told to come again; it does not take more
// than its share of the processors.
func TestFloodIsTurnedAway(t *testing.T) {
	g := newGate()
	hold := make(chan struct{})
	var running, most, turnedAway atomic.Int64
	var wg sync.WaitGroup
	for range cap(g.slots) + maxHashQueue + 20 {
		wg.Go(func() {
			err := g.do(context.Background(), func() {
				n := running.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				<-hold
				running.Add(-1)
			})
			if errors.Is(err, fsm.ErrOverloaded) && turnedAway.Add(1) == 20 {
				close(hold)
			}
		})
	}
	wg.Wait()
	if turnedAway.Load() != 20 || most.Load() > int64(cap(g.slots)) || g.waiting.Load() != 0 {
		t.Errorf("%d turned away, %d at once, %d still wait", turnedAway.Load(), most.Load(), g.waiting.Load())
	}
	g.slots = make(chan struct{}) // nobody's turn ever comes
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := g.do(ctx, func() {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// Many requests with the same credentials cost one verification.
func TestOneVerificationForMany(t *testing.T) {
	v := newVerifier(time.Minute)
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), 10)
	if err != nil {
		t.Fatal(err)
	}
	pair := v.pairOf("a", string(hash), "pw")
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 200 { // more than may wait
		wg.Go(func() {
			ctx := plugins.WithMemo(context.Background())
			if v.verify(ctx, pair, string(hash), "pw") != nil {
				failed.Add(1)
			} else if match, _ := v.known(ctx, pair); !match {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of 200 failed", failed.Load())
	}
}

func TestIDs(t *testing.T) {
	for id, want := range map[string]bool{"bob": true, "b+o.b@x_y-z": true, "1": true, "": false, "@b": false, "b b": false, "b/c": false, "é": false,
		"b\x00": false, strings.Repeat("a", maxNameBytes): true, strings.Repeat("a", maxNameBytes+1): false} {
		if validID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}

func TestCheck(t *testing.T) {
	for data, want := range map[string]string{
		`{"password":"x"}`: "", `{}`: "Required", `{"password":null}`: "Required", `{"password":""}`: "Required", `{"password":0}`: "Required",
		`{"password":false}`: "Required", `{"password":{}}`: "Required", `{"password":[]}`: "Required",
		`{"password":12}`: "12 is not a string: {'password': ''}", `{"password":true}`: "True is not a string: {'password': ''}",
		`{"password":["a"]}`: "['a'] is not a string: {'password': ''}",
	} {
		_, flaws := check([]byte(data))
		if got := fmt.Sprint(flaws); want == "" && flaws != nil || want != "" && got != "[{password "+want+"}]" {
			t.Errorf("%s: %s", data, got)
		}
	}
}
