package plugins

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"quinto/fsm"
)

// Change is one write of one object as BeforeCommit sees it, before it is in
// the log.
type Change struct {
	Kind       string        // "bucket", "group", "collection", "record", or a kind of a plugin
	Action     fsm.Action    // create, update, delete
	Path       fsm.Path      // of the object
	Old        *fsm.Object   // what stands there now; nil on create. Read only
	New        *fsm.Object   // what will stand there; nil on delete. A hook may replace New.Data and New.ACL
	UserID     string        // who writes, for example "basicauth:…"; empty: anonymous
	Principals []string      // all principals of the request
	View       fsm.Reader    // the state that the write is decided on; what is read becomes part of the decision
	Now        fsm.Timestamp // the leader's clock, ms
	// Header are the headers of the request by lower-case name; read only.
	Header map[string]string
	// Also adds an operation to the transaction of the change, behind those of the
	// request that makes it. Hooks are not asked about it.
	Also func(op fsm.Op)
	// Memo is what hooks want to remember from one change of a request to the next,
	// while it is decided once: operations of Also are not in View before the request
	// is through. Keys begin with the plugin's name.
	Memo map[string]any
}

// BeforeCommit is asked on the leader about each write, while it is decided.
// It may refuse the write by returning a *Veto, or edit it by replacing
// c.New.Data (a JSON object without id and last_modified) or c.New.ACL: bytes
// are replaced, never changed in place. Any other error fails the request with
// a 500, but *Unavailable a 503, and *Later has slow work done first, with nothing held.
// A write that conflicts with another is decided again, so a hook may
// run more than once for one request and must have no effects of its own.
type BeforeCommit interface {
	BeforeCommit(ctx context.Context, c *Change) error
}

// AskedFirst is a BeforeCommit that is asked before those that are not, whatever the
// order of the settings: it takes out of the data what nobody else is to see.
type AskedFirst interface {
	AskedFirst()
}

// ErrDenied refuses a request for want of permission: with a 401 and its challenges
// when nobody is authenticated, else with a 403.
var ErrDenied = errors.New("plugins: denied")

// MaxWorks bounds the works (see Later) that the hooks of one kind may ask for in one
// request: a hook that wants more must refuse.
const MaxWorks = 100

// Unavailable is the error by which a hook says that it cannot decide now: the
// request is answered with 503, Retry-After and this message, and nothing is written.
type Unavailable struct{ Message string }

// Error implements error.
func (u *Unavailable) Error() string { return u.Message }

// Veto is the error by which a hook refuses a write.
type Veto struct {
	Status  int    // HTTP status, 400 to 499; anything else counts as 403
	Errno   int    // Kinto's errno; 0 lets the API choose the one of the status
	Message string // shown to the client
	Title   string // member "error" of the answer; empty: the status in words
	// Location and Name make it a 400 about one part of the request, as in "body" and
	// "data.id", in the form of Kinto's other ones. Without Name it is about all of it.
	Location, Name string
	// Problems make it a 400 about several parts of the request.
	Problems []Problem
	// Header are further headers of the answer, but for a 400 about parts of the request.
	Header map[string]string
}

// Problem is one thing that is wrong with a request, as the details of Kinto's 400
// list them.
type Problem struct {
	Location, Name, Description string
	Errno                       int // 0: none is told
}

// Error implements error.
func (v *Veto) Error() string { return fmt.Sprintf("refused with %d: %s", v.HTTPStatus(), v.Message) }

// HTTPStatus returns Status, or 403 when it is not a 4xx.
func (v *Veto) HTTPStatus() int {
	if len(v.Problems) > 0 {
		return http.StatusBadRequest
	}
	if v.Status < 400 || v.Status > 499 {
		return http.StatusForbidden
	}
	return v.Status
}

// RunBefore asks the hooks one after the other, each seeing the edits of those
// before it, and returns the first error. A hook that panics is an error, not
// a crash.
func RunBefore(ctx context.Context, hooks []BeforeCommit, c *Change) error {
	for _, h := range hooks {
		if err := runOne(ctx, h, c); err != nil {
			return err
		}
	}
	return nil
}

func runOne(ctx context.Context, h BeforeCommit, c *Change) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("plugins: hook %T panicked: %v", h, p)
		}
	}()
	return h.BeforeCommit(ctx, c)
}

// Observer hears of each change on every node, in order, soon after it was
// applied there. Best effort: what happens before the node has started, or
// while it is far behind, is not told. It must not block.
type Observer interface {
	Observe(e *fsm.Event)
}

// Authenticator tells who sends a request from its Authorization header.
type Authenticator interface {
	// Name prefixes the user ids that it yields, as in "basicauth:".
	Name() string
	// Authenticate returns the user id without prefix, or ok false when the
	// header is not for it or the credentials are wrong. An error means that
	// it could not find out. It reads nothing but r.
	Authenticate(ctx context.Context, authorization string, r fsm.Reader) (userID string, ok bool, err error)
}
