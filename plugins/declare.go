package plugins

import "quinto/fsm"

// DeclaredPrefix begins the names of replicated settings that belong to what objects
// declare, such as the secrets of webhooks: a flush of the server takes them along
// with the objects. Behind it come a plugin's name and the path of the object.
const DeclaredPrefix = "declared/"

// Declaring is a plugin whose notifiers are declared in the replicated state and come
// and go with it. It registers each of them (fsm.OpRegisterNotifier) in the
// transaction that declares it, so that it hears of every change after that one. The
// dispatcher forgets those that are declared no more, with their dead letters.
type Declaring interface {
	// Prefix begins the names of its notifiers, and of no others.
	Prefix() string
	// Declared returns the notifiers that v declares; for the same name always the same
	// value, brought up to date, as long as it is declared. stale are operations that
	// take rows away whose objects are gone; they hold for what was read of v. It may be
	// called by several goroutines.
	Declared(v *fsm.View) (all []Scoped, stale []fsm.Op, err error)
	// Changes reports whether Declared may come to something else after e.
	Changes(e *fsm.Event) bool
}

// Scoped is a Notifier that a Declaring plugin has: it hears of one bucket or
// collection and what is in it, and there may be hundreds of its like.
type Scoped interface {
	Notifier
	// Scope is the path of the bucket or collection. Match accepts nothing outside.
	Scope() fsm.Path
	// Describe is for the operator.
	Describe() Description
	// Receiver is a word that changes when another receiver is meant: a pause that the
	// old one has asked for by Gone ends with it.
	Receiver() string
}

// Description says what a notifier is that no settings name. It holds no secret.
type Description struct {
	Of   fsm.Path `json:"of"`   // the object that declares it
	Hook string   `json:"hook"` // its name there
	URL  string   `json:"url"`  // without user, query and fragment
}
