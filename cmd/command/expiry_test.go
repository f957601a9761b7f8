package command

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quinto/fsm"
	"quinto/plugins"
)

// tokens is a policy whose one token, "Bearer good", can be revoked.
type tokens struct{ name string }

var revoked atomic.Bool

func init() {
	plugins.Register(plugins.Module{Name: "test.tokens", Policy: true, New: func() any { return new(tokens) }})
}

func (p *tokens) Provision(_ context.Context, s plugins.Settings) error {
	p.name = s.Name
	return nil
}

func (p *tokens) Name() string { return p.name }

func (*tokens) Authenticate(_ context.Context, authorization string, _ fsm.Reader) (string, bool, error) {
	return "tina", authorization == "Bearer good" && !revoked.Load(), nil
}

// Credentials that end by themselves, of which no change tells, end the stream.
func TestStreamEndsWithTheCredentials(t *testing.T) {
	t.Parallel()
	revoked.Store(false)
	url, records, _ := liveNode(t, "multiauth.policies = basicauth tokens\nmultiauth.policy.tokens.use = test.tokens\n")
	do(t, 200, "alice", "PATCH", url+"buckets/b", `{"permissions":{"read":["tokens:tina"]}}`)
	s := listenWith(t, records, "Bearer good", "")
	s.next("start")
	other := listen(t, records, "alice", "")
	other.next("start")
	at := time.Now()
	revoked.Store(true)
	if _, c := s.next("end"); c.Reason != "credentials" || c.Status != http.StatusUnauthorized {
		t.Errorf("%+v", c)
	}
	s.ended()
	t.Logf("ended after %v", time.Since(at))
	if refused := listenWith(t, records, "Bearer good", ""); refused.status != http.StatusUnauthorized || !strings.Contains(refused.body, "104") {
		t.Errorf("%d %s", refused.status, refused.body)
	}
	do(t, 201, "alice", "PUT", records+"/a", `{"data":{"n":1}}`)
	other.next("change")
}
