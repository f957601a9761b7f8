package query

import (
	"slices"
	"strings"
)

// Detail is one entry of the "details" of Kinto's 400 answer. Location is always "querystring".
type Detail struct {
	Name        string // the parameter; meaningless if NoName
	NoName      bool   // Kinto's "name": null
	Description string
	Location    string // Location, unless it says otherwise
}

// Location of a Detail.
const Location = "querystring"

// Error says why a query is refused: HTTP 400, errno 107 (invalid parameters). Details are sorted as Kinto sorts them.
type Error struct {
	Details []Detail
	// Late says that no schema found it: Kinto finds it after the preconditions, and raises it.
	Late bool
}

// Error gives the "message" of Kinto's answer, which is about the first detail.
func (e *Error) Error() string {
	d := e.Details[0]
	switch {
	case d.NoName:
		return Location + ": " + d.Description
	case strings.Contains(d.Description, d.Name):
		return d.Description
	}
	return d.Name + " in " + Location + ": " + d.Description
}

func newError(details ...Detail) *Error {
	key := func(d Detail) string {
		if d.NoName {
			return "None" // Kinto sorts by str(name)
		}
		return d.Name
	}
	slices.SortStableFunc(details, func(a, b Detail) int { return strings.Compare(key(a), key(b)) })
	return &Error{Details: details}
}

func refuse(name, description string) error {
	return newError(Detail{Name: name, Description: description})
}

func refuseUnnamed(description string) error {
	return newError(Detail{NoName: true, Description: description})
}

func refuseValue(name string) error { return refuse(name, "Invalid value for "+name) }

// EncodingError says that the query string is not UTF-8 once decoded: HTTP 400, errno 107, without details.
type EncodingError struct {
	Query string // as it was sent
}

// Error gives the "message" of Kinto's answer, with its missing space.
func (e *EncodingError) Error() string {
	return "A request with an incorrect encoding in the querystring wasreceived. " +
		"Please make sure your requests are encoded in UTF-8: " + e.Query
}
