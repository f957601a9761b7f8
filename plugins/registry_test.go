package plugins

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"quinto/fsm"
)

// thing is a plugin whose steps can be seen.
type thing struct {
	steps *[]string
	fail  string
}

func (p *thing) step(name string) error {
	*p.steps = append(*p.steps, name)
	if p.fail == name {
		return errors.New("refused")
	}
	return nil
}

func (p *thing) Provision(_ context.Context, s Settings) error { return p.step("provision " + s.Name) }
func (p *thing) Validate() error                               { return p.step("validate") }
func (p *thing) Close() error                                  { return p.step("close") }
func (p *thing) Observe(*fsm.Event)                            {}

func TestLifeOfAPlugin(t *testing.T) {
	cases := map[string]struct {
		fail string
		want []string
	}{
		"used":                 {"", []string{"provision a", "validate", "close"}},
		"refuses its settings": {"validate", []string{"provision a", "validate", "close"}},
		"cannot be set up":     {"provision a", []string{"provision a", "close"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var steps []string
			r := NewRegistry()
			r.Add(Module{Name: "x.thing", New: func() any { return &thing{steps: &steps, fail: c.fail} }})
			set, err := r.Open(context.Background(), []Settings{{Name: "a", Use: "x.thing"}})
			if (err != nil) != (c.fail != "") {
				t.Fatal(err)
			}
			if err == nil {
				if len(set.Observers) != 1 || len(set.Notifiers) != 0 {
					t.Errorf("set %+v", set)
				}
				if err := set.Close(); err != nil {
					t.Error(err)
				}
			}
			if !slices.Equal(steps, c.want) {
				t.Errorf("steps %v, want %v", steps, c.want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	r := NewRegistry()
	r.Add(Module{Name: "x.nothing", New: func() any { return struct{}{} }})
	if _, err := r.Open(context.Background(), []Settings{{Name: "a", Use: "x.nothing"}}); err == nil {
		t.Error("a plugin without any interface was accepted")
	}
	if _, err := r.Open(context.Background(), []Settings{{Name: "a", Use: "x.other"}}); !errors.Is(err, ErrUnknownModule) {
		t.Errorf("unknown: %v", err)
	}
}

// Registering is loud, since a binary with a mistake there must not start.
func TestRegisterPanics(t *testing.T) {
	ok := func() any { return nil }
	for name, m := range map[string]Module{"empty": {New: ok}, "no constructor": {Name: "y"}, "twice": {Name: "x", New: ok}} {
		t.Run(name, func(t *testing.T) {
			r := NewRegistry()
			r.Add(Module{Name: "x", New: ok})
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			r.Add(m)
		})
	}
}

type hook func(*Change) error

func (h hook) BeforeCommit(_ context.Context, c *Change) error { return h(c) }

func TestRunBefore(t *testing.T) {
	edit := hook(func(c *Change) error { c.New.Data = append([]byte(nil), `{"edited":1}`...); return nil })
	refuse := hook(func(c *Change) error {
		return &Veto{Status: http.StatusConflict, Message: "no " + string(c.New.Data)}
	})
	c := &Change{New: &fsm.Object{Data: []byte(`{}`)}}
	var veto *Veto
	if err := RunBefore(context.Background(), []BeforeCommit{edit, refuse}, c); !errors.As(err, &veto) || veto.Message != `no {"edited":1}` || veto.HTTPStatus() != 409 {
		t.Errorf("veto %v", err)
	}
	bug := hook(func(*Change) error { panic("a bug") })
	if err := RunBefore(context.Background(), []BeforeCommit{bug}, c); err == nil || errors.As(err, &veto) {
		t.Errorf("panic: %v", err)
	}
	if (&Veto{Status: 200}).HTTPStatus() != 403 {
		t.Error("a veto that is no 4xx")
	}
}

func TestLanesAndKinds(t *testing.T) {
	for path, want := range map[fsm.Path][2]string{
		"/buckets/b":                         {"/buckets/b", "bucket"},
		"/buckets/b/groups/g":                {"/buckets/b", "group"},
		"/buckets/b/collections/c":           {"/buckets/b/collections/c", "collection"},
		"/buckets/b/collections/c/records/r": {"/buckets/b/collections/c", "record"},
		"/accounts/a":                        {"/accounts/a", "account"},
		"/buckets/collections/groups/b":      {"/buckets/collections", "group"},
	} {
		if got := [2]string{CollectionLane(&fsm.Event{Path: path}), KindName(path)}; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// Receivers recognise a repeated delivery by its id: it must never change.
func TestDeliveryIDIsStable(t *testing.T) {
	if got := DeliveryID("cluster", "hook", 7); got != "msg_38a1e6aece9888227d2b9a8b7e9d5a29" {
		t.Errorf("id %s", got)
	}
	seen := map[string]bool{}
	for _, id := range []string{DeliveryID("a", "b", 1), DeliveryID("a", "b", 2), DeliveryID("ab", "", 1), DeliveryID("", "ab", 1)} {
		if seen[id] {
			t.Errorf("%s twice", id)
		}
		seen[id] = true
	}
}
