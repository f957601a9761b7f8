//go:build faults

package command

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// nodeClock is a clock that scripts/faults sets wrong: a file of the node's name in
// the folder $QUINTO_FAULTS_CLOCK says by how much. The build tag keeps it out of
// every binary that is given to anybody.
func nodeClock(name string) func() time.Time {
	path := filepath.Join(os.Getenv("QUINTO_FAULTS_CLOCK"), name)
	return func() time.Time {
		text, err := os.ReadFile(path)
		if err != nil {
			return time.Now()
		}
		off, _ := time.ParseDuration(strings.TrimSpace(string(text)))
		return time.Now().Add(off)
	}
}
