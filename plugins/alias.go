package plugins

import "quinto/fsm"

// Alias gives paths another meaning for each user, as /buckets/default has. A
// request for such a path needs a user: anonymous ones get 401. Its path is
// kept where an answer repeats it, in a batch; all else comes from what is meant.
type Alias interface {
	// Covers reports whether a path, percent-decoded and below the version prefix, is
	// one. It is asked about every request.
	Covers(path string) bool
	// Resolve says what a covered path means. A *Veto refuses the request. It is asked
	// on any node and must have no effects.
	Resolve(r *AliasRequest) (*AliasTarget, error)
}

// AliasRequest is what an Alias is asked.
type AliasRequest struct {
	Method, Path string
	UserID       string // never empty
}

// AliasTarget is what a path means for a user.
type AliasTarget struct {
	Path string // instead of the request's; no Alias may cover it
	// Ensure names objects that there must be, parents before children. Those that
	// there are not are created, empty and as the user's own, in the transaction of
	// the request, also when that is a GET or is refused in the end. Hooks are asked
	// about them; permission to create is not needed. An id that the kind does not
	// allow makes the request a 400.
	Ensure []fsm.Path
	// A data.id of the request's body that is OldID means NewID; empty: none does.
	OldID, NewID string
	// EmptyBody is what a PUT, PATCH or POST without a body means, as JSON; nil: nothing.
	EmptyBody []byte
}
