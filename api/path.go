package api

import (
	"strings"
	"unicode/utf8"
)

// decodePath undoes percent encoding, once. As Kinto's server does, it leaves a
// percent sign that no two hexadecimal digits follow. It reports false unless the
// result is UTF-8.
func decodePath(raw string) (string, bool) {
	path := unescape(raw)
	return path, utf8.ValidString(path)
}

// validQuery reports whether a raw query string is UTF-8 once it is decoded.
func validQuery(raw string) bool { return utf8.ValidString(unescape(raw)) }

func unescape(raw string) string {
	i := strings.IndexByte(raw, '%')
	if i < 0 {
		return raw
	}
	b := make([]byte, 0, len(raw))
	b = append(b, raw[:i]...)
	for ; i < len(raw); i++ {
		if raw[i] == '%' && i+2 < len(raw) {
			high, ok := hexDigit(raw[i+1])
			low, ok2 := hexDigit(raw[i+2])
			if ok && ok2 {
				b = append(b, high<<4|low)
				i += 2
				continue
			}
		}
		b = append(b, raw[i])
	}
	return string(b)
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
