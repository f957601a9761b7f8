package resource

import (
	"strings"

	"quinto/internal/canon"
)

// noStore is what answers say that nobody may keep (Kinto leaves Expires out).
var noStore = HeaderField{"Cache-Control", "no-cache, no-store"}

// caching adds to the headers of a read how long it may be kept (Kinto 8.4): for
// the anonymous as settings and, for records, their collection say, else not at
// all.
func (c *call) caching(fields []HeaderField) ([]HeaderField, error) {
	if c.who.user != "" {
		return append(fields, noStore), nil
	}
	lifetimes := c.s.cfg.CacheExpires
	kind := c.route.kind.Name
	seconds, set := lifetimes[kind]
	set = set && seconds != 0
	if kind == "record" {
		var err error
		if seconds, set, err = c.recordLifetime(lifetimes); err != nil {
			return nil, err
		}
	}
	if !set {
		return append(fields, noStore), nil
	}
	return append(fields, cacheFields(seconds, c.now)...), nil
}

// recordLifetime is the setting of the narrowest scope, or the collection's own
// cache_expires if that is more.
func (c *call) recordLifetime(lifetimes map[string]int64) (seconds int64, set bool, err error) {
	parents := c.route.parents()
	bucket, collection := parents[0].id, parents[1].id
	for _, scope := range [][]string{{bucket + "." + collection + ".record"}, {bucket + ".record"}, {"record"},
		{bucket, collection, "record"}, {bucket, "record"}} {
		if seconds, set = lifetimes[strings.Join(scope, "_")]; set {
			break
		}
	}
	o, err := c.at(len(parents) - 1)
	if err != nil {
		return 0, false, err
	}
	expires, _ := canon.Value(o.Data).Get("cache_expires")
	if own, ok := expires.Int(); ok {
		if !set || seconds == 0 {
			seconds = -1
		}
		seconds, set = max(seconds, own), true
	}
	return seconds, set, nil
}
