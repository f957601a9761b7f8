package command

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"quinto/fsm"
	"quinto/internal/config"
)

// trimmedNode has a collection that everybody reads, in whose events the first are no
// longer kept. The writes are no requests, which would keep their events for a while.
func trimmedNode(t *testing.T) (url string) {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "trimmed.ini")
	text := "[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.storage_backend = kinto.core.storage.memory\nkinto.userid_hmac_secret = a\nmultiauth.policies = basicauth\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Options{Path: ini, Flags: map[string]string{config.PortKey: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := OpenNode(ctx, NodeOptions{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	write := func(ops ...fsm.Op) {
		t.Helper()
		if _, err := n.cluster.Propose(ctx, fsm.Txn{Now: n.cluster.Now(), Ops: ops}); err != nil {
			t.Fatal(err)
		}
	}
	all := fsm.NewACL(map[string][]string{"read": {"system.Everyone"}})
	write(fsm.Op{Type: fsm.OpPut, Path: "/buckets/b", Data: []byte("{}"), ACL: all}, fsm.Op{Type: fsm.OpPut, Path: "/buckets/b/collections/c", Data: []byte("{}")})
	for i := range 8 {
		write(fsm.Op{Type: fsm.OpPut, Path: fsm.Path(fmt.Sprintf("/buckets/b/collections/c/records/r%d", i)), Data: []byte("{}")})
	}
	write(fsm.Op{Type: fsm.OpTrimEvents, Revision: 8})
	return n.URL()
}

// Whoever comes back to a point that is no longer kept is told so, by a stream of
// Server-Sent Events, a WebSocket, a feed of changes, and one that waits.
func TestTrimmedPointIsToldOnEachChannel(t *testing.T) {
	url := trimmedNode(t)
	records := url + "buckets/b/collections/c/records"
	if _, c := listen(t, records, "", "3").next("reset"); c.Reason != "trimmed" {
		t.Errorf("%+v", c)
	}
	if _, c := listen(t, records, "", "8").next("start"); !c.Resumed {
		t.Errorf("the last point that is kept: %+v", c)
	}
	conn, from, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(records, "http")+"?_since_revision=3")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if from == nil {
		from = bufio.NewReader(conn)
	}
	h, err := ws.ReadHeader(from)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(from, payload); err != nil || !strings.Contains(string(payload), `"reset"`) || !strings.Contains(string(payload), "trimmed") {
		t.Errorf("%s %v", payload, err)
	}
	for _, feed := range []string{"changes", "buckets/b/changes"} {
		for _, wait := range []string{"", "&_wait=25"} {
			var f struct {
				Reset bool
				Next  string
			}
			if err := json.Unmarshal(do(t, 200, "", "GET", url+feed+"?_since_revision=3"+wait, ""), &f); err != nil || !f.Reset || f.Next == "" {
				t.Errorf("%s%s: %+v %v", feed, wait, f, err)
			}
			f.Reset = false
			if err := json.Unmarshal(do(t, 200, "", "GET", url+feed+"?_since_revision=8"+wait, ""), &f); err != nil || f.Reset {
				t.Errorf("%s%s: the last point that is kept: %+v %v", feed, wait, f, err)
			}
		}
	}
}
