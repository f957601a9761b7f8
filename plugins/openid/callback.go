package openid

import (
	"errors"
	"regexp"
	"strings"
)

// localCallbacks are trusted unless the settings name others: command-line clients
// listen on ports of the user's own machine.
var localCallbacks = []string{"http://localhost:*/*", "http://127.0.0.1:*/*"}

// maxCallbackBytes is Kinto's.
const maxCallbackBytes = 2048

// urlForm is what Kinto takes for a URL (colander.url), but for a hyphen at the end of
// a label: whether it is trusted is another question.
var urlForm = regexp.MustCompile(`(?i)^((?:http|ftp)s?://)?(?:[^\s:@/]+(?::[^\s:@/]*)?@)?(?:` +
	`(?:0|25[0-5]|2[0-4][0-9]|1[0-9]?[0-9]?|[1-9][0-9]?)(?:\.(?:0|25[0-5]|2[0-4][0-9]|1[0-9]?[0-9]?|[1-9][0-9]?)){3}` +
	`|\[[0-9a-f:.]+\]` +
	`|[a-z\x{a1}-\x{ffff}0-9](?:[a-z\x{a1}-\x{ffff}0-9-]{0,61}[a-z\x{a1}-\x{ffff}0-9])?(?:\.[a-z\x{a1}-\x{ffff}0-9-]{1,63})*` +
	`\.(?:[a-z\x{a1}-\x{ffff}-]{2,63}|xn--[a-z0-9]{1,59})\.?|localhost)(?::[0-9]{1,5})?(?:[/?#]\S*)?$`)

var errAmbiguous = errors.New("a URL that programs may read differently")

// parts of a URL, for comparison with a pattern.
type parts struct{ scheme, host, port, rest string }

// splitURL takes a URL, or a pattern of URLs with "*", to pieces by Kinto's rules
// (kinto/plugins/openid/utils.py), which refuse what browsers read differently:
// spaces and what is not printable, user names, other characters in host and port, dot
// segments. It knows no characters beyond ASCII.
func splitURL(text string) (p parts, err error) {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return p, errAmbiguous
		}
	}
	scheme, rest, found := strings.Cut(text, "://")
	p.scheme = strings.ToLower(scheme)
	if !found || p.scheme != "http" && p.scheme != "https" {
		return p, errAmbiguous
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, p.rest = rest[:i], rest[i:]
	}
	if p.rest == "" {
		p.rest = "/"
	}
	if err := p.splitHost(strings.ToLower(authority)); err != nil {
		return p, err
	}
	path, _, _ := strings.Cut(p.rest, "#")
	path, _, _ = strings.Cut(path, "?")
	path = strings.NewReplacer("%2e", ".", `\`, "/").Replace(strings.ToLower(path))
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return p, errAmbiguous
		}
	}
	return p, nil
}

// splitHost takes host and port from an authority in lower case.
func (p *parts) splitHost(authority string) error {
	allowed := "abcdefghijklmnopqrstuvwxyz0123456789.-*"
	var port string
	if inner, bracketed := strings.CutPrefix(authority, "["); bracketed {
		allowed = "0123456789abcdef:."
		var behind string
		if p.host, behind, bracketed = strings.Cut(inner, "]"); !bracketed || behind != "" && behind[0] != ':' {
			return errAmbiguous
		}
		port = strings.TrimPrefix(behind, ":")
	} else {
		p.host, port, _ = strings.Cut(authority, ":")
	}
	if p.host == "" || strings.Trim(p.host, allowed) != "" || strings.Trim(port, "0123456789*") != "" {
		return errAmbiguous
	}
	if p.port = port; port == "" {
		p.port = map[string]string{"http": "80", "https": "443"}[p.scheme]
	}
	return nil
}

// trusted reports whether a callback matches one of the patterns in scheme, host, port
// and the rest, each with "*" for any text.
func trusted(callback string, patterns []string) bool {
	c, err := splitURL(callback)
	if err != nil {
		return false
	}
	for _, pattern := range patterns {
		t, err := splitURL(pattern)
		if err == nil && c.scheme == t.scheme && glob(t.host, c.host) && glob(t.port, c.port) && glob(t.rest, c.rest) {
			return true
		}
	}
	return false
}

// glob matches a text with a pattern in which "*" stands for any text, in one pass.
func glob(pattern, text string) bool {
	first, more, wild := strings.Cut(pattern, "*")
	if !wild {
		return text == pattern
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	pieces := strings.Split(more, "*")
	last := pieces[len(pieces)-1]
	for _, piece := range pieces[:len(pieces)-1] {
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text = text[i+len(piece):]
	}
	return strings.HasSuffix(text, last)
}
