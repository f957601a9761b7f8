package jsonschema

import (
	"errors"
	"time"

	"github.com/dlclark/regexp2"
)

// MaxBacktrack bounds one match of a pattern that goes back and forth; what takes
// longer is *Unusable. All of a validation together are bounded by MaxSteps.
const MaxBacktrack = 20 * time.Millisecond

// stepTime is what a step stands for.
const stepTime = 100 * time.Nanosecond

// Backtrack lets the schema match the patterns that RE2 leaves out (lookaround, back
// references) as Python does, by going back and forth. Call it before the schema is
// shared. What no longer depends on the pattern alone, but on the machine's speed, is
// whether a validation comes to an end: only the node that decides may ask.
func (s *Schema) Backtrack() {
	for text, p := range s.patterns {
		if p.re != nil || errors.Is(p.err, errPatterns) || wrongAnywhere(p.err) || len(text) > MaxPatternSize {
			continue
		}
		re, err := regexp2.Compile(text, regexp2.RE2) // with the names of groups that Python has
		if err != nil {
			continue // p.err says why it cannot be used
		}
		re.MatchTimeout = MaxBacktrack
		s.patterns[text] = &pattern{back: re, size: p.size}
	}
}

// goBack matches by going back and forth, and takes as many steps as that took time.
func (r *run) goBack(p *pattern, expression, text string) bool {
	if !r.spend(1 + len(text)/4) {
		return false
	}
	begun := time.Now()
	match, err := p.back.MatchString(text)
	if err != nil {
		r.halt(&Unusable{"The pattern " + repr(expression) + " takes too long"})
		return false
	}
	return r.spend(int(time.Since(begun)/stepTime)) && match
}
