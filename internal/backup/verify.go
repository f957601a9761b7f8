package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"quinto/fsm/store"
)

// Summary is what a verification found.
type Summary struct {
	Head  Head
	Bytes int64 // of the archive
}

// String is one line for people.
func (s *Summary) String() string {
	return fmt.Sprintf("%d bytes, cluster %s, revision %d, entry %d, made %s",
		s.Bytes, s.Head.Cluster, s.Head.Revision, s.Head.Index, time.UnixMilli(int64(s.Head.Made)).UTC().Format(time.RFC3339))
}

// Verify reads a whole archive and checks every byte of it: the head, each block,
// the end, and the stream within. The error names the place of a fault.
func Verify(r io.Reader) (*Summary, error) {
	return verify(r, func(*Head, int64) error { return nil })
}

// Copy copies an archive from r to w and checks all of it on the way. seen is
// told of the head, and how long the archive is in bytes, before the rest is read.
// An error means that what w has got is no whole archive.
func Copy(w io.Writer, r io.Reader, seen func(h *Head, size int64) error) (*Summary, error) {
	return verify(io.TeeReader(r, w), seen)
}

func verify(r io.Reader, seen func(*Head, int64) error) (*Summary, error) {
	count := &counter{r: r}
	a, err := NewReader(count)
	if err == nil {
		err = seen(&a.Head, a.size())
	}
	if err != nil {
		return nil, err
	}
	if err := store.CheckArchive(a, a.Head.Size); err != nil {
		return nil, err
	}
	if err := a.Finish(); err != nil {
		return nil, err
	}
	return &Summary{Head: a.Head, Bytes: count.n}, nil
}

// Finish reads the end of an archive whose content was read; it returns an error
// unless the end is sound.
func (a *Reader) Finish() error {
	n, err := io.Copy(io.Discard, a)
	if err == nil && n > 0 {
		err = fmt.Errorf("%w: %d bytes of content are left over", ErrDamaged, n)
	}
	return err
}

type counter struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Peek reads the head of an archive and returns it, how long the archive is, and a
// reader that gives the archive from its beginning.
func Peek(r io.Reader) (*Head, int64, io.Reader, error) {
	var seen bytes.Buffer
	a, err := NewReader(io.TeeReader(r, &seen))
	if err != nil {
		return nil, 0, nil, err
	}
	return &a.Head, a.size(), io.MultiReader(&seen, r), nil
}

// Store puts an archive of size bytes into a place under a name, reads it back and
// checks it. On an error there is no archive of this name.
func Store(ctx context.Context, p Place, name string, r io.Reader, size int64) (*Summary, error) {
	pr, pw := io.Pipe()
	var copied error
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, copied = Copy(pw, r, func(*Head, int64) error { return nil })
		_ = pw.CloseWithError(copied) // never fails
	}()
	err := p.Put(ctx, name, pr, size)
	_ = pr.CloseWithError(io.ErrClosedPipe) // ends the copy if Put did not read all of it
	<-done
	if copied != nil && !errors.Is(copied, io.ErrClosedPipe) {
		err = copied
	}
	if err != nil {
		return nil, err
	}
	sum, err := VerifyIn(ctx, p, name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("what was written to %s cannot be read back: %w", p, err), p.Remove(context.WithoutCancel(ctx), name))
	}
	return sum, nil
}

// VerifyIn verifies an archive where it is kept.
func VerifyIn(ctx context.Context, p Place, name string) (*Summary, error) {
	rc, err := p.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	sum, err := Verify(contextReader{ctx, rc})
	return sum, errors.Join(err, rc.Close())
}
