// Package canon is the one JSON decoder at the border and the one way stored JSON is read and edited.
//
// Every body is rewritten once into its canonical form: the bytes that Kinto's serializer (python-rapidjson) gives for the
// same document. Validation, authorization, storage and answers see only that form, so no two readers can disagree about
// a document (CVE-2017-12635: two parsers, two truths), and stored bytes are spliced into answers without re-encoding.
// The canonical form has no white space, is ASCII with upper-case \uXXXX escapes, has unique keys (first position, last
// value), exact integers from -2^63 to 2^64-1, and doubles written as the shortest text that reads back to the same double.
package canon

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Limits of one document. A zero field stands for its default.
type Limits struct {
	Depth    int // nesting of objects and arrays
	Members  int // object members plus array elements of the whole document
	KeyBytes int // length of one key, in UTF-8 bytes
}

// Defaults of Limits. rapidjson gives up near depth 1000; readers of canonical values recurse, so their stack is bounded too.
const (
	DefaultDepth    = 500
	DefaultMembers  = 100_000
	DefaultKeyBytes = 1 << 10
)

func (l Limits) withDefaults() Limits {
	if l.Depth <= 0 {
		l.Depth = DefaultDepth
	}
	if l.Members <= 0 {
		l.Members = DefaultMembers
	}
	if l.KeyBytes <= 0 {
		l.KeyBytes = DefaultKeyBytes
	}
	return l
}

// SyntaxError says that the source is not JSON as RFC 8259 and rapidjson define it. Its text is Kinto's.
type SyntaxError struct {
	Offset int    // in bytes from the start of the source
	Msg    string // what is wrong, in rapidjson's (or, for bad UTF-8, Python's) words
}

// Error gives the text of Kinto's 400 answer.
func (e *SyntaxError) Error() string { return "Invalid JSON: " + e.Msg }

// LimitError says that the source is beyond one of Limits.
type LimitError struct {
	Name string // "depth", "members" or "key bytes"
	Max  int
}

// Error names the limit and its value.
func (e *LimitError) Error() string {
	return fmt.Sprintf("Invalid JSON: document exceeds the limit of %d %s", e.Max, e.Name)
}

// Canonical validates src and returns its canonical form in a new slice; src is neither kept nor changed.
// It returns *SyntaxError or *LimitError. Time and memory are linear in len(src); the result is at most about four times
// as long (1e15, is written in full).
func Canonical(src []byte, lim Limits) ([]byte, error) {
	// Kinto decodes UTF-8 before it parses, so bad bytes anywhere win over syntax errors before them.
	if !utf8.Valid(src) {
		return nil, invalidUTF8(src)
	}
	var open [smallObject]member // keeps the members of everyday documents off the heap
	p := parser{src: src, dst: make([]byte, 0, len(src)+len(src)/8+16), lim: lim.withDefaults(), open: open[:0]}
	p.space()
	if p.pos == len(src) {
		return nil, p.fail(p.pos, "The document is empty.")
	}
	if err := p.value(0); err != nil {
		return nil, err
	}
	p.space()
	if p.pos < len(src) {
		return nil, p.fail(p.pos, "The document root must not be followed by other values.")
	}
	if len(p.edits) > 0 {
		return p.withoutDuplicates(), nil
	}
	return p.dst, nil
}

// parser rewrites src into dst. Duplicate keys are written too, and noted as edits that one last pass carries out: were each
// object repaired when it closes, nested duplicates would copy the same bytes once per level.
type parser struct {
	src     []byte
	pos     int
	dst     []byte
	lim     Limits
	members int
	open    []member // members of the objects that are being read, innermost last
	edits   []edit
}

// member is one member of an open object, as offsets in dst. Value is that of the last duplicate; own that of this member.
type member struct {
	key, own, value span
}

type span struct{ start, end int }

// edit replaces the bytes of old by those of repl; an empty repl drops them.
type edit struct{ old, repl span }

func (p *parser) fail(offset int, msg string) error {
	return &SyntaxError{Offset: offset, Msg: fmt.Sprintf("Parse error at offset %d: %s", offset, msg)}
}

func (p *parser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek gives the next byte, or 0 at the end: no token starts with NUL.
func (p *parser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *parser) value(depth int) error {
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth + 1)
	case c == '[':
		return p.array(depth + 1)
	case c == '"':
		return p.string()
	case c == 't':
		return p.literal("true")
	case c == 'f':
		return p.literal("false")
	case c == 'n':
		return p.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	return p.fail(p.pos, "Invalid value.")
}

func (p *parser) literal(word string) error {
	for i := range len(word) {
		if p.peek() != word[i] {
			return p.fail(p.pos, "Invalid value.")
		}
		p.pos++
	}
	p.dst = append(p.dst, word...)
	return nil
}

// enter consumes the opening bracket of a container at the given depth.
func (p *parser) enter(depth int) error {
	if depth > p.lim.Depth {
		return &LimitError{Name: "depth", Max: p.lim.Depth}
	}
	p.dst = append(p.dst, p.src[p.pos])
	p.pos++
	p.space()
	return nil
}

func (p *parser) countMember() error {
	p.members++
	if p.members > p.lim.Members {
		return &LimitError{Name: "members", Max: p.lim.Members}
	}
	return nil
}

func (p *parser) array(depth int) error {
	if err := p.enter(depth); err != nil {
		return err
	}
	if p.peek() == ']' {
		p.pos++
		p.dst = append(p.dst, ']')
		return nil
	}
	for {
		if err := p.countMember(); err != nil {
			return err
		}
		if err := p.value(depth); err != nil {
			return err
		}
		p.space()
		switch p.peek() {
		case ',':
			p.dst = append(p.dst, ',')
			p.pos++
			p.space()
		case ']':
			p.dst = append(p.dst, ']')
			p.pos++
			return nil
		default:
			return p.fail(p.pos, "Missing a comma or ']' after an array element.")
		}
	}
}

func (p *parser) object(depth int) error {
	if err := p.enter(depth); err != nil {
		return err
	}
	if p.peek() == '}' {
		p.pos++
		p.dst = append(p.dst, '}')
		return nil
	}
	keys := keySet{p: p, base: len(p.open)}
	comma := len(p.dst)
	for {
		m, err := p.member(depth)
		if err != nil {
			return err
		}
		keys.add(comma, m)
		p.space()
		switch p.peek() {
		case ',':
			comma = len(p.dst)
			p.dst = append(p.dst, ',')
			p.pos++
			p.space()
		case '}':
			keys.close()
			p.dst = append(p.dst, '}')
			p.pos++
			return nil
		default:
			return p.fail(p.pos, "Missing a comma or '}' after an object member.")
		}
	}
}

func (p *parser) member(depth int) (member, error) {
	var m member
	if p.peek() != '"' {
		return m, p.fail(p.pos, "Missing a name for object member.")
	}
	if err := p.countMember(); err != nil {
		return m, err
	}
	m.key.start = len(p.dst)
	if err := p.string(); err != nil {
		return m, err
	}
	m.key.end = len(p.dst)
	if key := p.dst[m.key.start:m.key.end]; len(key)-2 > p.lim.KeyBytes && len(unquote(key)) > p.lim.KeyBytes {
		return m, &LimitError{Name: "key bytes", Max: p.lim.KeyBytes}
	}
	p.space()
	if p.peek() != ':' {
		return m, p.fail(p.pos, "Missing a colon after a name of object member.")
	}
	p.pos++
	p.dst = append(p.dst, ':')
	p.space()
	m.own.start = len(p.dst)
	err := p.value(depth)
	m.own.end = len(p.dst)
	m.value = m.own
	return m, err
}

// smallObject is the number of members up to which keys are compared one by one; more of them go into a map.
const smallObject = 16

// keySet finds the duplicate keys of one object. Its members are p.open[base:] until close.
type keySet struct {
	p     *parser
	base  int
	index map[string]int // canonical key → index in p.open, only above smallObject
	dup   bool
}

// add notes a member whose text began with the comma at the given offset.
func (s *keySet) add(comma int, m member) {
	p := s.p
	key := p.dst[m.key.start:m.key.end]
	if i := s.find(key); i >= 0 {
		// A later duplicate goes away with its comma, the first takes its value: Python's dict does the same.
		p.edits = append(p.edits, edit{old: span{comma, m.own.end}})
		p.open[i].value = m.own
		s.dup = true
		return
	}
	p.open = append(p.open, m)
	if s.index != nil {
		s.index[string(key)] = len(p.open) - 1
	} else if len(p.open)-s.base > smallObject {
		s.index = make(map[string]int, 2*smallObject)
		for i := s.base; i < len(p.open); i++ {
			s.index[string(p.dst[p.open[i].key.start:p.open[i].key.end])] = i
		}
	}
}

func (s *keySet) find(key []byte) int {
	p := s.p
	if s.index != nil {
		if i, ok := s.index[string(key)]; ok {
			return i
		}
		return -1
	}
	for i := s.base; i < len(p.open); i++ {
		if k := p.open[i].key; string(p.dst[k.start:k.end]) == string(key) {
			return i
		}
	}
	return -1
}

func (s *keySet) close() {
	p := s.p
	if s.dup {
		for _, m := range p.open[s.base:] {
			if m.value != m.own {
				p.edits = append(p.edits, edit{old: m.own, repl: m.value})
			}
		}
	}
	p.open = p.open[:s.base]
}

// withoutDuplicates carries out the edits. Each byte of dst is copied at most once.
func (p *parser) withoutDuplicates() []byte {
	slices.SortFunc(p.edits, func(a, b edit) int { return a.old.start - b.old.start })
	return p.emit(make([]byte, 0, len(p.dst)), span{0, len(p.dst)})
}

func (p *parser) emit(out []byte, s span) []byte {
	for s.start < s.end {
		i, _ := slices.BinarySearchFunc(p.edits, s.start, func(e edit, start int) int { return e.old.start - start })
		if i == len(p.edits) || p.edits[i].old.start >= s.end {
			break
		}
		e := p.edits[i]
		out = append(out, p.dst[s.start:e.old.start]...)
		out = p.emit(out, e.repl)
		s.start = e.old.end
	}
	if s.start < s.end {
		out = append(out, p.dst[s.start:s.end]...)
	}
	return out
}
