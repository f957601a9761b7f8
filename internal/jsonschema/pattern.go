package jsonschema

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/dlclark/regexp2"

	"quinto/internal/canon"
)

// pattern is a compiled regular expression, or why there is none.
type pattern struct {
	re   *regexp.Regexp
	back *regexp2.Regexp // in re's place, see Backtrack
	size int             // instructions
	err  error
}

// dialect writes what Python or ECMAScript spells otherwise in RE2's way.
var dialect = strings.NewReplacer(`\\`, `\\`, `\Z`, `\z`)

// inRE2 translates a pattern: \uXXXX and \Z; all else means the same or is not
// understood.
func inRE2(text string) string {
	text = dialect.Replace(text)
	if !strings.Contains(text, `\u`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		if text[i+1] == 'u' && i+6 <= len(text) {
			b.WriteString(`\x{` + text[i+2:i+6] + `}`)
			i += 5
			continue
		}
		b.WriteString(text[i : i+2])
		i++
	}
	return b.String()
}

var errPatterns = errors.New("the patterns of the schema are too large")

// compile makes a pattern of at most limit instructions.
func compile(text string, limit int) *pattern {
	if limit <= 0 {
		return &pattern{err: errPatterns}
	}
	text = inRE2(text)
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return &pattern{err: err}
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return &pattern{err: err}
	}
	if len(prog.Inst) > limit {
		return &pattern{err: errPatterns, size: len(prog.Inst)}
	}
	re, err := regexp.Compile(text)
	return &pattern{re: re, size: len(prog.Inst), err: err}
}

// wrongAnywhere reports whether a pattern that RE2 refuses is wrong in Python too,
// and not only something that RE2 leaves out.
func wrongAnywhere(err error) bool {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case syntax.ErrMissingBracket, syntax.ErrMissingParen, syntax.ErrUnexpectedParen, syntax.ErrTrailingBackslash,
		syntax.ErrMissingRepeatArgument, syntax.ErrInvalidCharRange:
		return true
	}
	return false
}

// collect compiles the patterns in a schema. What is wrong with one is said when
// it is used: it may be mere data.
func (s *Schema) collect(n *node, left *int) {
	add := func(text string) {
		if s.patterns[text] == nil {
			p := compile(text, *left)
			s.patterns[text] = p
			*left -= p.size
		}
	}
	for _, e := range n.elems {
		s.collect(e, left)
	}
	for _, key := range n.keys {
		m := n.members[key]
		switch {
		case key == "pattern" && m.is(canon.String):
			add(m.text)
		case key == "patternProperties":
			for _, text := range m.keys {
				add(text)
			}
		}
		s.collect(m, left)
	}
}

// matches reports whether text holds a match of the pattern.
func (r *run) matches(expression, text string) bool {
	p := r.patterns[expression]
	if p == nil { // of a meta-schema, where they are short
		r.spend(lookupSteps)
		p = compile(expression, MaxPatternSize)
	}
	if p.err != nil {
		r.halt(&Unusable{"The pattern " + repr(expression) + " cannot be used: " + p.err.Error()})
		return false
	}
	if p.back != nil {
		return r.goBack(p, expression, text)
	}
	return r.spend(1+len(text)*(1+p.size/8)/4) && p.re.MatchString(text)
}

// isRegex is the format "regex", checked of definitions only.
func (r *run) isRegex(text string) bool {
	p := compile(text, MaxPatternSize)
	if !r.spend(len(text) + p.size) {
		return true
	}
	return p.err == nil || !r.usable && !wrongAnywhere(p.err)
}

// leftOut reports whether RE2 leaves out what Python may know in the pattern.
func leftOut(text string) bool { return !wrongAnywhere(compile(text, MaxPatternSize).err) }
