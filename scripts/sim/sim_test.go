package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A seed is one plan, and another seed another one.
func TestPlanFollowsTheSeed(t *testing.T) {
	if a, b := newPlan(7, nil).String(), newPlan(7, nil).String(); a != b {
		t.Errorf("one seed, two plans:\n%s\n%s", a, b)
	}
	if a, b := newPlan(7, nil).String(), newPlan(8, nil).String(); a == b {
		t.Errorf("two seeds, one plan:\n%s", a)
	}
}

// pair is a connection from a to b.
func pair(t *testing.T, n *network) (a, b net.Conn) {
	t.Helper()
	n.name("b:1", "b")
	ln, err := n.listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if a, err = n.dial(ctx, "a", "b:1", false); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// A link that is cut one way holds what is under way and lets the other way through.
func TestCutLinkHoldsWhatIsUnderWay(t *testing.T) {
	n := newNetwork(1, 0)
	a, b := pair(t, n)
	lift := n.impose(func(r route) effect { return effect{cut: r.from == "a"} })
	send(t, a, "late")
	send(t, b, "back")
	got := make([]byte, 4)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "back" {
		t.Fatalf("the open way gave %q, %v", got, err)
	}
	if err := b.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the cut way gave %d bytes, %v", n, err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	lift()
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "late" {
		t.Fatalf("the healed way gave %q, %v", got, err)
	}
}

// Peers of a process that ends read what it had sent, then the end.
func TestFallenNodeEndsItsConnections(t *testing.T) {
	n := newNetwork(1, time.Millisecond)
	a, b := pair(t, n)
	send(t, a, "last")
	n.fell("a")
	if all, err := io.ReadAll(b); err != nil || string(all) != "last" {
		t.Fatalf("read %q, %v", all, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a dead process writes: %v", err)
	}
}

// What StoreLogs has returned survives a crash, and what a dead process writes does not.
func TestLogKeepsWhatItConfirmed(t *testing.T) {
	d := newDisk(1, 1, 0)
	before := raftLog{d, d.log}
	entry := func(i uint64) *raft.Log { return &raft.Log{Index: i, Data: []byte{byte(i)}} }
	if err := before.StoreLogs([]*raft.Log{entry(1), entry(2)}); err != nil {
		t.Fatal(err)
	}
	d.crash()
	if err := before.StoreLog(entry(3)); !errors.Is(err, errDead) {
		t.Fatalf("a dead process appends: %v", err)
	}
	after := raftLog{d, d.log}
	if last, _ := after.LastIndex(); last != 2 {
		t.Fatalf("the log ends at %d", last)
	}
	if err := after.DeleteRange(1, 2); err != nil {
		t.Fatal(err)
	}
	if first, _ := after.FirstIndex(); first != 0 {
		t.Fatalf("an empty log begins at %d", first)
	}
}

// A run of one seed finds nothing, and leaves a history that says something.
func TestSeed(t *testing.T) {
	out, w := play(newPlan(1, nil), t.TempDir())
	if out.bad() {
		t.Errorf("%s\n%s", out, w.log.bytes())
	}
	if out.Report.Acked < 10 || out.Report.Polls == 0 || out.Report.Deliveries == 0 {
		t.Errorf("a run that says nothing: %s", out)
	}
}
