package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Limits of a script, so that a mistake in a text file cannot become an endless run.
const (
	maxScenarios           = 2000
	maxRequestsPerScenario = 200
)

// Script is everything the scenario files say.
type Script struct {
	Scenarios []*Scenario
	setups    map[string]*Scenario
}

// Scenario is one named sequence of requests with buckets and users of its own.
type Scenario struct {
	Name      string
	File      string
	Line      int
	Rows      []string // ids of rows.txt that the scenario protects
	Setups    []string // names of the setups whose requests come first
	Settings  string   // "key=value key=value" that both servers need, sorted; "" is the common server
	Backend   string   // "memory" or "postgresql" when it makes sense on that reference only
	Generated bool     // drawn by the generator: it ends at its first difference, and rules know what is different on purpose
	Alone     bool     // nothing else may run meanwhile: it looks at what all scenarios share
	Requests  []*Request
}

// Request is one request of a scenario and what the comparison has to know about it.
type Request struct {
	Label  string // "1", "2"…; requests of setups are "s1", "s2"…
	File   string
	Line   int
	Settle int // milliseconds to wait after it, beside the usual
	Method string
	Target string // path under /v1, "root:/path" outside it, or a placeholder for a whole URL
	User   string // "" is anonymous
	Header [][2]string
	Body   []byte // nil when no body is sent
	Status int    // what real Kinto must answer; 0 when the file does not say
	OnPG   int    // the same on PostgreSQL, when it answers otherwise there
	Raw    bool   // the escapes inside the body's strings count too
	// Extra lists the keys that the target alone may have at the top of the body; any boolean is allowed too.
	Extra []string
	IsExt bool
	// Typed fields are compared by JSON type only, Any fields by presence only.
	Typed []string
	Any   []string
	// Words: what follows "Invalid JSON: " are the words of the server's JSON parser and are not compared.
	Words bool
	// Unordered: the body's lists are sets. Only: the keys that lead to the part of the body that is compared.
	Unordered bool
	Only      []string
	// Metrics: the body is Prometheus' text, of which the series of these metrics are compared by name and labels.
	Metrics []string
}

var (
	requestLine = regexp.MustCompile(`^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE) (\S+)((?: \S+)*)$`)
	headerLine  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*): ?(.*)$`)
)

// measures tells whether the scenario compares what a server counts.
func (sc *Scenario) measures() bool {
	return slices.ContainsFunc(sc.Requests, func(r *Request) bool { return r.Metrics != nil && !slices.Equal(r.Metrics, []string{"none"}) })
}

// LoadScript reads every *.txt of dir in the order of their names. An error names file and line.
func LoadScript(dir string) (*Script, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenario files in %s", dir)
	}
	sort.Strings(files)
	s := &Script{setups: map[string]*Scenario{}}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := s.parse(filepath.Base(file), text); err != nil {
			return nil, err
		}
	}
	return s, s.finish()
}

// parser holds where we are inside one file.
type parser struct {
	script *Script
	file   string
	line   int
	block  *Scenario
	req    *Request
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", p.file, p.line, fmt.Sprintf(format, args...))
}

// parse adds the scenarios and setups of one file.
func (s *Script) parse(file string, text []byte) error {
	p := &parser{script: s, file: file}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.line++
		if err := p.parseLine(strings.TrimRight(lines.Text(), " \t\r")); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (p *parser) parseLine(line string) error {
	switch {
	case line == "":
		p.req = nil
		return nil
	case strings.HasPrefix(line, "#"):
		return nil
	case strings.HasPrefix(line, "  "):
		if p.req == nil {
			return p.errorf("a body without a request")
		}
		p.req.Body = append(p.req.Body, strings.TrimPrefix(line, "  ")...)
		return nil
	case strings.HasPrefix(line, "scenario "), strings.HasPrefix(line, "setup "):
		return p.startBlock(line)
	case p.block == nil:
		return p.errorf("expected `scenario NAME` or `setup NAME`, got %q", line)
	}
	if m := requestLine.FindStringSubmatch(line); m != nil {
		return p.startRequest(m)
	}
	if p.req == nil {
		return p.parseMeta(line)
	}
	if p.req.Body != nil {
		return p.errorf("%q after a body: headers and directives come before it", line)
	}
	if strings.HasPrefix(line, "@") {
		return p.parseDirective(strings.Fields(line[1:]))
	}
	m := headerLine.FindStringSubmatch(line)
	if m == nil {
		return p.errorf("%q is no header, no directive and no request", line)
	}
	p.req.Header = append(p.req.Header, [2]string{m[1], m[2]})
	return nil
}

func (p *parser) startBlock(line string) error {
	kind, name, _ := strings.Cut(line, " ")
	name = strings.TrimSpace(name)
	p.req = nil
	p.block = &Scenario{Name: name, File: p.file, Line: p.line}
	if kind == "setup" {
		if _, twice := p.script.setups[name]; twice {
			return p.errorf("setup %q is defined twice", name)
		}
		p.script.setups[name] = p.block
		return nil
	}
	for _, other := range p.script.Scenarios {
		if other.Name == name {
			return p.errorf("scenario %q is already at %s:%d", name, other.File, other.Line)
		}
	}
	if len(p.script.Scenarios) == maxScenarios {
		return p.errorf("more than %d scenarios", maxScenarios)
	}
	p.script.Scenarios = append(p.script.Scenarios, p.block)
	return nil
}

func (p *parser) parseMeta(line string) error {
	if len(p.block.Requests) > 0 {
		return p.errorf("%q: expected a request", line)
	}
	key, value, _ := strings.Cut(line, ":")
	words := strings.Fields(value)
	switch key {
	case "rows":
		p.block.Rows = append(p.block.Rows, words...)
	case "setup":
		p.block.Setups = append(p.block.Setups, words...)
	case "settings":
		sort.Strings(words)
		p.block.Settings = strings.Join(words, " ")
	case "backend":
		if p.block.Backend = strings.TrimSpace(value); p.block.Backend != "memory" && p.block.Backend != "postgresql" {
			return p.errorf("backend is memory or postgresql, not %q", value)
		}
	case "alone":
		p.block.Alone = true
	default:
		return p.errorf("unknown line %q", line)
	}
	return nil
}

func (p *parser) startRequest(m []string) error {
	if len(p.block.Requests) == maxRequestsPerScenario {
		return p.errorf("more than %d requests", maxRequestsPerScenario)
	}
	r := &Request{File: p.file, Line: p.line, Method: m[1], Target: m[2], Label: strconv.Itoa(len(p.block.Requests) + 1)}
	words := strings.Fields(m[3])
	for i := 0; i < len(words); i++ {
		user, isUser := strings.CutPrefix(words[i], "user=")
		switch {
		case isUser:
			r.User = user
		case words[i] == "=>" && i+1 < len(words):
			i++
			if err := r.setStatus(words[i]); err != nil {
				return p.errorf("status %q is no number and no two numbers", words[i])
			}
		default:
			return p.errorf("unknown word %q in a request line", words[i])
		}
	}
	if !strings.HasPrefix(r.Target, "/") && !strings.HasPrefix(r.Target, "root:/") && !strings.HasPrefix(r.Target, "{next:") {
		return p.errorf("target %q is no path", r.Target)
	}
	p.req = r
	p.block.Requests = append(p.block.Requests, r)
	return nil
}

// setStatus reads "201", or "201/409": what Kinto answers on its memory backend and on PostgreSQL.
func (r *Request) setStatus(word string) error {
	memory, pg, two := strings.Cut(word, "/")
	var err, errPG error
	r.Status, err = strconv.Atoi(memory)
	if two {
		r.OnPG, errPG = strconv.Atoi(pg)
	}
	return errors.Join(err, errPG)
}

// statusOn gives what real Kinto must answer with this storage, 0 when the file does not say.
func (r *Request) statusOn(backend string) int {
	if backend == "postgresql" && r.OnPG != 0 {
		return r.OnPG
	}
	return r.Status
}

func (p *parser) parseDirective(words []string) error {
	if len(words) == 0 {
		return p.errorf("an empty directive")
	}
	switch args := words[1:]; words[0] {
	case "raw":
		p.req.Raw = true
	case "words":
		p.req.Words = true
	case "unordered":
		p.req.Unordered = true
	case "only":
		p.req.Only = args
	case "metrics":
		p.req.Metrics = args
	case "extra":
		p.req.Extra, p.req.IsExt = args, true
	case "type":
		p.req.Typed = append(p.req.Typed, args...)
	case "any":
		p.req.Any = append(p.req.Any, args...)
	case "base64": // a body that is no text
		if len(args) != 1 {
			return p.errorf("@base64 takes one word")
		}
		body, err := base64.StdEncoding.DecodeString(args[0])
		if err != nil {
			return p.errorf("@base64: %v", err)
		}
		p.req.Body = body
	default:
		return p.errorf("unknown directive @%s", words[0])
	}
	return nil
}

// finish puts the setups' requests in front of the scenarios and checks every placeholder.
func (s *Script) finish() error {
	for _, sc := range s.Scenarios {
		if len(sc.Requests) == 0 {
			return fmt.Errorf("%s:%d: scenario %q has no request", sc.File, sc.Line, sc.Name)
		}
		if len(sc.Rows) == 0 {
			return fmt.Errorf("%s:%d: scenario %q names no row", sc.File, sc.Line, sc.Name)
		}
		var before []*Request
		for _, name := range sc.Setups {
			setup, ok := s.setups[name]
			if !ok {
				return fmt.Errorf("%s:%d: unknown setup %q", sc.File, sc.Line, name)
			}
			for _, r := range setup.Requests {
				copied := *r
				copied.Label = "s" + strconv.Itoa(len(before)+1)
				before = append(before, &copied)
			}
		}
		sc.Requests = append(before, sc.Requests...)
		if err := checkPlaceholders(sc); err != nil {
			return err
		}
	}
	return nil
}

// checkPlaceholders refuses unknown placeholders and references to requests that come later.
func checkPlaceholders(sc *Scenario) error {
	var labels []string
	for _, r := range sc.Requests {
		for _, text := range r.texts() {
			for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
				label, err := placeholderLabel(m)
				if err != nil {
					return fmt.Errorf("%s:%d: %s: %w", r.File, r.Line, m[0], err)
				}
				if label != "" && !slices.Contains(labels, label) {
					return fmt.Errorf("%s:%d: %s names request %s, which is not before this one", r.File, r.Line, m[0], label)
				}
			}
		}
		labels = append(labels, r.Label)
	}
	return nil
}

// texts gives every part of the request that may hold placeholders.
func (r *Request) texts() []string {
	texts := []string{r.Target, string(r.Body)}
	for _, h := range r.Header {
		texts = append(texts, h[1])
	}
	return texts
}
