package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// native is Kinto's rule for values (kinto.core.utils.native_value): what parses as
// JSON is that, anything else is text. Numbers stay text, so that a version `1.10`
// does not turn into 1.1. null means unset: an empty text.
func native(text string) any {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return text
	}
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return value
	case []any:
		return value
	}
	return text
}

// Text is the value of a setting as one text: what is quoted as JSON loses its quotes.
func Text(raw string) string {
	if text, ok := native(raw).(string); ok {
		return text
	}
	return raw
}

// List is the value of a setting as a list by Pyramid's aslist: a text is split at any
// white space; of a JSON array each text is.
func List(raw string) []string {
	switch value := native(raw).(type) {
	case []any:
		var all []string
		for _, item := range value {
			all = append(all, strings.Fields(fmt.Sprint(item))...)
		}
		return all
	case string:
		return strings.Fields(value)
	}
	return nil
}

// assign parses raw for a row and stores it in c. The error says what is wrong and
// what is allowed, not where.
func (s Setting) assign(c *Config, raw string) *SettingError {
	text := strings.TrimSpace(Text(raw))
	if s.check != nil {
		if allowed, ok := s.check(text); !ok {
			return &SettingError{Problem: s.quote(text) + " cannot be used", Allowed: allowed}
		}
	}
	switch place := s.field(c).(type) {
	case *string:
		*place = text
	case *[]string:
		*place = List(raw)
	case named:
		place.into[place.key] = text
	case grant:
		if list := List(raw); len(list) > 0 {
			place.into[place.key] = list
		}
	case *bool:
		return s.assignBool(place, text)
	case *int:
		return s.assignNumber(text, func(n int64) { *place = int(n) })
	case *int64:
		return s.assignNumber(text, func(n int64) { *place = n })
	case *time.Duration:
		return s.assignNumber(text, func(n int64) { *place = time.Duration(n) * s.Unit })
	}
	return nil
}

// assignBool takes Pyramid's words for true. Kinto calls every other text false; here
// only the opposites of those are, so that `readonly = ture` does not pass.
func (s Setting) assignBool(place *bool, text string) *SettingError {
	value, ok := Flag(text)
	if !ok {
		return &SettingError{Problem: s.quote(text) + " is neither true nor false", Allowed: FlagWords}
	}
	*place = value
	return nil
}

// FlagWords are what Flag takes, for errors.
const FlagWords = "true, yes, on, 1, false, no, off, 0"

// Flag is the value of a setting that is true or false; ok is false for any other word.
func Flag(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "t", "true", "y", "yes", "on", "1":
		return true, true
	case "f", "false", "n", "no", "off", "0", "":
		return false, true
	}
	return false, false
}

func (s Setting) assignNumber(text string, store func(int64)) *SettingError {
	allowed := fmt.Sprintf("%d to %d", s.Min, s.Max)
	if s.Optional {
		allowed += ", or empty"
	}
	if text == "" && s.Optional {
		store(0)
		return nil
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return &SettingError{Problem: s.quote(text) + " is not a whole number", Allowed: allowed}
	}
	if number < s.Min || number > s.Max {
		return &SettingError{Problem: text + " is out of bounds", Allowed: allowed}
	}
	store(number)
	return nil
}

func (s Setting) quote(text string) string {
	if s.Secret {
		return "the value"
	}
	return strconv.Quote(text)
}
