// Package lint holds the house's rules as tests: which package may import which
// (docs/architecture, with the reason of each arrow), what the state machine may not
// know, how long a function and a file may be, that exported names are documented,
// and what no file may say. `go test ./internal/lint` is all it takes. Each rule is
// proved itself: planted mistakes must be found.
package lint
