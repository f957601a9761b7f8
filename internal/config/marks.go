package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
)

// markBytes of an HMAC tell two values of a setting apart.
const markBytes = 8

// ofOneNode are settings that may differ between nodes without changing an answer.
var ofOneNode = []string{serverPrefix, "quinto.", "statsd", "prometheus", "heartbeat_timeout_seconds", "version_json_path"}

// Marks returns an HMAC of each setting that changes answers, by its name: two nodes
// that differ in one answer the same request differently. The values, secrets among
// them, cannot be read from it without the key; it is for the eyes of other nodes
// all the same.
func (c *Config) Marks(key []byte) map[string][]byte {
	marks := make(map[string][]byte, len(c.answers))
	for name, text := range c.answers {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(name + "\x00" + text)) // never fails
		marks[name] = h.Sum(nil)[:markBytes]
	}
	return marks
}

// answering gathers the values of the settings that change answers, from the table
// and from what plugins read.
func (l *loader) answering() map[string]string {
	knows := knowledge(l.opts.Effective)
	all := map[string]string{}
	add := func(name, text string) {
		if strings.HasPrefix(name, "quinto.limit_") || !ofNode(name) {
			all[name] = strings.Join(strings.Fields(Text(text)), " ")
		}
	}
	for _, row := range Settings() {
		add(row.Name, row.Default)
	}
	for name, from := range l.values {
		if _, effect := knows(name); effect {
			add(name, from.text)
		}
	}
	return all
}

func ofNode(name string) bool {
	for _, prefix := range ofOneNode {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
