package gatekeeper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/internal/outbound"
	"quinto/plugins"
)

// query is a change as the receiver is told it.
type query struct {
	body   []byte
	record bool // it may be edited
}

// question makes the body: the fields of Kinto's events, with the object as it stands
// and as it is to be. It is the same whenever the same is to be decided.
func question(c *plugins.Change) query {
	text := func(b []byte, name, value string) []byte {
		b = append(canon.AppendString(append(b, ','), name), ':')
		return canon.AppendString(b, value)
	}
	b := text([]byte(`{"type":"before_commit"`), "action", c.Action.String())
	b = text(b, "uri", string(c.Path))
	if c.UserID == "" {
		b = append(b, `,"user_id":null`...)
	} else {
		b = text(b, "user_id", c.UserID)
	}
	b = text(b, "resource_name", c.Kind)
	plugins.Segments(c.Path, func(plural, id string) bool {
		b = text(b, strings.TrimSuffix(plural, "s")+"_id", id)
		return true
	})
	for _, o := range []struct {
		name   string
		object *fsm.Object
	}{{"old", c.Old}, {"new", c.New}} {
		if o.object != nil {
			b = append(canon.AppendString(append(b, ','), o.name), ':')
			b = append(b, canon.Set(o.object.Data, "id", canon.AppendString(nil, c.Path.ID()))...)
		}
	}
	return query{body: append(b, '}'), record: c.Kind == recordKind && c.New != nil}
}

func (q query) hash() []byte {
	sum := sha256.Sum256(q.body)
	return sum[:]
}

// verdict is what came of a question. One that has failed is remembered for the
// request as well, so that a receiver which is away costs each request one time-out.
type verdict struct {
	failed string // why there is no answer, in words for the client
	veto   *plugins.Veto
	data   []byte // canonical; nil: as it is
}

func failed(format string, args ...any) *verdict {
	return &verdict{failed: fmt.Sprintf(format, args...)}
}

// ask sends the question once; failures are told in the log.
func (g *Gatekeeper) ask(ctx context.Context, q query) *verdict {
	// The same question of a request that is sent again has the same id.
	v := g.send(ctx, "ask_"+hex.EncodeToString(q.hash()[:16]), q.body, q.record)
	if v.failed != "" && ctx.Err() == nil && g.quiet.over(time.Now()) {
		policy := policyClosed
		if g.open {
			policy = policyOpen
		}
		g.log.Warn("a gatekeeper has failed", "why", v.failed, "failure", policy)
	}
	return v
}

func (g *Gatekeeper) send(ctx context.Context, id string, body []byte, record bool) *verdict {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url.String(), bytes.NewReader(body))
	if err != nil {
		return failed("it cannot be asked")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	if err := g.signers.Sign(r.Header, id, time.Now(), body); err != nil {
		return failed("it cannot be asked")
	}
	resp, err := g.client.Do(r)
	if err != nil {
		return g.unanswered(ctx)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := outbound.Read(resp.Body, MaxAnswerBytes)
	switch {
	case errors.Is(err, outbound.ErrTooLong):
		return failed("its answer is too long")
	case err != nil:
		return g.unanswered(ctx)
	}
	return g.judge(resp.StatusCode, answer, record)
}

// unanswered says no more than this to clients: an error of the network may hold
// addresses that are nobody's business.
func (g *Gatekeeper) unanswered(ctx context.Context) *verdict {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return failed("it did not answer within %v", g.timeout)
	}
	return failed("it does not answer")
}

// judge reads an answer. 408 and 429 are about the call and no refusal.
func (g *Gatekeeper) judge(status int, answer []byte, record bool) *verdict {
	switch {
	case status >= 200 && status <= 299:
		return allowed(answer, record)
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status < firstRefusal, status >= firstServerError:
		return failed("it answered %d", status)
	}
	veto := &plugins.Veto{Status: status, Message: fmt.Sprintf("refused by gatekeeper %q", g.name)}
	if http.StatusText(status) == "" {
		veto.Title = "Refused"
	}
	if v, err := canon.Canonical(answer, canon.Limits{}); err == nil {
		if told, ok := canon.Value(v).Get("message"); ok {
			if text, ok := told.String(); ok && text != "" {
				veto.Message = strings.ToValidUTF8(text[:min(len(text), MaxMessageBytes)], "")
			}
		}
	}
	return &verdict{veto: veto}
}

// allowed reads an answer that lets the change pass, maybe with other data.
func allowed(answer []byte, record bool) *verdict {
	if len(bytes.TrimSpace(answer)) == 0 {
		return &verdict{}
	}
	v, err := canon.Canonical(answer, canon.Limits{})
	if err != nil || canon.Value(v).Kind() != canon.Object {
		return failed("its answer is no JSON object")
	}
	data, ok := canon.Value(v).Get("data")
	switch {
	case !ok:
		return &verdict{}
	case !record:
		return failed("it edits what is no record")
	case data.Kind() != canon.Object:
		return failed("its data is no JSON object")
	}
	return &verdict{data: canon.Delete(canon.Delete(data, "id"), "last_modified")}
}

// pause keeps the log short.
type pause struct {
	mu   sync.Mutex
	last time.Time
}

func (p *pause) over(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) < logPause {
		return false
	}
	p.last = now
	return true
}
