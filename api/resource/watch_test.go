package resource

import (
	"testing"

	"quinto/api/query"
	"quinto/fsm"
)

// Watches share what is equal, and nothing else.
func TestWatchesShareWhatIsEqual(t *testing.T) {
	watch := func(user, credentials, path, q string, groups ...string) *Watch {
		return &Watch{who: &identity{user: user, principals: append([]string{user}, groups...)}, scope: fsm.Path(path), query: &query.Query{},
			request: Request{Path: path, Query: q, Host: "h", Header: Header{"authorization": credentials}}}
	}
	const path = "/buckets/b/collections/c/records"
	had := watch("basicauth:a", "Basic a", path, "x=1", "g")
	for name, c := range map[string]struct {
		w           *Watch
		who, parsed bool
	}{
		"equal":             {watch("basicauth:a", "Basic a", path, "x=1", "g"), true, true},
		"other credentials": {watch("basicauth:a", "Basic b", path, "x=1", "g"), true, true},
		"other groups":      {watch("basicauth:a", "Basic a", path, "x=1"), false, true},
		"other user":        {watch("basicauth:b", "Basic b", path, "x=1", "g"), false, true},
		"other query":       {watch("basicauth:a", "Basic a", path, "x=2", "g"), true, false},
		"other path":        {watch("basicauth:a", "Basic a", "/buckets/b", "x=1", "g"), true, false},
	} {
		before := *c.w
		c.w.Share(had)
		if (c.w.who == had.who) != c.who || (c.w.query == had.query) != c.parsed {
			t.Errorf("%s: identity %v, query %v", name, c.w.who == had.who, c.w.query == had.query)
		}
		if c.w.who.user != before.who.user || c.w.scope != before.scope || c.w.request.Path != before.request.Path || c.w.request.Query != before.request.Query ||
			c.w.request.Header["authorization"] != before.request.Header["authorization"] {
			t.Errorf("%s: it became %+v", name, c.w)
		}
	}
}
