package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Discard deletes a store with all that is in it, whatever state it is in. It
// returns ErrLocked while somebody uses it. The directory itself stays, empty.
func Discard(dir string) error {
	lock, err := lockDir(vfs.Default, dir)
	if err != nil {
		return err
	}
	names, err := vfs.Default.List(dir)
	for _, name := range names {
		if name != lockName {
			err = errors.Join(err, vfs.Default.RemoveAll(vfs.Default.PathJoin(dir, name)))
		}
	}
	if err = errors.Join(err, syncDir(vfs.Default, dir), lock.Close()); err != nil {
		return fmt.Errorf("store: discard %q: %w", dir, err)
	}
	return nil
}
