package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Limits of one exchange.
const (
	requestTimeout = 20 * time.Second
	maxAnswerBytes = 16 << 20
)

// Answer is what a server said to one request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error // the request could not be sent or the answer not be read
}

// Server is one running server.
type Server struct {
	Name   string
	Base   string  // "http://127.0.0.1:8888", without /v1
	spread *spread // more than one node answers for this server
}

// Sent is one request as it goes on the wire.
type Sent struct {
	Method   string
	Target   string
	Header   [][2]string
	Body     []byte
	User     string // name of basic auth, "" is anonymous
	Password string
}

// newHTTPClient makes a client that adds nothing of its own: no compression, no redirects, no proxy.
func newHTTPClient() *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DisableCompression:  true,
			MaxIdleConnsPerHost: 16,
			DialContext:         (&net.Dialer{Timeout: requestTimeout}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// url gives the absolute address of a target: under /v1 unless it starts with "root:" or is a whole URL.
func (s Server) url(target string) string {
	if path, outside := strings.CutPrefix(target, "root:"); outside {
		return s.Base + path
	}
	if strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://") {
		return target
	}
	return s.Base + "/v1" + target
}

// bases are all addresses the server answers on.
func (s Server) bases() []string {
	if s.spread != nil {
		return s.spread.bases
	}
	return []string{s.Base}
}

// do sends one request. The answer's Err is set when there was no answer.
func (s Server) do(ctx context.Context, client *http.Client, sent Sent) Answer {
	if s.spread != nil {
		return s.doAnywhere(ctx, client, sent)
	}
	var body io.Reader
	if sent.Body != nil {
		body = bytes.NewReader(sent.Body)
	}
	if _, err := url.Parse(s.url(sent.Target)); err != nil {
		return Answer{Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, sent.Method, s.url(sent.Target), body)
	if err != nil {
		return Answer{Err: err}
	}
	req.Header.Set("User-Agent", "conformance")
	if sent.User != "" {
		req.SetBasicAuth(sent.User, sent.Password)
	}
	if sent.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range sent.Header {
		if h[1] == "-" { // the header is to be left out
			req.Header.Del(h[0])
			continue
		}
		req.Header.Set(h[0], h[1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{Err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: text, Err: err}
}

// decodeJSON reads one JSON value and keeps the form of its numbers.
func decodeJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return value, nil
}
