package accounts

import "testing"

// SkipRaced leaves out what takes several hashes of Kinto's cost: with the race
// detector each takes seconds. What runs at the same time is tested with cheap ones.
func SkipRaced(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("hashes of Kinto's cost take seconds each with the race detector")
	}
}
