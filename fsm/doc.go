// Package fsm is the ground floor of quinto: the vocabulary of the store
// (Path, Object, Revision, Timestamp, Txn, Event, errors) and the replicated
// state machine that applies transactions to it.
//
// Nothing here asks the world anything: no clock, no chance, no network. Time,
// ids and limits arrive in the command, so that every node that applies the
// same log holds the same bytes (docs/architecture.md, "The state machine").
//
// There are few types. A Txn is what the log carries: what was read (Compare),
// what is written (Op) and when. Apply checks the compares, then performs all
// ops or none and answers with a Result. A View is the state at one revision.
package fsm
