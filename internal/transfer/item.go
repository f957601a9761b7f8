// Package transfer brings data into a cluster and out of it: from any Kinto server
// over HTTP, from Kinto's PostgreSQL schema, from and to a file of JSON lines.
//
// A source gives items: objects, tombstones and the timestamps of lists, parents
// before what lies in them, each list in the order of last_modified. Plan turns them
// into operations of the log on a node; Run drives it and checks the outcome. What
// clients rely on to go on from their last `_since` comes over as it is: ids,
// last_modified, tombstones and the lists' timestamps.
package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"quinto/fsm"
	"quinto/internal/canon"
)

// Item is one line of an export: an object, a tombstone, or (List) the timestamp of
// the list at Path.
type Item struct {
	Path         fsm.Path            `json:"path"`
	LastModified fsm.Timestamp       `json:"last_modified"` // ms; of a list 0: it has none yet
	List         bool                `json:"list,omitempty"`
	Deleted      bool                `json:"deleted,omitempty"`
	Data         json.RawMessage     `json:"data,omitempty"` // without id and last_modified
	Permissions  map[string][]string `json:"permissions,omitempty"`
	// Refused says why a source could not read the object; it is only reported.
	Refused string `json:"-"`
}

// place is where an item stands in its list.
type place struct {
	LastModified fsm.Timestamp `json:"last_modified"`
	ID           string        `json:"id"`
}

func (p place) after(q place) bool {
	return p.LastModified > q.LastModified || p.LastModified == q.LastModified && p.ID > q.ID
}

// list is the list that an item belongs to.
func (i *Item) list() fsm.Path {
	if i.List {
		return i.Path
	}
	return i.Path.List()
}

// errNoObject is why data that is not a JSON object is refused.
var errNoObject = errors.New("the data is not a JSON object")

// canonical returns the data as it is stored.
func (i *Item) canonical(lim canon.Limits) (canon.Value, error) {
	data, err := canon.Canonical(i.Data, lim)
	if err != nil {
		return nil, err
	}
	v := canon.Value(data)
	if v.Kind() != canon.Object {
		return nil, errNoObject
	}
	return canon.Delete(canon.Delete(v, "id"), "last_modified"), nil
}

// Digest is the content of a list in a form that does not depend on the order in
// which it was read.
type Digest struct {
	Objects    int64         `json:"objects"`
	Tombstones int64         `json:"tombstones"`
	Sum        [4]uint64     `json:"sum"` // of the objects' SHA-256, added up
	Timestamp  fsm.Timestamp `json:"timestamp"`
}

// add counts one object or tombstone with its data as stored.
func (d *Digest) add(path fsm.Path, modified fsm.Timestamp, deleted bool, data []byte, acl fsm.ACL) {
	if deleted {
		d.Tombstones++
	} else {
		d.Objects++
	}
	h := sha256.New()
	var n [8]byte
	for _, part := range [][]byte{[]byte(path), data, acl} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	binary.BigEndian.PutUint64(n[:], uint64(modified))
	h.Write(n[:])
	if deleted {
		h.Write([]byte{1})
	}
	sum := h.Sum(nil)
	for i := range d.Sum {
		d.Sum[i] += binary.BigEndian.Uint64(sum[8*i:])
	}
}

// addItem counts what an item says; false when its data cannot be stored.
func (d *Digest) addItem(i *Item, lim canon.Limits) bool {
	if i.Deleted {
		d.add(i.Path, i.LastModified, true, nil, nil)
		return true
	}
	data, err := i.canonical(lim)
	if err == nil {
		d.add(i.Path, i.LastModified, false, data, fsm.NewACL(i.Permissions))
	}
	return err == nil
}

// Selection is which buckets are wanted; empty: everything, accounts too.
type Selection []string

// wants reports whether the object or list at path belongs to the selection.
func (s Selection) wants(path fsm.Path) bool {
	if len(s) == 0 {
		return true
	}
	rest, ok := strings.CutPrefix(string(path), "/buckets/")
	if !ok {
		return false
	}
	bucket, _, _ := strings.Cut(rest, "/")
	for _, b := range s {
		if b == bucket {
			return true
		}
	}
	return false
}

// refusal is an error about one object.
type refusal struct{ text string }

// Error says why.
func (r refusal) Error() string { return r.text }

func refusef(format string, args ...any) error { return refusal{fmt.Sprintf(format, args...)} }
