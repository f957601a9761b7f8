//go:build !faults

package command

import "time"

// nodeClock is the clock of a node's entries; nil is the machine's.
func nodeClock(string) func() time.Time { return nil }
