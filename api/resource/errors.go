package resource

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"quinto/internal/canon"
)

// The errnos of Kinto's error bodies that this server emits
// (kinto/core/errors.py).
const (
	ErrnoMissingAuth       = 104
	ErrnoInvalidParameters = 107
	ErrnoInvalidID         = 110 // object unknown
	ErrnoMissingResource   = 111 // URL unknown or parent missing
	ErrnoTooLarge          = 113
	ErrnoModifiedMeanwhile = 114
	ErrnoMethodNotAllowed  = 115
	ErrnoVersion           = 116
	ErrnoForbidden         = 121
	ErrnoConstraint        = 122
	ErrnoBackend           = 201
	ErrnoServiceDeprecated = 202
	ErrnoUndefined         = 999
)

// Failure is an answer that is an error. It is an error of Go, so that a plan
// can return it.
type Failure struct {
	Status  int
	Errno   int
	Title   string // "error" of the body; empty: the status's text
	Message string // left out when empty
	Info    string // left out when empty
	Details []byte // JSON, left out when empty
	Header  []HeaderField

	viewed     bool // a 401 that a kind gives, not the permissions
	validation bool // found by a schema: Kinto returns it, all others it raises
}

// response of the failure, without a revision.
func (f *Failure) response() *Response {
	out := f.outline()
	return &Response{Status: f.Status, Header: out.fields, Body: out.parts[0].literal}
}

// Error implements error.
func (f *Failure) Error() string {
	return fmt.Sprintf("%d (errno %d) %s", f.Status, f.Errno, f.Message)
}

// Body is Kinto's error body.
func (f *Failure) Body() []byte {
	title := f.Title
	if title == "" {
		title = http.StatusText(f.Status)
	}
	b := make([]byte, 0, 96+len(f.Message)+len(f.Details))
	b = strconv.AppendInt(append(b, `{"code":`...), int64(f.Status), 10)
	b = strconv.AppendInt(append(b, `,"errno":`...), int64(f.Errno), 10)
	b = canon.AppendString(append(b, `,"error":`...), title)
	if f.Message != "" {
		b = canon.AppendString(append(b, `,"message":`...), f.Message)
	}
	if f.Info != "" {
		b = canon.AppendString(append(b, `,"info":`...), f.Info)
	}
	if len(f.Details) > 0 {
		b = append(append(b, `,"details":`...), f.Details...)
	}
	return asPython(append(b, '}'))
}

// asPython makes the digits of \uXXXX lower-case and escapes U+007F: Kinto
// writes its error bodies with another serializer than all others.
func asPython(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte{0x7f}, []byte(`\u007f`))
	for i := 0; i+1 < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		i++
		if b[i] == 'u' && i+4 < len(b) {
			copy(b[i+1:i+5], bytes.ToLower(b[i+1:i+5]))
		}
	}
	return b
}

// ErrorBody is the body of an error that is found before a Service is asked:
// code, errno, message (left out when empty) and, if given, details as JSON.
func ErrorBody(status, errno int, message string, details ...[]byte) []byte {
	f := Failure{Status: status, Errno: errno, Message: message}
	if len(details) > 0 {
		f.Details = details[0]
	}
	return f.Body()
}

// outline of the failure; fields are its own and those it was given.
func (f *Failure) outline() *outline {
	o := &outline{status: f.Status, fields: append([]HeaderField{contentTypeField}, f.Header...), raised: !f.validation, viewed: f.viewed}
	o.literal(f.Body())
	return o
}

// problem is one entry of the details of a validation error.
type problem struct {
	location    string // "body", "header", "querystring", "path"
	name        string
	noName      bool        // name is null
	value       canon.Value // the name, where it is no string; name is its text
	description string
	errno       int // of this entry; 0: left out
}

func (p *problem) key() string {
	if p.noName {
		return "None" // Kinto sorts by Python's str()
	}
	return p.name
}

// Limits of what an error says of the request, which Kinto repeats in full.
const (
	maxProblems    = 200
	maxDescription = 4 << 10
)

// invalid makes the 400 of one or more problems, ordered and summed up in the
// message as Kinto does (json_error_handler).
func invalid(problems ...problem) *Failure {
	problems = problems[:min(len(problems), maxProblems)]
	for i := range problems {
		if d := problems[i].description; len(d) > maxDescription {
			problems[i].description = strings.ToValidUTF8(d[:maxDescription], "") + "…"
		}
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return strings.Compare(a.key(), b.key()) })
	first := &problems[0]
	message := first.name + " in " + first.location + ": " + first.description
	if first.noName {
		message = first.location + ": " + first.description
	} else if strings.Contains(first.description, first.name) {
		message = first.description
	}
	details := []byte{'['}
	for i := range problems {
		if i > 0 {
			details = append(details, ',')
		}
		details = problems[i].append(details)
	}
	return &Failure{Status: 400, Errno: ErrnoInvalidParameters, Title: "Invalid parameters", Message: message, Details: append(details, ']')}
}

func (p *problem) append(b []byte) []byte {
	b = canon.AppendString(append(b, `{"location":`...), p.location)
	b = append(b, `,"name":`...)
	switch {
	case p.noName:
		b = append(b, "null"...)
	case p.value != nil:
		b = append(b, p.value...)
	default:
		b = canon.AppendString(b, p.name)
	}
	b = canon.AppendString(append(b, `,"description":`...), p.description)
	if p.errno != 0 {
		b = strconv.AppendInt(append(b, `,"errno":`...), int64(p.errno), 10)
	}
	return append(b, '}')
}

// validation is invalid as found by the schema of a request.
func validation(problems ...problem) *Failure {
	f := invalid(problems...)
	f.validation = true
	return f
}

// negotiation is the 406 or 415 of a header.
func negotiation(status int, header, description string) *Failure {
	f := invalid(problem{location: "header", name: header, description: description})
	f.Status = status
	return f
}

func errInvalidID() *Failure {
	return invalid(problem{location: "path", noName: true, description: "Invalid object id"})
}

func errNoRoute() *Failure {
	return &Failure{Status: 404, Errno: ErrnoMissingResource, Message: "The resource you are looking for could not be found."}
}

// errNoParent is the 404 of a parent that is missing or cannot exist.
func errNoParent(kind, id string) *Failure {
	return &Failure{Status: 404, Errno: ErrnoMissingResource, Details: identDetails(kind, id)}
}

func errNoObject(kind, id string) *Failure {
	return &Failure{Status: 404, Errno: ErrnoInvalidID, Details: identDetails(kind, id)}
}

func identDetails(kind, id string) []byte {
	b := canon.AppendString([]byte(`{"id":`), id)
	return append(canon.AppendString(append(b, `,"resource_name":`...), kind), '}')
}

const notAllowed = "Method not allowed on this endpoint."

func errMethod(allow string) *Failure {
	return &Failure{Status: 405, Errno: ErrnoMethodNotAllowed, Message: notAllowed,
		Header: []HeaderField{{"Allow", allow}}}
}

// errDenied is 401 for the anonymous and 403 for everybody else.
func errDenied(who *identity, challenges []HeaderField) *Failure {
	if who.user == "" {
		return &Failure{Status: 401, Errno: ErrnoMissingAuth, Message: "Please authenticate yourself to use this endpoint.", Header: challenges}
	}
	return &Failure{Status: 403, Errno: ErrnoForbidden, Message: "This user cannot access this resource."}
}

// errLostLife is the explicit reset of a token that a restore has undone: what its
// client has read since the backup may never come back (docs/operations.md).
func errLostLife() *Failure {
	return &Failure{Status: 410, Errno: ErrnoModifiedMeanwhile,
		Message: "This token is of a state that was lost: the service was restored from a backup. Forget it, and read everything anew."}
}

func errTooLarge(message string) *Failure {
	return &Failure{Status: 413, Errno: ErrnoTooLarge, Message: message}
}

func errUnavailable(message string, retryAfter int) *Failure {
	return &Failure{Status: 503, Errno: ErrnoBackend, Message: message,
		Header: []HeaderField{{"Retry-After", strconv.Itoa(retryAfter)}}}
}

// errNoSpace is answered to a write below the disk's reserve, which may be freed at any
// moment.
func errNoSpace(retryAfter int) *Failure {
	f := errUnavailable("No space left for writes, reads and deletions go on.", retryAfter)
	f.Status, f.Title = StatusInsufficientStorage, "Insufficient Storage"
	return f
}

func errQueryEncoding(raw string) *Failure {
	return &Failure{Status: 400, Errno: ErrnoInvalidParameters,
		Message: "A request with an incorrect encoding in the querystring was" +
			"received. Please make sure your requests are encoded in UTF-8: " + raw}
}

func errInternal(info string) *Failure {
	return &Failure{Status: 500, Errno: ErrnoUndefined, Info: info,
		Message: "A programmatic error occurred, developers have been informed."}
}
