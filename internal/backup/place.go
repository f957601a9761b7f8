package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// Place is where archives are kept. Names are those of Name.
type Place interface {
	// Put stores an archive of exactly size bytes under a name: whole, or not at all.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// Open reads one. ErrNone: there is none of this name.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// List names all archives that this package has named, the oldest first.
	List(ctx context.Context) ([]string, error)
	// Remove deletes one.
	Remove(ctx context.Context, name string) error
	// Below is the place of the archive's log segments: a folder in this one.
	Below(folder string) Place
	// String is how messages call the place.
	String() string
}

// Suffix ends the names of archives of a state.
const Suffix = ".backup"

const nameTime = "20060102T150405Z"

// clusterPart is how much of a cluster's id is in a name.
const clusterPart = 8

var nameForm = regexp.MustCompile(`^quinto-([0-9a-zA-Z-]{1,8})-(\d{8}T\d{6}Z)-(\d+)\.backup$`)

// Name is how an archive is called: by cluster, time and revision. Names of one
// cluster sort by age.
func Name(h *Head) string {
	cluster := h.Cluster[:min(clusterPart, len(h.Cluster))]
	return fmt.Sprintf("quinto-%s-%s-%d%s", cluster, time.UnixMilli(int64(h.Made)).UTC().Format(nameTime), h.Revision, Suffix)
}

// MadeAt tells from a name when the archive was made; false for a name that Name
// did not make.
func MadeAt(name string) (time.Time, bool) {
	s, ok := parseName(name)
	return s.made, ok
}

// OfCluster reports whether a name is that of an archive of this cluster's state.
func OfCluster(name, cluster string) bool {
	m := nameForm.FindStringSubmatch(name)
	return m != nil && m[1] == cluster[:min(clusterPart, len(cluster))]
}

func named(name string) bool { return nameForm.MatchString(name) || segmentForm.MatchString(name) }

// Folder is a Place on a file system.
type Folder struct{ Dir string }

// String implements Place.
func (f *Folder) String() string { return filepath.Clean(f.Dir) }

// Below implements Place.
func (f *Folder) Below(folder string) Place { return &Folder{filepath.Join(f.Dir, folder)} }

// Put implements Place: the file is written under another name, synced, renamed.
func (f *Folder) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	return WriteFile(filepath.Join(f.Dir, name), func(w io.Writer) error {
		n, err := io.Copy(w, contextReader{ctx, r})
		if err == nil && n != size {
			err = fmt.Errorf("backup: %d bytes of %d", n, size)
		}
		return err
	})
}

// WriteFile makes a file, which only its owner may read, that is there whole or
// not at all.
func WriteFile(path string, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".backup-*") // its mode is 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone once it was renamed
	if err = errors.Join(write(temp), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open implements Place.
func (f *Folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	file, err := os.Open(filepath.Join(f.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return file, err
}

// List implements Place. A folder that does not exist is empty.
func (f *Folder) List(context.Context) ([]string, error) {
	all, err := os.ReadDir(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range all {
		if e.Type().IsRegular() && named(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// Remove implements Place.
func (f *Folder) Remove(_ context.Context, name string) error {
	return os.Remove(filepath.Join(f.Dir, name))
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Keep says which archives stay.
type Keep struct {
	// Count is the least number that stay; at least one does.
	Count int
	// Age, unless 0, keeps all that are younger.
	Age time.Duration
}

// Expired names the archives of a cluster's state that may go at now: names that
// Name has made for it, beyond the newest keep.Count and older than keep.Age, and
// never good, which was verified last.
func Expired(names []string, cluster, good string, keep Keep, now time.Time) []string {
	own := ByAge(names, cluster)
	slices.Reverse(own) // the newest first
	var gone []string
	for i, name := range own {
		made, _ := MadeAt(name)
		if i >= max(keep.Count, 1) && name != good && (keep.Age == 0 || now.Sub(made) > keep.Age) {
			gone = append(gone, name)
		}
	}
	return gone
}
