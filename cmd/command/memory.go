package command

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much a node's heap grows before it is collected, in percent of
// what lives: Go's default of 100 took a fifteenth of a create. What lives is 20
// to 30 MB, since the store's cache is not on the heap; so this costs as much.
const gcPercent = 200

// tuneCollector sets it, unless the environment says otherwise (GOGC, of Go).
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
