package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// restoringFile is in a data folder from before a restore puts anything into it until all
// of it is on the disk. No node starts with it: what a restore that was killed has left
// would be a node without data, or with half of it.
const restoringFile = "restoring"

// errRestoring is why such a folder does not start.
var errRestoring = errors.New("a restore into it has not ended: run it again, or empty the folder")

// errNotEmptyFolder is why a folder with anything in it is refused.
var errNotEmptyFolder = errors.New("is not empty: an archive is restored into a new cluster only")

// mayStay are files that an empty data folder may have.
var mayStay = []string{iniName, nameFile, "lost+found"}

// checkRestored returns errRestoring for the data folder of a restore that has not ended.
func checkRestored(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, restoringFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errRestoring
	}
	return fmt.Errorf("data folder %q: %w", dir, err)
}

// intoFolder calls fill to make a new cluster in the empty folder dir, or in what a
// restore that was killed has left of it. On an error the folder is as empty as before.
func intoFolder(dir string, fill func() error) (err error) {
	_, statErr := os.Stat(dir)
	made := errors.Is(statErr, fs.ErrNotExist)
	again := errors.Is(checkRestored(dir), errRestoring)
	if !again {
		if err := checkEmpty(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failure{err}
	}
	_, statErr = os.Lstat(filepath.Join(dir, nameFile))
	named := statErr == nil
	marker := filepath.Join(dir, restoringFile)
	lock, err := vfs.Default.Lock(marker)
	if err != nil {
		return failure{fmt.Errorf("another restore fills %q: %w", dir, err)}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, emptyFolder(dir))
			if !named {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, nameFile)))
			}
		}
		err = errors.Join(err, os.Remove(marker), lock.Close())
		if err != nil && made {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		if err == nil {
			err = syncFolder(dir)
		}
	}()
	if err := errors.Join(emptyFolder(dir), syncFolder(dir)); err != nil {
		return failure{err}
	}
	return fill()
}

func checkEmpty(dir string) error {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range all {
		if !slices.Contains(mayStay, e.Name()) {
			return fmt.Errorf("data folder %q %w (%s is there)", dir, errNotEmptyFolder, e.Name())
		}
	}
	return err
}

// emptyFolder removes what a restore has put into its folder.
func emptyFolder(dir string) error {
	all, err := os.ReadDir(dir)
	for _, e := range all {
		if name := e.Name(); name != restoringFile && !slices.Contains(mayStay, name) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return err
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
