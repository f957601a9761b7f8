package transfer

import (
	"encoding/json"
	"fmt"

	"quinto/internal/canon"
)

// Redacted is the data of an item without what plugins keep from being read, by its place
// among the items.
type Redacted struct {
	Item int             `json:"item"`
	Data json.RawMessage `json:"data"`
}

// Redact takes out of items what nobody is to read, and says of which: redactors are
// functions as of plugins.Redacting for the kind of an object, by the plural's name. Data
// that cannot be stored stays as it is: Plan refuses it.
func Redact(items []Item, lim canon.Limits, redactors func(plural string) []func(data []byte) []byte) (changed []Redacted) {
	for n := range items {
		i := &items[n]
		if i.List || i.Deleted {
			continue
		}
		all := redactors(i.Path.List().ID())
		if len(all) == 0 {
			continue
		}
		data, err := i.canonical(lim)
		if err != nil {
			continue
		}
		was := len(data)
		for _, f := range all {
			data = f(data)
		}
		if len(data) != was {
			i.Data = json.RawMessage(data)
			changed = append(changed, Redacted{n, i.Data})
		}
	}
	return changed
}

// redact takes over what the node has taken out, so that the outcome is compared with that.
func (r *run) redact(all []Redacted) error {
	for _, one := range all {
		if one.Item < 0 || one.Item >= len(r.batch) {
			return errOtherItems
		}
		r.batch[one.Item].Data = one.Data
	}
	r.redacted += len(all)
	return nil
}

// noteRedacted says in the report that not everything is here.
func (r *run) noteRedacted() {
	if r.redacted > 0 {
		r.report.LeftOut = append(r.report.LeftOut, fmt.Sprintf("secrets in the data of %d objects, such as those of webhooks: give them anew, nobody may read them here", r.redacted))
	}
}
