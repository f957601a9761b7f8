package canon

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// Python gives v as Python's repr() writes it, for the error messages in which Kinto shows a value:
// `"None" is not a mapping type`. Keep it out of everything but messages.
func Python(v Value) string {
	return string(appendPython(nil, v))
}

func appendPython(dst []byte, v Value) []byte {
	switch v.Kind() {
	case Null, Missing:
		return append(dst, "None"...)
	case Bool:
		if v[0] == 't' {
			return append(dst, "True"...)
		}
		return append(dst, "False"...)
	case String:
		return appendPythonString(dst, unquote(v))
	case Array:
		dst = append(dst, '[')
		first := true
		v.Elements(func(e Value) bool {
			dst = appendPython(appendComma(dst, &first), e)
			return true
		})
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		first := true
		v.each(func(m rawMember) bool {
			dst = appendPythonString(appendComma(dst, &first), unquote(m.key))
			dst = appendPython(append(dst, ": "...), m.val)
			return true
		})
		return append(dst, '}')
	}
	return append(dst, v...) // canonical numbers are written as Python writes them
}

func appendComma(dst []byte, first *bool) []byte {
	if *first {
		*first = false
		return dst
	}
	return append(dst, ", "...)
}

func appendPythonString(dst []byte, s string) []byte {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	dst = append(dst, quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case unicode.IsPrint(r):
			dst = append(dst, string(r)...)
		case r < 0x100:
			dst = fmt.Appendf(dst, `\x%02x`, r)
		case r < 0x10000:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = fmt.Appendf(dst, `\U%08x`, r)
		}
	}
	return append(dst, quote)
}

// Text gives v as PostgreSQL's ->> operator does: a string as itself, everything else as unescaped JSON with ", " and ": ".
// Kinto's like_ filter matches against it. Null and Missing give false.
func Text(v Value) (string, bool) {
	switch v.Kind() {
	case Null, Missing:
		return "", false
	case String:
		return v.String()
	case Array, Object:
		return string(appendText(nil, v)), true
	}
	return string(v), true
}

func appendText(dst []byte, v Value) []byte {
	first := true
	switch v.Kind() {
	case Array:
		dst = append(dst, '[')
		v.Elements(func(e Value) bool {
			dst = appendText(appendComma(dst, &first), e)
			return true
		})
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		v.each(func(m rawMember) bool {
			dst = appendText(appendComma(dst, &first), m.key)
			dst = appendText(append(dst, ": "...), m.val)
			return true
		})
		return append(dst, '}')
	case String:
		return appendUnescaped(dst, v)
	}
	return append(dst, v...)
}

// appendUnescaped decodes the \u escapes of printable text, keeping the JSON string a JSON string.
func appendUnescaped(dst []byte, v []byte) []byte {
	for len(v) > 0 {
		i := bytes.IndexByte(v, '\\')
		if i < 0 || i+1 == len(v) {
			return append(dst, v...)
		}
		dst = append(dst, v[:i]...)
		v = v[i:]
		r, n := unescape(v)
		if v[1] == 'u' && r >= 0x20 {
			dst = append(dst, string(r)...)
		} else {
			dst = append(dst, v[:n]...)
		}
		v = v[n:]
	}
	return dst
}
