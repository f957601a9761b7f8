package command

import (
	"maps"

	"quinto/api/resource"
	"quinto/internal/config"
)

// withGrants is the configuration with what the settings
// <kind>_{create,read,write}_principals grant on kinds of plugins, as Kinto's
// RouteFactory has it for every resource: without it nobody could write in a root list.
func (n *Node) withGrants(kinds []*resource.Kind) *config.Config {
	c := *n.config
	c.Principals = map[string][]string{}
	maps.Copy(c.Principals, n.config.Principals)
	for _, k := range kinds {
		for _, permission := range []string{"create", "read", "write"} {
			key := k.Name + "_" + permission
			if _, known := c.Principals[key]; known {
				continue
			}
			if text, given := c.Lookup(key + "_principals"); given {
				c.Principals[key] = config.List(text)
			}
		}
	}
	return &c
}
