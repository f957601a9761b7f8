package resource

import (
	"context"
	"errors"
	"slices"

	"quinto/api/query"
	"quinto/fsm"
)

// Snapshot calls f for each object that the GET shows, the oldest first, an object
// before those below it, until it fails; f's bytes are valid during the call.
func (w *Watch) Snapshot(ctx context.Context, v *fsm.View, f func(object []byte) error) error {
	c, err := w.authorize(ctx, v)
	if err != nil {
		return err
	}
	var b []byte
	show := func(o *fsm.Object) error {
		b = append(w.appendData(w.appendPlace(append(b[:0], `{"action":"snapshot"`...), o.Path), o), '}')
		return f(b)
	}
	switch {
	case w.list:
		var failed error
		err = c.scanShown(w.query, fsm.ScanOptions{Borrow: true}, func(o *fsm.Object, _ query.Object) bool {
			failed = show(o)
			return failed == nil
		})
		return errors.Join(failed, err)
	case w.feed:
		return nil
	}
	visible := w.s.visible(c.current)
	if err := show(&visible); err != nil {
		return err
	}
	return w.walk(ctx, v, c.route.kind, w.scope, show)
}

// walk shows what lies below an object.
func (w *Watch) walk(ctx context.Context, v *fsm.View, kind *Kind, p fsm.Path, show func(*fsm.Object) error) error {
	for _, plural := range kind.Children {
		child := w.s.table.byPlace[place{kind.Name, plural}]
		if child == nil || !slices.Contains(watchable, child.Name) {
			continue
		}
		var failed error
		err := v.Scan(p.Child(plural), fsm.ScanOptions{}, func(o *fsm.Object) bool {
			ok, err := w.mayRead(ctx, v, o)
			if err == nil && ok {
				seen := w.s.visible(*o)
				err = show(&seen)
			}
			if err == nil {
				err = w.walk(ctx, v, child, o.Path, show)
			}
			failed = err
			return err == nil
		})
		if err = errors.Join(failed, err); err != nil {
			return err
		}
	}
	return nil
}
