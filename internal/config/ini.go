package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/ini.v1"
)

const (
	appSection    = "app:main"
	serverSection = "server:main"

	// maxFileBytes bounds the INI file: more is surely another file.
	maxFileBytes = 256 * kib
	// maxInterpolation bounds how deep `%(name)s` may nest, as Python's ConfigParser does.
	maxInterpolation = 10
)

// file is the INI file, read but not understood: the two sections that matter,
// interpolated, and what those of logging come to.
type file struct {
	path        string
	app, server map[string]string
	logging     Logging
}

// readFile reads an INI file as PasteDeploy's ConfigParser does: `=` or `:` divides,
// whole lines starting with `#` or `;` are comments, indented lines continue a value,
// names keep their case, a name given twice is an error. vars are names for
// `%(name)s` beneath those of the file.
func readFile(path string, vars map[string]string) (*file, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, &SettingError{Source: path, Problem: "cannot be read: " + err.Error()}
	}
	data = significantLines(data)
	parsed, err := ini.LoadSources(ini.LoadOptions{
		AllowPythonMultilineValues: true,
		IgnoreInlineComment:        true,
		IgnoreContinuation:         true,
		PreserveSurroundedQuote:    true,
		AllowShadows:               true, // only to see a name that is given twice
		AllowDuplicateShadowValues: true,
		// The library peeks at a whole value: beyond its buffer, lines would get lost.
		ReaderBufferSize: len(data) + 1,
	}, data)
	if err != nil {
		return nil, &SettingError{Source: path, Problem: "is not an INI file: " + err.Error()}
	}
	if !parsed.HasSection(appSection) {
		return nil, &SettingError{Source: path, Problem: "has no section [" + appSection + "]"}
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, &SettingError{Source: path, Problem: err.Error()}
	}
	f := &file{path: path}
	builtin := map[string]string{"here": filepath.Dir(absolute), "__file__": absolute}
	scope := []map[string]string{rawKeys(parsed, ini.DefaultSection), builtin, vars}
	if f.app, err = f.section(parsed, appSection, scope); err != nil {
		return nil, err
	}
	if f.server, err = f.section(parsed, serverSection, scope); err != nil {
		return nil, err
	}
	f.logging = readLogging(parsed)
	return f, nil
}

func readBounded(path string) ([]byte, error) {
	handle, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	data, err := io.ReadAll(io.LimitReader(handle, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxFileBytes)
	}
	return data, err
}

// significantLines drops comments and empty lines, which for ConfigParser may stand
// between the lines of one value; the library would end the value there.
func significantLines(data []byte) []byte {
	var kept bytes.Buffer
	for line := range bytes.Lines(data) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' && text[0] != ';' {
			kept.Write(line)
		}
	}
	return kept.Bytes()
}

func rawKeys(parsed *ini.File, section string) map[string]string {
	keys := map[string]string{}
	if parsed.HasSection(section) {
		for _, key := range parsed.Section(section).Keys() {
			keys[key.Name()] = key.Value()
		}
	}
	return keys
}

// section returns a section's keys with `%(name)s` replaced: first from the section,
// then from each of scope.
func (f *file) section(parsed *ini.File, name string, scope []map[string]string) (map[string]string, error) {
	raw := rawKeys(parsed, name)
	for key := range raw {
		if len(parsed.Section(name).Key(key).ValueWithShadows()) > 1 {
			return nil, &SettingError{Source: f.path, Section: name, Key: key, Problem: "is given twice"}
		}
	}
	scope = append([]map[string]string{raw}, scope...)
	keys := make(map[string]string, len(raw))
	for key, value := range raw {
		text, err := interpolate(value, scope, maxInterpolation)
		if err != nil {
			return nil, &SettingError{Source: f.path, Section: name, Key: key, Problem: err.Error(), Allowed: "%(name)s, or %% for a percent sign"}
		}
		keys[key] = strings.TrimSpace(text)
	}
	return keys, nil
}

// interpolate replaces `%(name)s` and `%%` as Python's BasicInterpolation does. The
// library's own interpolation leaves unknown names standing, which hides mistakes.
func interpolate(text string, scope []map[string]string, depth int) (string, error) {
	if depth == 0 {
		return "", fmt.Errorf("%%(name)s nests deeper than %d", maxInterpolation)
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, "%") {
			b.WriteByte('%')
			text = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")s")
		if !strings.HasPrefix(rest, "(") || !closed {
			return "", fmt.Errorf("has a percent sign that stands alone")
		}
		value, ok := lookUp(name, scope)
		if !ok {
			return "", fmt.Errorf("uses %%(%s)s, which is not defined", name)
		}
		value, err := interpolate(value, scope, depth-1)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		text = after
	}
}

func lookUp(name string, scope []map[string]string) (string, bool) {
	for _, keys := range scope {
		if value, ok := keys[name]; ok {
			return value, true
		}
	}
	return "", false
}
