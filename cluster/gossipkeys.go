package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// setKeys makes keys those of gossip; the first encrypts. A rotation adds a key on
// all nodes, then puts it first on all, then drops the old one.
//
// memberlist's RemoveKey shifts a list that others may be reading, unless the key is
// the last one: so the keys are put in order first, by moving each to the front.
func (g *gossip) setKeys(keys [][]byte) {
	if g.ring == nil || len(keys) == 0 {
		return
	}
	var errs []error
	for _, k := range keys {
		errs = append(errs, g.ring.AddKey(k))
	}
	order := slices.Clone(keys)
	for _, k := range g.ring.GetKeys() {
		if !slices.ContainsFunc(keys, func(w []byte) bool { return bytes.Equal(w, k) }) {
			order = append(order, k)
		}
	}
	if !slices.EqualFunc(order, g.ring.GetKeys(), bytes.Equal) {
		for _, k := range slices.Backward(order) {
			errs = append(errs, g.ring.UseKey(k))
		}
	}
	for _, k := range slices.Backward(order[len(keys):]) {
		errs = append(errs, g.ring.RemoveKey(k))
	}
	if err := errors.Join(errs...); err != nil {
		g.log.Error("gossip keys", "error", fmt.Sprint(err))
	}
}
