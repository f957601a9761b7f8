package api

import (
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"quinto/api/resource"
	"quinto/internal/canon"
	"quinto/internal/config"
)

// RequestLog writes a line for each request, and one for each request of a batch,
// with the fields of Kinto's loggers request.summary and subrequest.summary.
// Headers and bodies are never written: they hold credentials and data.
type RequestLog struct {
	logging config.Logging
	project string // Logger of the JSON
	host    string
	pid     int

	mu sync.Mutex
	to io.Writer
}

// NewRequestLog returns the log that c asks for, written to to in whole lines; nil
// when it asks for none.
func NewRequestLog(c *config.Config, to io.Writer) *RequestLog {
	if !c.Logging.Requests && !c.Logging.Subrequests {
		return nil
	}
	host, _ := os.Hostname() // an unknown one is empty
	return &RequestLog{logging: c.Logging, project: c.Project.Name, host: host, pid: os.Getpid(), to: to}
}

const (
	maxLoggedText = 2048 // bytes of one field; a client chooses most of them
	infoSeverity  = 6    // syslog's
)

// field is a member of a line; text, or what is not nil.
type field struct {
	name   string
	text   string
	number int64
	kind   byte // 's' text, 'n' number, 'q' a query string
}

// write logs a request that was answered and the parts of a batch.
func (l *RequestLog) write(x *exchange, method, path string, parts []resource.Part) {
	now := x.begun.Add(x.took)
	var header resource.Header
	var query string
	if x.request != nil {
		header, query = x.request.Header, x.request.Query
	}
	shared := []field{{name: "agent", text: header["user-agent"]}, {name: "lang", text: header["accept-language"]}, {name: "rid", text: rid(header)},
		{name: "querystring", text: query, kind: 'q'}}
	if policy, id, known := strings.Cut(x.answer.UserID, ":"); known {
		shared = append(shared, field{name: "uid", text: id}, field{name: "authn_type", text: policy})
	}
	if parts != nil {
		shared = append(shared, number("batch_size", len(parts)))
	}
	shared = slices.DeleteFunc(shared, func(f field) bool { return f.kind != 'n' && f.text == "" })
	var lines []byte
	if l.logging.Subrequests {
		for i := range parts {
			p := &parts[i]
			fields := append(slices.Clip(shared), field{name: "method", text: p.Method}, field{name: "path", text: prefix + p.Path},
				number("code", p.Status), number("errno", p.Errno))
			lines = l.append(lines, "subrequest.summary", now, fields)
		}
	}
	if l.logging.Requests {
		fields := append(shared, field{name: "method", text: method}, field{name: "path", text: path},
			field{name: "time", text: now.Format("2006-01-02T15:04:05.000000")}, number("code", x.answer.Status),
			number("errno", errno(x.answer)), number("t", int(x.took.Milliseconds())))
		lines = l.append(lines, "request.summary", now, fields)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.to.Write(lines) // a log that cannot be written must not fail requests
}

func number(name string, n int) field { return field{name: name, number: int64(n), kind: 'n'} }

// rid is the id of a request: the client's, else a new one.
func rid(h resource.Header) string {
	if id := h["x-request-id"]; id != "" {
		return id
	}
	return uuid.NewString()
}

func (l *RequestLog) append(b []byte, logger string, at time.Time, fields []field) []byte {
	for i := range fields {
		if len(fields[i].text) > maxLoggedText {
			fields[i].text = strings.ToValidUTF8(fields[i].text[:maxLoggedText], "")
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	if l.logging.JSON {
		return l.appendJSON(b, logger, at, fields)
	}
	return appendText(b, fields)
}

// appendJSON appends a line of Mozilla's JSON (MozLog 2.0).
func (l *RequestLog) appendJSON(b []byte, logger string, at time.Time, fields []field) []byte {
	b = strconv.AppendInt(append(b, `{"Timestamp": `...), at.UnixNano(), 10)
	b = canon.AppendString(append(b, `, "Type": `...), logger)
	b = canon.AppendString(append(b, `, "Logger": `...), l.project)
	b = canon.AppendString(append(b, `, "Hostname": `...), l.host)
	b = strconv.AppendInt(append(b, `, "EnvVersion": "2.0", "Severity": `...), infoSeverity, 10)
	b = strconv.AppendInt(append(b, `, "Pid": `...), int64(l.pid), 10)
	b = append(b, `, "Fields": {`...)
	for i, f := range fields {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(canon.AppendString(b, f.name), ": "...)
		switch f.kind {
		case 'n':
			b = strconv.AppendInt(b, f.number, 10)
		case 'q':
			b = appendQuery(b, f.text)
		default:
			b = canon.AppendString(b, f.text)
		}
	}
	if logger == "subrequest.summary" {
		b = append(b, `, "msg": "subrequest.summary"`...)
	}
	return append(b, "}}\n"...)
}

// appendQuery appends a query string as an object; of a repeated name the last value.
func appendQuery(b []byte, raw string) []byte {
	values, _ := url.ParseQuery(raw) // what is no pair is left out
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(canon.AppendString(b, name), ": "...)
		b = canon.AppendString(b, values[name][len(values[name])-1])
	}
	return append(b, '}')
}

// appendText appends the layout of Kinto's formatter for people, without colours:
// "GET   /v1/buckets?_limit=1" 200 (3 ms) agent=… uid=….
func appendText(b []byte, fields []field) []byte {
	text, numbers := map[string]string{}, map[string]string{"code": "?", "t": "?"}
	var rest []byte
	for _, f := range fields {
		switch f.name {
		case "method", "path", "querystring":
			text[f.name] = printable(f.text)
			continue
		case "code", "t":
			numbers[f.name] = strconv.FormatInt(f.number, 10)
			continue
		}
		rest = append(append(append(rest, ' '), f.name...), '=')
		if f.kind == 'n' {
			rest = strconv.AppendInt(rest, f.number, 10)
		} else {
			rest = append(rest, printable(f.text)...)
		}
	}
	b = append(append(b, '"'), text["method"]...)
	for range 5 - len(text["method"]) {
		b = append(b, ' ')
	}
	b = append(append(append(append(append(b, ' '), text["path"]...), '?'), text["querystring"]...), `" `...)
	b = append(append(append(append(b, numbers["code"]...), " ("...), numbers["t"]...), " ms)"...)
	return append(append(b, rest...), '\n')
}

// printable keeps a client from writing lines of its own, or to the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, s)
}
