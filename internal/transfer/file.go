package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"quinto/api/resource"
	"quinto/fsm"
	"quinto/internal/canon"
)

// FormatVersion is the first line's number in a file of an export. A reader refuses
// what it does not know.
const FormatVersion = 1

// maxLine bounds one line of a file: the largest object with its permissions.
const maxLine = 64 << 20

// exportHead is the first line, exportEnd the last: a file without it was cut off.
type exportHead struct {
	Format   int          `json:"quinto_export"`
	Cluster  string       `json:"cluster"`
	Revision fsm.Revision `json:"revision"`
}

type exportEnd struct {
	End   bool  `json:"end"`
	Items int64 `json:"items"`
}

// Export writes everything that v shows as JSON lines: one revision, lists with what
// lies in them, parents first. What a kind keeps elsewhere, as the history does, is
// written with it. selected as in an import.
func Export(ctx context.Context, v *fsm.View, kinds []*resource.Kind, selected Selection, w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(exportHead{FormatVersion, v.ClusterID(), v.Revision()}); err != nil {
		return err
	}
	var items int64
	write := func(i *Item) error {
		items++
		return enc.Encode(i)
	}
	lists := map[fsm.Path]fsm.Timestamp{}
	var order []fsm.Path
	err := v.Lists(func(list fsm.Path, l fsm.ListInfo) bool {
		if selected.wants(list) || list == "/buckets" {
			lists[list] = l.Timestamp
			order = append(order, list)
		}
		return ctx.Err() == nil
	})
	for _, list := range order {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		err = exportList(v, list, kinds, selected, write)
		if err == nil && selected.wants(list) {
			err = write(&Item{Path: list, List: true, LastModified: lists[list]})
		}
	}
	if err == nil {
		err = enc.Encode(exportEnd{true, items})
	}
	return errors.Join(err, out.Flush())
}

// historyPlural is the list of entries below a bucket, which only some nodes have.
const historyPlural = "history"

func exportList(v *fsm.View, list fsm.Path, kinds []*resource.Kind, selected Selection, write func(*Item) error) error {
	var failed error
	at := slices.IndexFunc(kinds, func(k *resource.Kind) bool { return k.Plural == list.ID() && k.Show != nil })
	err := v.Scan(list, fsm.ScanOptions{Tombstones: true}, func(o *fsm.Object) bool {
		if !selected.wants(o.Path) {
			return true
		}
		i := &Item{Path: o.Path, LastModified: o.LastModified, Deleted: o.Deleted}
		if !o.Deleted {
			data := o.Data
			if at >= 0 {
				data, failed = kinds[at].Show(v, o, true)
			}
			i.Data, i.Permissions = json.RawMessage(data), o.ACL.Map()
		}
		if failed != nil {
			return false
		}
		failed = write(i)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// readExport gives the items of an export to yield, in their order.
func readExport(r io.Reader, yield func(*Item) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	var head exportHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Format == 0 {
		return errors.Join(errors.New("it is not a file of quinto export"), lines.Err())
	}
	if head.Format != FormatVersion {
		return fmt.Errorf("its format is %d, this program knows %d", head.Format, FormatVersion)
	}
	var count int64
	for lines.Scan() {
		line := struct {
			Item
			exportEnd
		}{}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("line %d: %w", count+2, err)
		}
		if line.End {
			if line.Items != count {
				return fmt.Errorf("it has %d items of %d", count, line.Items)
			}
			return nil
		}
		count++
		if err := yield(&line.Item); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return fmt.Errorf("it is cut off after %d items", count)
}

// fileSource is a file of an export; "-" is standard input.
type fileSource struct{ path string }

// Name implements Source.
func (f *fileSource) Name() string { return f.path }

// Total implements Source: unknown.
func (f *fileSource) Total(context.Context) (int64, error) { return -1, nil }

// Items implements Source.
func (f *fileSource) Items(ctx context.Context, _ func(fsm.Path) (place, bool), yield func(*Item) error) error {
	in := os.Stdin
	if f.path != "-" {
		var err error
		if in, err = os.Open(f.path); err != nil {
			return err
		}
		defer func() { _ = in.Close() }() // only read
	}
	err := readExport(in, func(i *Item) error { return errors.Join(ctx.Err(), yield(i)) })
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// LeftOut implements Source.
func (f *fileSource) LeftOut() []string { return nil }

// Close implements Source.
func (f *fileSource) Close(context.Context) error { return nil }

// madeSource is an export that is made while it is read.
type madeSource struct {
	name string
	make func(io.Writer) error
}

// FromExport is a source that reads what write writes, which must have the form of
// Export.
func FromExport(name string, write func(io.Writer) error) Source { return &madeSource{name, write} }

// Name implements Source.
func (m *madeSource) Name() string { return m.name }

// Total implements Source: unknown.
func (m *madeSource) Total(context.Context) (int64, error) { return -1, nil }

// Items implements Source.
func (m *madeSource) Items(ctx context.Context, _ func(fsm.Path) (place, bool), yield func(*Item) error) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(m.make(w)) // never fails
	}()
	err := readExport(r, func(i *Item) error { return errors.Join(ctx.Err(), yield(i)) })
	_ = r.CloseWithError(io.ErrClosedPipe) // ends a writer that nobody reads
	<-done
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}

// LeftOut implements Source.
func (m *madeSource) LeftOut() []string { return nil }

// Close implements Source.
func (m *madeSource) Close(context.Context) error { return nil }

// digests adds an export up by list.
func digests(r io.Reader, selected Selection, lim canon.Limits) (map[fsm.Path]*Digest, error) {
	all := map[fsm.Path]*Digest{}
	err := readExport(r, func(i *Item) error {
		if !selected.wants(i.Path) {
			return nil
		}
		d := all[i.list()]
		if d == nil {
			d = &Digest{}
			all[i.list()] = d
		}
		if i.List {
			d.Timestamp = i.LastModified
		} else {
			d.addItem(i, lim)
		}
		return nil
	})
	return all, err
}
