package api

import (
	"bytes"
	"crypto/rand"
	"net"
	"strings"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
)

const (
	// MaxHeaderLines bounds the header lines of one request; more are 431.
	MaxHeaderLines = 256
	// prefix stands before every path of this API version.
	prefix = "/v1"
	// requestIDBytes is the length of the id that the receiving node gives a request.
	requestIDBytes = 16
)

// dropped are the headers that concern only this connection (RFC 9110 §7.6.1) or
// are carried otherwise in a Request.
var dropped = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "te": true, "trailer": true,
	"transfer-encoding": true, "upgrade": true, "content-length": true, "expect": true, "host": true,
}

// ours are the headers of this name that a client may send; others are dropped,
// so that none can pose as a node's.
var ours = map[string]bool{"quinto-consistency": true, "quinto-revision": true}

const ourHeaders = "quinto-"

// lowerNames spares the common header names an allocation.
var lowerNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection",
		"Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Host", "Idempotency-Key", "If-Match",
		"If-None-Match", "Origin", "Quinto-Consistency", "Quinto-Revision", "Referer", "Response-Behavior",
		"Transfer-Encoding", "User-Agent", "X-Forwarded-For", "X-Request-Id"} {
		m[name] = strings.ToLower(name)
	}
	return m
}()

func lowerName(name string) string {
	if lower, ok := lowerNames[name]; ok {
		return lower
	}
	return strings.ToLower(name)
}

// request copies what the service needs out of fasthttp's buffers. A path outside
// this API version gives a Request with an empty Path.
func (s *Server) request(ctx *fasthttp.RequestCtx) (*resource.Request, *edgeError) {
	target, e := originForm(string(ctx.Request.Header.RequestURI()))
	if e != nil {
		return nil, e
	}
	raw, query, _ := strings.Cut(target, "?")
	path, ok := decodePath(raw)
	if !ok {
		return nil, errPath
	}
	if !validQuery(query) {
		return nil, badQuery(query)
	}
	header := headers(string(ctx.Request.Header.RawHeaders()))
	if encoding := header["content-encoding"]; encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, errEncoding
	}
	r := &resource.Request{
		ID:     make([]byte, requestIDBytes),
		Method: string(ctx.Method()),
		Query:  query,
		Header: header,
		Body:   bytes.Clone(ctx.Request.Body()), // never Ctx.Body, which inflates
		Scheme: "http",
		Host:   string(ctx.Request.Header.Host()),
		Prefix: prefix,
	}
	rand.Read(r.ID) // never fails: crypto/rand ends the program instead
	if addr, ok := ctx.RemoteAddr().(*net.TCPAddr); ok {
		r.Client = addr.IP.String()
	}
	if ctx.IsTLS() {
		r.Scheme = "https"
	}
	if c := s.options.Config.HTTP; c.PublicScheme != "" {
		r.Scheme = c.PublicScheme
	}
	if c := s.options.Config.HTTP; c.PublicHost != "" {
		r.Host = c.PublicHost
	}
	if rest, ok := strings.CutPrefix(path, prefix); ok && strings.HasPrefix(rest, "/") {
		r.Path = rest
	}
	if x := s.exchange(ctx); x != nil {
		x.request = r
	}
	return r, nil
}

// headers reads the lines that checkHead has found in order. Repeated names are
// joined as RFC 9110 §5.3 says and as WSGI servers do.
func headers(raw string) resource.Header {
	h := make(resource.Header, 8)
	for line := range strings.SplitSeq(raw, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		name = lowerName(name)
		if name == "" || dropped[name] || strings.HasPrefix(name, ourHeaders) && !ours[name] {
			continue
		}
		value = strings.Trim(value, " \t")
		if first, twice := h[name]; twice {
			value = first + ", " + value
		}
		h[name] = value
	}
	return h
}

// originForm reduces a request target to path and query.
func originForm(target string) (string, *edgeError) {
	if strings.ContainsRune(target, '#') {
		return "", malformed("The URL has a fragment.")
	}
	if strings.HasPrefix(target, "/") {
		return target, nil
	}
	_, rest, ok := strings.Cut(target, "://") // absolute form, as to a proxy (RFC 9112 §3.2.2)
	if !ok {
		return "", malformed("The URL is not a path.")
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:], nil
	}
	return "", malformed("The URL has no path.")
}

// checkHead refuses what two HTTP parsers could read differently, which is how
// requests are smuggled past a proxy, and heads beyond the limits. fasthttp accepts
// a length beside chunks, chunks in HTTP/1.0, and folded or bare-LF lines.
func (s *Server) checkHead(h *fasthttp.RequestHeader) *edgeError {
	if len(h.RequestURI()) > s.limits.QueryBytes {
		return errURITooLong
	}
	raw := h.RawHeaders()
	if len(raw) > s.limits.HeaderBytes {
		return errHeaders
	}
	lengths, encodings, hosts, lines := 0, 0, 0, 0
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' {
			return malformed("A header line does not end with CRLF.")
		}
		line := raw[:end-1]
		raw = raw[end+1:]
		if len(line) == 0 {
			break
		}
		if lines++; lines > MaxHeaderLines {
			return errHeaders
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || !token(name) || bytes.IndexByte(value, '\r') >= 0 {
			return malformed("A header line is not well formed.") // a folded one too
		}
		switch {
		case equalFold(name, "content-length"):
			lengths++
		case equalFold(name, "transfer-encoding"):
			encodings++
			if !equalFold(bytes.Trim(value, " \t"), "chunked") {
				return malformed("Transfer-Encoding can only be chunked.")
			}
		case equalFold(name, "host"):
			hosts++
			if !validHost(bytes.Trim(value, " \t")) {
				return malformed("Host is not well formed.")
			}
		}
	}
	return framing(string(h.Protocol()), lengths, encodings, hosts)
}

func framing(protocol string, lengths, encodings, hosts int) *edgeError {
	switch {
	case protocol != "HTTP/1.1" && protocol != "HTTP/1.0":
		return malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
	case encodings > 0 && (lengths > 0 || encodings > 1 || protocol == "HTTP/1.0"):
		return malformed("The length of the body is ambiguous.")
	case lengths > 1:
		return malformed("Content-Length is given twice.")
	case hosts > 1 || hosts == 0 && protocol == "HTTP/1.1":
		return malformed("One Host is needed.")
	}
	return nil
}

func equalFold(a []byte, lower string) bool {
	return len(a) == len(lower) && strings.EqualFold(string(a), lower)
}

// token reports whether b is an RFC 9110 token.
func token(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}

// validHost accepts what can stand in a URL as host and port: it is copied into
// Location and Next-Page.
func validHost(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~:[]%", c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}
