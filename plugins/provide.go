package plugins

import (
	"context"

	"quinto/fsm"
)

// Grant is one way to be allowed an action: a permission on the object itself or
// on an ancestor, named by its kind.
type Grant struct{ Kind, Permission string }

// Flaw is one thing that is wrong with an object's data.
type Flaw struct{ Name, Description string }

// Kind describes a further kind of object: one row of the table of resources.
type Kind struct {
	Name        string   // "account"
	Plural      string   // "accounts": the segment of the URI
	Parent      string   // name of the kind that owns it; empty: a root list
	NeedsParent bool     // 404 when the parent does not exist
	Permissions []string // that may be set on it, as in "read", "write"
	// Grants says by what each action on an object is allowed: "read", "write",
	// "read:attributes" (GET of the object; "read" when absent) and "<child>:create".
	// Nil: by read and write on the object itself.
	Grants   map[string][]Grant
	Children []string          // plural names of the lists below an object
	NewID    func() string     // makes the id of a POST without one; nil: eight characters
	ValidID  func(string) bool // nil: Kinto's rule for names
	// ListMethods and ObjectMethods are those that exist, in the order of the Allow
	// header, which adds OPTIONS; nil: all. With no methods at all an object has no
	// address.
	ListMethods, ObjectMethods []string
	// Fields are those that a query may name; nil: any.
	Fields []string
	// TextFields hold texts only: a filter's number is compared as a text.
	TextFields []string
	// PlainHead makes HEAD of a list the GET without its body; otherwise it counts.
	PlainHead bool
	// Show makes the data of an object as clients and queries see it, a canonical JSON
	// object without id and last_modified; nil shows what is stored. Unless whole is
	// set, the field Late, which is dear to find out, may be left out.
	Show func(r fsm.Reader, o *fsm.Object, whole bool) ([]byte, error)
	Late string
	// Doc tells of the data in the API document.
	Doc KindDoc
	// Check validates and completes the data of a PUT or POST, or the merged data of
	// a PATCH: a JSON object without white space, maybe with id and last_modified. It
	// returns the data to store and what is wrong, with names relative to the data.
	// nil accepts every JSON object.
	Check func(data []byte) ([]byte, []Flaw)
	// NeedsData refuses a PUT or POST without data.
	NeedsData bool
	// Scope says which objects of a root list exist for a request; nil: all. A *Veto
	// refuses the request: a write before its permissions are looked at, a read after.
	Scope func(r *ScopeRequest) (Scope, error)
	// Complete has the last word on the data that a write stores, after Check and
	// before the hooks. It may refuse with a *Veto, or ask for time with a *Later. It
	// may run more than once for one request.
	Complete func(ctx context.Context, d *Draft) ([]byte, error)
	// Hidden are fields that are stored and never shown: no answer has them, no filter
	// finds them, and no notifier gets them. Hooks, observers and the log have them.
	Hidden []string
}

// ScopeRequest is what the Scope of a Kind is asked.
type ScopeRequest struct {
	Method     string
	UserID     string // with its prefix; empty: anonymous
	Principals []string
	Named      bool   // the URL, or data.id of a POST, names an object
	ID         string // of that object
}

// Scope is what exists for a request.
type Scope struct {
	All       bool   // all objects
	ID        string // else this one alone
	Principal string // gets the write permission of what the request writes; empty: the user
}

// Draft is data that is about to be stored.
type Draft struct {
	Method string
	ID     string // empty for a POST that names none
	Scope  Scope
	Sent   []byte // the data as it was sent, "{}" without; nil for a JSON patch
	Old    []byte // what is stored; nil on create
	New    []byte // without id and last_modified
}

// KindDoc tells of the data of a kind in the API document.
type KindDoc struct {
	Properties string   // a JSON object of schemas by name; empty: none is told
	Required   []string // that a client must give
	Closed     bool     // there are no other properties
	Label      string   // what tags and operations are called after; empty: the plural
	Param      string   // of the object's id in the path; empty: "id"
}

// Secured is an Authenticator that says in the API document what it wants.
type Secured interface {
	// Security is a security definition of Swagger 2.0, as in {"type":"basic"}.
	Security() string
}

// Doc describes a route in the API document, in the terms of Swagger 2.0.
type Doc struct {
	ID         string   // operationId; empty: of method and Name, as in "create_flush"
	Tag        string   // empty: Name with a capital
	Path       string   // as a template; empty: Route.Path with its names in braces
	Open       bool     // needs no user
	Consumes   []string // media types of the body; nil: none
	Parameters []string // JSON objects
	Responses  string   // a JSON object by status; empty: nothing is told. Refusals have the schema of every error
}

// KindProvider adds kinds of objects.
type KindProvider interface {
	Kinds() []Kind
}

// Prefixes of the names of replicated settings that are what Kinto has in its
// cache: a flush of the server takes them along, and so may anybody at any time.
// A plugin that keeps such rows puts its own name behind CachePrefix.
const (
	CachePrefix = "cache/"
	NoncePrefix = "nonce/" // page tokens of deletions
)

// Capability is something a client can ask for, as the hello view lists it.
type Capability struct {
	Name string // the key, for example "basicauth"
	Body string // a JSON object: description, url and more
}

// CapabilityProvider adds capabilities to the hello view. It is asked for each one.
type CapabilityProvider interface {
	Capabilities() []Capability
}

// Preparer is a CapabilityProvider that has to ask somebody else before it can tell
// its capabilities.
type Preparer interface {
	// Prepare returns a *Later when slow work has to be done before Capabilities is
	// asked, and nil otherwise. Any other error fails the request for the hello view.
	Prepare(ctx context.Context) error
}

// UserInfo adds members to "user" of the hello view, by name, as JSON.
type UserInfo interface {
	UserInfo(ctx context.Context, userID string, r fsm.Reader) (map[string][]byte, error)
}

// Route is an endpoint outside the table of resources. It has either Handle or Plan.
type Route struct {
	Method string // "GET", which serves HEAD too
	// Path is below the version prefix, as in "/attachments/:id"; a last segment
	// "*name" takes the rest of a path, also an empty one.
	Path string
	// Name is Kinto's for the endpoint, as measurements call it: "flush". Empty: Path.
	Name string
	// Doc describes it in the API document; nil: it is not shown there.
	Doc *Doc
	// Listing: it answers as a list of objects does, with ETag, Next-Page and their kin,
	// which it exposes to the scripts of other sites.
	Listing bool
	// Local answers from this node's own state, also while no leader is known.
	Local bool
	// Handle answers on the node that got the request. It must not write.
	Handle func(ctx context.Context, r *RouteRequest) *RouteResponse
	// Plan decides on the leader what to write and what to answer; it may be asked
	// twice about one request and must have no effects of its own. What it reads
	// with Get and Groups becomes part of the decision. A *Veto refuses the request, a
	// *Later has slow work done before it is asked again.
	Plan func(ctx context.Context, r *RouteRequest) (*RoutePlan, error)
}

// RouteRequest is what a Route is asked. It owns its bytes.
type RouteRequest struct {
	Method, Path, Query string
	Base                string            // absolute URL of the version prefix, as in "http://host/v1"
	Params              map[string]string // of the ":name" segments of the Route
	Header              map[string]string // lower-case names
	Body                []byte
	UserID              string
	Principals          []string
	View                fsm.Reader
	Now                 fsm.Timestamp // the clock, ms
	Client              string        // address
	// May reports whether the sender may do "read" or "write" to the object at a path,
	// as a request of Kinto's would: by its permissions, those of what it lies in, and
	// the settings. For an object that is not there the others count.
	May func(permission string, at fsm.Path) (bool, error)
}

// RouteResponse is a complete answer. Header names are sent as written;
// Content-Type is application/json unless it says otherwise.
type RouteResponse struct {
	Status int
	Header map[string]string
	Body   []byte
	// Redirect, when not empty, makes it a 307 to this URL with the page of Kinto's
	// framework; Status and Body do not count, and Header has neither Location nor
	// Content-Type.
	Redirect string
	// Err, when not nil, stands in place of all that: ErrDenied, a *Veto, or whatever
	// is a 500.
	Err error
}

// RoutePlan is what a Route's Plan came to. Without Ops nothing is written.
type RoutePlan struct {
	Ops      []fsm.Op
	Response RouteResponse
	// Unstored, when not nil, is answered instead of Response to the request whose Ops
	// are committed now. It may hold secrets: it is not in the log. A request that is
	// repeated after its answer was lost, and a part of a batch, get Response.
	Unstored *RouteResponse
}

// RouteProvider adds endpoints. It is asked once, after Validate.
type RouteProvider interface {
	Routes() []Route
}
