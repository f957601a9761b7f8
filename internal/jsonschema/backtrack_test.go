package jsonschema

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What RE2 leaves out is matched when it is asked for, and only then.
func TestBacktrack(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		valid         bool
	}{
		{`^(?!draft).*$`, "post", true}, {`^(?!draft).*$`, "draft-1", false},
		{`^(?=.*\\d)(?=.*[a-z]).{4,}$`, "a1bc", true}, {`^(?=.*\\d)(?=.*[a-z]).{4,}$`, "abcd", false},
		{`^(a|b)\\1$`, "aa", true}, {`^(a|b)\\1$`, "ab", false}, {`^(?P<x>é)\\1$`, "éé", true}, {`(?<=a)b`, "ab", true},
	} {
		s, err := Compile(value(t, `{"properties":{"a":{"pattern":"`+c.pattern+`"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		object := value(t, `{"a":"`+c.text+`"}`)
		var unusable *Unusable
		if _, err := s.Validate(object); !errors.As(err, &unusable) {
			t.Errorf("%s without being asked: %v", c.pattern, err)
		}
		s.Backtrack()
		if f, err := s.Validate(object); err != nil || (f == nil) != c.valid {
			t.Errorf("%s of %q: %v, %v", c.pattern, c.text, f, err)
		}
	}
}

// A pattern that would go on for ever is cut off, and many that take long are together.
func TestBacktrackIsBounded(t *testing.T) {
	s, err := Compile(value(t, `{"properties":{"a":{"items":{"pattern":"^(?!x)(a+)+$"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	s.Backtrack()
	begun := time.Now()
	var unusable *Unusable
	slow := `"` + strings.Repeat("a", 60) + `!"`
	if _, err := s.Validate(value(t, `{"a":[`+slow+strings.Repeat(","+slow, 200)+`]}`)); !errors.As(err, &unusable) || !strings.Contains(err.Error(), "takes") {
		t.Error(err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}
