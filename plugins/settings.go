package plugins

import (
	"fmt"
	"strconv"
	"strings"

	"quinto/internal/config"
)

// Text returns a setting of [app:main] as a text; otherwise when it is not given.
func (s *Settings) Text(name, otherwise string) string {
	text, ok := s.Lookup(name)
	if !ok {
		return otherwise
	}
	return strings.TrimSpace(config.Text(text))
}

// List returns a setting as a list, separated by any white space.
func (s *Settings) List(name string) []string {
	text, _ := s.Lookup(name)
	return config.List(text)
}

// Flag returns a setting that is true or false. The error names the setting.
func (s *Settings) Flag(name string, otherwise bool) (bool, error) {
	text := s.Text(name, "")
	if text == "" {
		return otherwise, nil
	}
	value, ok := config.Flag(text)
	if !ok {
		return false, fmt.Errorf("%s: %q is neither true nor false (allowed: %s)", name, text, config.FlagWords)
	}
	return value, nil
}

// Number returns a setting that is a whole number within bounds. The error names
// the setting.
func (s *Settings) Number(name string, otherwise, least, most int64) (int64, error) {
	text := s.Text(name, "")
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s: %q cannot be used (allowed: %d to %d)", name, text, least, most)
	}
	return n, nil
}
