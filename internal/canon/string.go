package canon

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// AppendString appends s as a canonical JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if plain(s[i]) {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		r, n := utf8.DecodeRuneInString(s[i:])
		dst = appendRune(dst, r)
		i += n
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// plain reports whether c stands for itself inside a string, in the source as in the canonical form.
func plain(c byte) bool { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\' }

func appendRune(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	if r >= 0x20 && r < 0x80 {
		return append(dst, byte(r))
	}
	if r >= 0x10000 {
		high, low := utf16.EncodeRune(r)
		return appendUnit(appendUnit(dst, high), low)
	}
	return appendUnit(dst, r)
}

func appendUnit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u', upperHex[u>>12&15], upperHex[u>>8&15], upperHex[u>>4&15], upperHex[u&15])
}

// string rewrites the string at pos. The source is known to be valid UTF-8.
func (p *parser) string() error {
	p.dst = append(p.dst, '"')
	p.pos++
	for {
		start := p.pos
		for p.pos < len(p.src) && plain(p.src[p.pos]) {
			p.pos++
		}
		p.dst = append(p.dst, p.src[start:p.pos]...)
		if p.pos == len(p.src) {
			return p.fail(p.pos, "Missing a closing quotation mark in string.")
		}
		switch c := p.src[p.pos]; {
		case c == '"':
			p.pos++
			p.dst = append(p.dst, '"')
			return nil
		case c == '\\':
			if err := p.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return p.fail(p.pos, "Invalid encoding in string.")
		default:
			r, n := utf8.DecodeRune(p.src[p.pos:])
			p.dst = appendRune(p.dst, r)
			p.pos += n
		}
	}
}

// escape rewrites one escape sequence, or the two of a surrogate pair. Errors point at its backslash.
func (p *parser) escape() error {
	at := p.pos
	p.pos++
	c := p.peek()
	p.pos++
	switch c {
	case '"', '\\', '/':
		p.dst = appendRune(p.dst, rune(c))
	case 'b', 'f', 'n', 'r', 't':
		p.dst = append(p.dst, '\\', c)
	case 'u':
		r, ok := p.hex4()
		if !ok {
			return p.fail(at, "Incorrect hex digit after \\u escape in string.")
		}
		if utf16.IsSurrogate(r) {
			low := rune(0)
			if r < 0xDC00 && bytes.HasPrefix(p.src[p.pos:], []byte(`\u`)) {
				p.pos += 2
				if low, ok = p.hex4(); !ok {
					return p.fail(at, "Incorrect hex digit after \\u escape in string.")
				}
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return p.fail(at, "The surrogate pair in string is invalid.")
			}
		}
		p.dst = appendRune(p.dst, r)
	default:
		return p.fail(at, "Invalid escape character in string.")
	}
	return nil
}

func (p *parser) hex4() (rune, bool) {
	if len(p.src)-p.pos < 4 {
		return 0, false
	}
	r, ok := decodeHex4(p.src[p.pos:])
	p.pos += 4
	return r, ok
}

// decodeHex4 reads the four hexadecimal digits at the start of b.
func decodeHex4(b []byte) (rune, bool) {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unquote decodes a canonical string, given with its quotes. On other bytes it gives some text, never a panic.
func unquote(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	b = b[1 : len(b)-1]
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return string(b)
	}
	out := append(make([]byte, 0, len(b)), b[:i]...)
	for i < len(b) {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			i++
			continue
		}
		r, n := unescape(b[i:])
		out = utf8.AppendRune(out, r)
		i += n
	}
	return string(out)
}

// unescape decodes the escape sequence at the start of b and gives its length. len(b) is at least 2.
func unescape(b []byte) (rune, int) {
	switch b[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		if len(b) < 6 {
			return utf8.RuneError, len(b)
		}
		r, _ := decodeHex4(b[2:])
		if utf16.IsSurrogate(r) && len(b) >= 12 {
			low, _ := decodeHex4(b[8:])
			return utf16.DecodeRune(r, low), 12
		}
		return r, 6
	}
	return rune(b[1]), 2
}

// invalidUTF8 words the first decoding error as CPython's UTF-8 codec does, which Kinto passes on to the client.
func invalidUTF8(src []byte) error {
	at := 0
	for at < len(src) {
		r, n := utf8.DecodeRune(src[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	n, why := badSequence(src[at:])
	what := fmt.Sprintf("byte 0x%02x in position %d", src[at], at)
	if n > 1 {
		what = fmt.Sprintf("bytes in position %d-%d", at, at+n-1)
	}
	return &SyntaxError{Offset: at, Msg: fmt.Sprintf("'utf-8' codec can't decode %s: %s", what, why)}
}

// badSequence gives the length of the ill-formed subsequence at the start of b and CPython's reason.
func badSequence(b []byte) (int, string) {
	size, low, high := 2, byte(0x80), byte(0xBF)
	switch c := b[0]; {
	case c < 0xC2 || c > 0xF4:
		return 1, "invalid start byte"
	case c >= 0xF0:
		size = 4
	case c >= 0xE0:
		size = 3
	}
	switch b[0] {
	case 0xE0:
		low = 0xA0
	case 0xED:
		high = 0x9F
	case 0xF0:
		low = 0x90
	case 0xF4:
		high = 0x8F
	}
	for i := 1; i < size; i++ {
		if i == len(b) {
			return i, "unexpected end of data"
		}
		if b[i] < low || b[i] > high {
			return i, "invalid continuation byte"
		}
		low, high = 0x80, 0xBF
	}
	return 1, "invalid start byte"
}
