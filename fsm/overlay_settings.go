package fsm

import (
	"maps"
	"slices"
	"strings"
)

// SettingReader reads replicated settings; View and Overlay have it. Such a read does
// not become part of a decision.
type SettingReader interface {
	// Setting returns a setting, nil when it is not set.
	Setting(name string) ([]byte, error)
	// Settings calls f for each setting whose name begins with prefix, by name, until
	// it returns false.
	Settings(prefix string, f func(name string, value []byte) bool) error
}

var (
	_ SettingReader = (*View)(nil)
	_ SettingReader = (*Overlay)(nil)
)

// Setting implements SettingReader: with what is staged; nil when the state below has none.
func (o *Overlay) Setting(name string) ([]byte, error) {
	if value, staged := o.settings[name]; staged || o.isEmptied(name) {
		return value, nil
	}
	if v, ok := o.base.(SettingReader); ok {
		return v.Setting(name)
	}
	return nil, nil
}

// Settings implements SettingReader.
func (o *Overlay) Settings(prefix string, f func(name string, value []byte) bool) error {
	all := map[string][]byte{}
	if v, ok := o.base.(SettingReader); ok {
		err := v.Settings(prefix, func(name string, value []byte) bool {
			if !o.isEmptied(name) {
				all[name] = value
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	for name, value := range o.settings {
		if strings.HasPrefix(name, prefix) {
			all[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] != nil && !f(name, all[name]) {
			break
		}
	}
	return nil
}

func (o *Overlay) isEmptied(name string) bool {
	return slices.ContainsFunc(o.emptied, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func (o *Overlay) flushSettings(prefixes []string) {
	maps.DeleteFunc(o.settings, func(name string, _ []byte) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
	o.emptied = append(o.emptied, prefixes...)
}
