package cluster

import (
	"strings"
	"testing"
)

// A leader that is cut off has a new node in its own configuration, and nowhere else. A
// node that is told that it was admitted by it asks nobody again, and waits for ever.
func TestNobodyIsAdmittedByAConfigurationThatIsNotCommitted(t *testing.T) {
	t.Parallel()
	nodes := trio(t, nil)
	l := leaderOf(t, nodes...)
	rest := others(l, nodes)
	if err := l.setSettings(t.Context(), setting(nodeSetting+"n3", "x")); err != nil {
		t.Fatal(err)
	}
	isolate(l, rest, true)
	r := joinRequest{Name: "n3", ID: "x", Addr: freeAddr(t), Level: 1, Empty: true}
	answers := make(chan callStatusCode, 2)
	for range cap(answers) { // the second one finds what the first has left
		go func() {
			status, _ := l.serveJoin(t.Context(), r.encode())
			answers <- status
		}()
	}
	for range cap(answers) {
		if status := <-answers; status == statusOK {
			t.Error("admitted by a leader that reaches nobody")
		}
	}
	next := leaderOf(t, rest...)
	mustPut(t, next, "a")
	isolate(l, rest, false)
	sameState(t, nodes...)
	waitFor(t, "one configuration without the node", func() bool {
		for _, n := range nodes {
			if strings.Contains(memberList(n), "n3") {
				return false
			}
		}
		return true
	})
}
