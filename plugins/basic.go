package plugins

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// Credentials takes name and password from a Basic Authorization header as
// Pyramid does: the scheme in any case, Base64 with foreign characters skipped
// and whatever follows its padding ignored, UTF-8 or else Latin-1.
func Credentials(authorization string) (user, password string, ok bool) {
	scheme, encoded, found := strings.Cut(authorization, " ")
	if !found || !strings.EqualFold(scheme, "basic") {
		return "", "", false
	}
	raw, err := base64.StdEncoding.DecodeString(alphabetOnly(encoded))
	if err != nil {
		return "", "", false
	}
	text := string(raw)
	if !utf8.Valid(raw) {
		text = latin1(raw)
	}
	return strings.Cut(text, ":")
}

// alphabetOnly keeps what Python's b64decode looks at.
func alphabetOnly(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
			out = append(out, c)
		case c == '=':
			// Padding counts only where it completes a quantum; then all is read.
			if n := len(out) % 4; n >= 2 {
				missing := 4 - n
				if strings.Count(s[i:], "=") < missing {
					return string(out)
				}
				return string(out) + "=="[:missing]
			}
		}
	}
	return string(out)
}

func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}
