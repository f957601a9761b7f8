package main

import (
	"encoding/json"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rule recognises a deviation of deviations.txt in a request that nobody wrote by hand.
type rule struct {
	deviation Deviation // Scenario names the hand-written scenario that shows the same
	ends      bool      // the servers store different things from here on
	matches   func(o *Outcome, d Difference, before []Outcome) bool
}

var (
	partField = regexp.MustCompile(`^body\.responses\[(\d+)\]\.`)
	aclField  = regexp.MustCompile(`^(body\.responses\[\d+\]\.)?body\.permissions(\.|$)`)
	dataField = regexp.MustCompile(`^body\.data\.`)
)

// rules are the deviations on purpose that random requests meet.
var rules = []rule{
	{
		deviation: Deviation{Scenario: "an unexpected error", Kinto: "500, an unhandled error", Quinto: "any other answer", Reason: "a client's request must not be reported as the server's error"},
		ends:      true,
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return d.Field == "status" && o.Answers[0].Status == http.StatusInternalServerError && o.Answers[1].Status < http.StatusInternalServerError
		},
	},
	{
		deviation: Deviation{Backend: "postgresql", Scenario: "U+0000 in a value on PostgreSQL", Kinto: "503, the database refuses the statement", Quinto: "any other answer", Reason: "a client's request must not be reported as the server's error"},
		ends:      true,
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return d.Field == "status" && o.Answers[0].Status == http.StatusServiceUnavailable && o.Answers[1].Status < http.StatusInternalServerError
		},
	},
	{
		deviation: Deviation{Backend: "postgresql", Scenario: "Retry-After of a conflict", Kinto: "409, its index wants each time of a list once", Quinto: "both are stored", Reason: "two restored objects may have been last written in the same millisecond; the order among them is that of their ids"},
		ends:      true,
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			conflict := o.Answers[0].Status == http.StatusConflict || strings.HasSuffix(d.Field, "].status") && d.Kinto == "409"
			return strings.HasSuffix(d.Field, "status") && conflict && strings.Contains(requestText(o), "last_modified")
		},
	},
	{
		deviation: Deviation{Scenario: "creating and deleting in one batch", Kinto: "the time of the first read", Quinto: "the time at which the list began, with its parent", Reason: "the timestamp of an empty list exists from its creation, so that a read never writes"},
		ends:      true,
		matches:   isUnwrittenList,
	},
	{
		deviation: Deviation{Scenario: "PUT with If-None-Match star needs only create", Kinto: "the stored object, to a user who may not read it", Quinto: "no details for those who may not read the object", Reason: "a right to create must not show what others stored"},
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return strings.HasSuffix(d.Field, "body.details") && d.Target == absent && strings.Contains(requestText(o), "If-None-Match")
		},
	},
	{
		deviation: Deviation{Scenario: "a JSON patch of data by somebody who does not see the ACL", Kinto: "only the writer of the patch is left in the ACL", Quinto: "the ACL as it was, with the writer of the patch", Reason: "a patch of data must not take away who may read and write"},
		ends:      true,
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return aclField.MatchString(d.Field) && isPatchType(o.Request) && len(d.Target) > len(d.Kinto)
		},
	},
	{
		deviation: Deviation{Scenario: "Response-Behavior with a merge patch of nested objects", Kinto: "empty", Quinto: "the nested object that changed", Reason: "Kinto compares the object with itself after it changed it in place"},
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return dataField.MatchString(d.Field) && isPatchType(o.Request) && headerOf(o.Request, "Response-Behavior") != ""
		},
	},
	{
		deviation: Deviation{Scenario: "JSON patch of a permission that is none", Kinto: "200, it stores a permission that nothing reads", Quinto: "400, as PUT and the other patches answer", Reason: "an unknown permission is a mistake whichever way it comes"},
		ends:      true,
		matches: func(o *Outcome, d Difference, _ []Outcome) bool {
			return d.Field == "status" && o.Answers[0].Status == http.StatusOK && o.Answers[1].Status == http.StatusBadRequest && isPatchType(o.Request)
		},
	},
}

// explainByRule finds the rule that a difference matches, nil when there is none.
func (s *Suite) explainByRule(o *Outcome, d Difference, before []Outcome) *Deviation {
	for i := range rules {
		r := &rules[i]
		if r.deviation.on(s.Backend) && r.matches(o, d, before) {
			o.Ended = o.Ended || r.ends
			return &Deviation{
				Scenario: r.deviation.Scenario, Request: o.Request.Label, Field: d.Field,
				Kinto: r.deviation.Kinto, Quinto: r.deviation.Quinto, Reason: r.deviation.Reason,
			}
		}
	}
	return nil
}

func headerOf(r *Request, name string) string {
	for _, h := range r.Header {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}
	return ""
}

func isPatchType(r *Request) bool {
	return strings.HasSuffix(headerOf(r, "Content-Type"), "patch+json")
}

func requestText(o *Outcome) string { return sentText(o.Sent[0]) }

// exchanged is one request with its answer, alone or as a part of a batch.
type exchanged struct {
	method, path string
	status       int
}

// exchangesOf lists what one request of a scenario did: the parts of a batch, or itself.
func exchangesOf(o *Outcome) []exchanged {
	if !strings.HasPrefix(o.Sent[0].Target, "/batch") {
		return []exchanged{{o.Sent[0].Method, barePath(o.Sent[0].Target), o.Answers[0].Status}}
	}
	var sent struct {
		Defaults struct{ Method string }
		Requests []struct{ Method, Path string }
	}
	var got struct{ Responses []struct{ Status int } }
	if json.Unmarshal(o.Sent[0].Body, &sent) != nil || json.Unmarshal(o.Answers[0].Body, &got) != nil || len(sent.Requests) != len(got.Responses) {
		return nil // it was refused as a whole
	}
	var all []exchanged
	for i, part := range sent.Requests {
		method := or(part.Method, or(sent.Defaults.Method, http.MethodGet))
		all = append(all, exchanged{method, barePath(part.Path), got.Responses[i].Status})
	}
	return all
}

// barePath takes the address, the prefix of the version and the query from a target.
func barePath(target string) string {
	if i := strings.Index(target, "/v1/"); i >= 0 {
		target = target[i+len("/v1"):]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// isUnwrittenList tells that a difference is the time of a list that nobody wrote since its parent was made.
func isUnwrittenList(o *Outcome, d Difference, before []Outcome) bool {
	if !strings.HasSuffix(d.Field, "ETag") {
		return false
	}
	at := 0
	if m := partField.FindStringSubmatch(d.Field); m != nil {
		at, _ = strconv.Atoi(m[1])
	}
	return unwritten(o, at, before)
}

// readsUnwritten tells that a request saw the time of such a list, whether it showed a difference or not: times that follow from it
// stand in another order on the two servers.
func readsUnwritten(o *Outcome, before []Outcome) bool {
	for at := range exchangesOf(o) {
		if unwritten(o, at, before) {
			return true
		}
	}
	return false
}

// unwritten tells that request number at of a batch, or the request itself, saw a list that nobody wrote since its parent was made.
func unwritten(o *Outcome, at int, before []Outcome) bool {
	this, earlier := exchangesOf(o), []exchanged{}
	if at >= len(this) || strings.Count(this[at].path, "/")%2 == 0 || this[at].path == "/batch" { // an object has a path of pairs
		return false
	}
	if this[at].status >= http.StatusBadRequest && this[at].status != http.StatusPreconditionFailed {
		return false
	}
	for i := range before {
		earlier = append(earlier, exchangesOf(&before[i])...)
	}
	earlier = append(earlier, this[:at+1]...)
	for _, e := range slices.Backward(earlier) {
		switch list := this[at].path; {
		case !isWrite(e.method) || e.status >= http.StatusBadRequest:
		case e.path == list && e.method == http.MethodDelete: // maybe of nothing
		case e.path == list || path.Dir(e.path) == list:
			return false
		case e.method == http.MethodDelete && strings.HasPrefix(list, e.path+"/"):
			return true
		}
	}
	return this[at].path != "/" && this[at].path != "/buckets"
}
