package webhook

import (
	"quinto/internal/canon"
	"quinto/plugins"
)

// Redactor implements plugins.Redacting: no secret of a hook comes in with metadata, nor
// with an entry of the history about metadata.
func (m *Metadata) Redactor(kind string) func(data []byte) []byte {
	switch kind {
	case "bucket", "collection":
		return func(data []byte) []byte { return redacted(data) }
	case "history":
		return redactedEntry
	}
	return nil
}

// redacted is data without the secrets of its hooks, right or wrong.
func redacted(data canon.Value) canon.Value {
	hooks, _ := data.GetPath(metadataOwner, metadataHooks)
	var all []definition
	hooks.Each(func(name string, hook canon.Value) bool {
		if _, ok := hook.Get("secret"); ok {
			all = append(all, definition{Name: name})
		}
		return true
	})
	if len(all) == 0 {
		return data
	}
	return withoutSecrets(data, all)
}

// redactedEntry is an entry of kinto.plugins.history whose target is without them.
func redactedEntry(entry []byte) []byte {
	resource, _ := canon.Value(entry).Get("resource_name")
	if name, _ := resource.String(); name != "bucket" && name != "collection" {
		return entry
	}
	target, _ := canon.Value(entry).Get("target")
	data, ok := target.Get("data")
	if now := redacted(data); ok && len(now) != len(data) {
		return canon.Set(canon.Value(entry), "target", canon.Set(target, "data", now))
	}
	return entry
}

var _ plugins.Redacting = (*Metadata)(nil)
