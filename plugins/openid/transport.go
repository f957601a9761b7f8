package openid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"quinto/internal/outbound"
)

// Bounds of what a provider may cost.
const (
	// callTimeout bounds one call with all of its answer.
	callTimeout = 5 * time.Second
	// maxAnswerBytes bounds the body of any answer, maxHeaderBytes its header.
	maxAnswerBytes = 512 << 10
	maxHeaderBytes = 64 << 10
	// maxRedirects of a GET are followed; a call that carries the client's secret
	// follows none.
	maxRedirects = 3
	// keysPause is the time in which one fetch of the keys is allowed, up to keysBurst of
	// them saved up, so that tokens which name unknown keys do not make this server
	// hammer the provider.
	keysPause = 5 * time.Second
	keysBurst = 4
)

var (
	errTooBig = fmt.Errorf("the answer has more than %d bytes", maxAnswerBytes)
	errPaused = errors.New("the keys were fetched often enough")
	errClosed = errors.New("the server stops")
)

// newClient returns what calls a provider until base ends. The proxy of the
// environment is used, as Kinto does.
func newClient(base context.Context) (client *http.Client, idle func()) {
	t := http.DefaultTransport.(*http.Transport).Clone() // the standard library makes nothing else
	t.MaxResponseHeaderBytes, t.MaxConnsPerHost, t.IdleConnTimeout = maxHeaderBytes, maxCalls, 30*time.Second
	follow := func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || via[0].Method != http.MethodGet {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &http.Client{Timeout: callTimeout, Transport: &capped{next: outbound.Transport{Transport: t}, base: base}, CheckRedirect: follow}, t.CloseIdleConnections
}

// capped ends calls with base and bodies beyond maxAnswerBytes.
type capped struct {
	next http.RoundTripper
	base context.Context
}

// RoundTrip implements http.RoundTripper.
func (t *capped) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(t.base, func() { cancel(errClosed) })
	resp, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	resp.Body = &cappedBody{ReadCloser: resp.Body, left: maxAnswerBytes, done: func() { stop(); cancel(nil) }}
	return resp, nil
}

type cappedBody struct {
	io.ReadCloser
	left int
	done func()
}

// Read implements io.Reader.
func (b *cappedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooBig
	}
	return n, err
}

// Close implements io.Closer.
func (b *cappedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// paused lets calls through as keysPause and keysBurst say.
type paused struct {
	next  http.RoundTripper
	clock func() time.Time
	mu    sync.Mutex
	saved time.Time // the calls that could be made since then are saved up
}

// RoundTrip implements http.RoundTripper.
func (t *paused) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.take() {
		return nil, errPaused
	}
	return t.next.RoundTrip(r)
}

func (t *paused) take() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if most := now.Add(-keysBurst * keysPause); t.saved.Before(most) {
		t.saved = most
	}
	if now.Sub(t.saved) < keysPause {
		return false
	}
	t.saved = t.saved.Add(keysPause)
	return true
}
