package mail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// The refusals of kinto_emailer._validate_emailer_settings, and those of what it
// notices too late.
func TestValidation(t *testing.T) {
	good := `"template":"x","recipients":["a@b.c"]`
	many := strings.TrimSuffix(strings.Repeat(`"a@b.c",`, MaxAddresses+1), ",")
	for data, want := range map[string]string{
		`{"a":1}`:                                 "",
		hooks(`{` + good + `}`):                   "",
		hooks(``):                                 "",
		`{"kinto-emailer":{}}`:                    `Missing "hooks".`,
		hooks(`{"recipients":[]}`):                `Missing "template".`,
		hooks(`{"template":"x"}`):                 "Empty list of recipients.",
		hooks(`{"template":"x","recipients":[]}`): "Empty list of recipients.",
		hooks(`{"template":"x","recipients":["<a@b.c>","A B <a@b.c>","/buckets/b/groups/g"]}`): "",
		hooks(`{"template":"x","recipients":["a","a@b.c","b@"]}`):                              "Invalid recipients a, b@",
		hooks(`{"template":"x","recipients":["/buckets/b/collections/c"]}`):                    "Invalid recipients /buckets/b/collections/c",
		hooks(`{"template":"x","recipients":["/buckets/x/groups/g","/buckets/b2/groups/g"]}`):  "Invalid bucket for groups /buckets/x/groups/g, /buckets/b2/groups/g",
		hooks(`{"template":"x","recipients":["a <a@b.c>\r\nBcc: d@e.f"]}`):                     "Invalid recipients a <a@b.c>\r\nBcc: d@e.f",
		hooks(`{"template":"x","recipients":"a@b.c"}`):                                         "Invalid recipients: a list of texts is needed.",
		hooks(`{"template":"x","recipients":[` + many + `]}`):                                  fmt.Sprintf("Too many recipients: up to %d are allowed.", MaxAddresses),
		hooks(`{` + good + `,"sender":"A <a@b.c>\n"}`):                                         "Invalid sender A <a@b.c>\n",
		hooks(`{` + good + `,"sender":null}`):                                                  "",
		hooks(`{` + good + `,"id":"^(?!x$)"}`):                                                 "",
		hooks(`{` + good + `,"id":"^("}`):                                                      `Invalid "id": a text or a regular expression of up to 900 bytes is needed.`,
		hooks(`{` + good + `,"action":["create"]}`):                                            `Invalid "action": a text or a regular expression of up to 900 bytes is needed.`,
		hooks(`{"template":1,"recipients":["a@b.c"]}`):                                         `Invalid "template": a text of up to 65536 bytes is needed.`,
		`{"kinto-emailer":{"hooks":{}}}`:                                                       `Invalid "hooks": a list is needed.`,
		hooks(strings.TrimSuffix(strings.Repeat(`{`+good+`},`, MaxHooks+1), ",")):              `Invalid "hooks": up to 100 are allowed.`,
		hooks(`"x"`): `Invalid "hooks": a list of objects is needed.`,
	} {
		m := load(t, nil)
		for kind, path := range map[string]fsm.Path{"bucket": "/buckets/b", "collection": "/buckets/b/collections/c", "record": "/buckets/b/collections/c/records/r"} {
			err := m.BeforeCommit(context.Background(), &plugins.Change{Kind: kind, Path: path, New: &fsm.Object{Path: path, Data: []byte(data)}})
			var veto *plugins.Veto
			got := ""
			if errors.As(err, &veto) {
				got = veto.Message
			}
			if refused := kind != "record" && want != ""; (err != nil) != refused || (refused && (got != want || veto.Status != 400 || veto.Location != "body")) {
				t.Errorf("%s %s: %v, want %q", kind, data, err, want)
			}
		}
	}
}

// Which events a hook is about.
func TestFilters(t *testing.T) {
	collection := fsm.Path("/buckets/b/collections/c")
	deleted := func() *plugins.Delivery {
		return &plugins.Delivery{ID: "msg_2", Event: &fsm.Event{Revision: 9, Action: fsm.ActionDelete, Path: collection}}
	}
	for filter, want := range map[string][2]bool{ // of the record's creation, of the collection's deletion
		``:                              {true, true},
		`,"resource_name":"record"`:     {true, false},
		`,"resource_name":"collection"`: {false, true},
		`,"action":"create"`:            {true, false},
		`,"action":"updated"`:           {false, false},
		`,"id":"r"`:                     {true, false},
		`,"record_id":"r"`:              {true, false},
		`,"collection_id":"c"`:          {true, true},
		`,"id":"^[a-f]"`:                {false, true},
		`,"collection_id":"^(?!c$)"`:    {false, false},
		`,"collection_id":"^(?P<x>c)"`:  {true, true},
		`,"id":"^x|r"`:                  {true, false},
		`,"event":"kinto.core.events.ResourceChanged"`:                   {true, true},
		`,"event":"kinto.core.events.AfterResourceChanged"`:              {true, true},
		`,"event":"kinto_remote_settings.signer.events.ReviewRequested"`: {false, false},
		`,"collection_id":"^(c+)+$","id":"^r"`:                           {true, false},
	} {
		m := load(t, map[string]string{"mail.default_sender": "a@b.c"})
		meta := hooks(`{"template":"x","recipients":["a@b.c"]` + filter + `}`)
		d := deleted()
		d.Old = &fsm.Object{Path: collection, Revision: 1, Data: []byte(meta)}
		got := [2]bool{len(look(t, m, state{objects: map[fsm.Path]string{collection: meta}}, recordCreated())) == 1, len(look(t, m, state{}, d)) == 1}
		if got != want {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
}

// The collection's hooks stand in place of the bucket's, also when there are none.
func TestInheritance(t *testing.T) {
	m := load(t, map[string]string{"mail.default_sender": "a@b.c"})
	bucket := hooks(`{"template":"bucket","recipients":["a@b.c"]}`)
	for collection, want := range map[string]int{`{}`: 1, hooks(``): 0, hooks(`{"template":"1","recipients":["a@b.c"]},{"template":"2","recipients":["a@b.c"]}`): 2} {
		got := look(t, m, state{objects: map[fsm.Path]string{"/buckets/b": bucket, "/buckets/b/collections/c": collection}}, recordCreated())
		if len(got) != want || (len(got) == 2 && got[0].id == got[1].id) {
			t.Errorf("%s: %+v", collection, got)
		}
	}
	if got := look(t, m, state{}, recordCreated()); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestTooManyRecipients(t *testing.T) {
	m := load(t, nil)
	var members []string
	for i := range MaxRecipients + 1 {
		members = append(members, fmt.Sprintf(`"ldap:u%d@b.c"`, i))
	}
	_, err := m.Look(state{objects: map[fsm.Path]string{
		"/buckets/b/collections/c": hooks(`{"template":"x","recipients":["/buckets/b/groups/g"]}`),
		"/buckets/b/groups/g":      `{"members":[` + strings.Join(members, ",") + `]}`,
	}}, recordCreated())
	if !plugins.IsPermanent(err) {
		t.Error(err)
	}
}

func TestNoSender(t *testing.T) {
	d := recordCreated()
	m := load(t, nil)
	look(t, m, state{objects: map[fsm.Path]string{"/buckets/b": hooks(`{"template":"x","recipients":["a@b.c"]}`), "/buckets/b/collections/c": "{}"}}, d)
	if err := m.Deliver(context.Background(), *d); !plugins.IsPermanent(err) {
		t.Error(err)
	}
}

// As Python's str.format, and no template is an error.
func TestFormat(t *testing.T) {
	values := map[string]canon.Value{"a": []byte(`"x"`), "n": []byte(`null`), "l": []byte(`[1,{"b":"y"}]`)}
	for text, want := range map[string]string{
		"": "", "{a}": "x", "{{a}}": "{a}", "{{{a}}}": "{x}", "{n}": "None", "{l[1][b]} {l[0]}": "y 1", "{l}": "[1, {'b': 'y'}]",
		"{l[2]} {l[x]} {a[0]} {b} {a.b} {a[} {l[0]x}": "{l[2]} {l[x]} {a[0]} {b} {a.b} {a[} {l[0]x}", "{": "{", "}": "}", "{a": "{a", "a}b": "a}b", "{a[}": "{a[}",
	} {
		if got := format(text, values, 1000); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := format(strings.Repeat("é", 100), values, 5); got != "éé" {
		t.Errorf("bounded: %q", got)
	}
}

func TestBadSettings(t *testing.T) {
	for name, value := range map[string]string{"mail.port": "0", "mail.tls": "maybe", "mail.ssl": "x", "mail.debug_mailer": "true", "mail.queue_path": "/x",
		"mail.default_sender": "nobody", "mail.cafile": "/nowhere", "mail.certfile": "/nowhere"} {
		if _, err := tryLoad(map[string]string{name: value, "mail.password": "geheim"}); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pattern that takes too long loses no mail in silence: the change is tried again, and
// becomes a dead letter that names the pattern. Other filters that say no still do.
func TestSlowPattern(t *testing.T) {
	collection := fsm.Path("/buckets/b/collections/" + strings.Repeat("c", 40))
	record := collection.Child("records").Child("r")
	change := func(attempt int) *plugins.Delivery {
		return &plugins.Delivery{ID: "msg_1", Notifier: Name, Attempt: attempt, New: &fsm.Object{Path: record, Revision: 7, Data: []byte(`{}`)},
			Event: &fsm.Event{Revision: 7, Action: fsm.ActionCreate, Path: record}}
	}
	m := load(t, map[string]string{"mail.default_sender": "a@b.c"})
	slow := `{"template":"x","recipients":["a@b.c"],"collection_id":"^((c+)+)+d"`
	s := state{objects: map[fsm.Path]string{collection: hooks(slow + `}`)}}
	for attempt := 1; attempt <= patternAttempts; attempt++ {
		d := change(attempt)
		look(t, m, s, d)
		err := m.Deliver(context.Background(), *d)
		if !errors.Is(err, errPattern) || !strings.Contains(err.Error(), "collection_id") || plugins.IsPermanent(err) != (attempt == patternAttempts) {
			t.Errorf("attempt %d: %v", attempt, err)
		}
	}
	s.objects[collection] = hooks(slow + `,"id":"other","action":"create"}`)
	d := change(1)
	look(t, m, s, d)
	if err := m.Deliver(context.Background(), *d); err != nil {
		t.Error(err)
	}
}
