// Package resource is Kinto's meaning, written once and without HTTP: what a
// request does to buckets, groups, collections and records, who may do it, and
// what the answer says.
//
// kinds.go is the table of kinds; routes, permissions and body rules derive from
// it, and a plugin adds rows. planner.go decides: a pure function of a state
// (fsm.Reader) and a Request that gives operations and an answer. The answer is
// an outline (outline.go), because the times of what it shows are only known
// when the state machine has applied the operations, and because a retried
// request must be answered again from what was stored. service.go runs the plan
// where it belongs: reads on this node at the freshness asked for, writes on the
// leader through Propose, with conflicts planned again.
package resource
