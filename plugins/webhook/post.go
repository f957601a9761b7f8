package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quinto/internal/outbound"
	"quinto/plugins"
)

const userAgent = "quinto-webhook"

// poster sends signed bodies.
type poster struct {
	client  *http.Client
	timeout time.Duration     // of one attempt
	failure func(error) error // what may be told of a call that failed
}

// post sends body once. Any 2xx means taken. A redirect is a failure. 410 is an error
// of plugins.Gone, and what Retry-After asks for one of plugins.RetryAfter. No error
// quotes the URL or a secret.
func (p poster) post(ctx context.Context, to *url.URL, signers outbound.Signers, id string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	req, err := request(ctx, to, signers, id, body, time.Now())
	if err != nil {
		return plugins.Permanent(err)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("webhook: %w", p.failure(err))
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, MaxResponseBytes) // only to use the connection again
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return nil
	}
	err = fmt.Errorf("webhook: receiver answered %d", res.StatusCode)
	after := retryAfter(res.Header.Get("Retry-After"), time.Now())
	if res.StatusCode == http.StatusGone {
		after, err = max(after, GonePause), plugins.Gone(err)
	}
	if after > 0 {
		return &plugins.RetryAfter{After: after, Err: err}
	}
	return err
}

func request(ctx context.Context, to *url.URL, signers outbound.Signers, id string, body []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("webhook: bad request")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	return req, signers.Sign(req.Header, id, now, body)
}

// retryAfter reads the header of RFC 9110, 10.2.3: seconds or a date; 0 when
// there is none to be understood.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
