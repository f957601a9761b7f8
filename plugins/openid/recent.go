package openid

import (
	"container/list"
	"time"
)

// recent is a map whose entries have a time to live and of which those least recently
// used are forgotten first, beyond a number of entries or of bytes. The zero value
// with its bounds is empty. It is not safe for concurrent use.
type recent[K comparable, V any] struct {
	most      int
	mostBytes int
	places    map[K]*list.Element
	order     list.List // of *place[K, V], the latest in front
	bytes     int
}

type place[K comparable, V any] struct {
	key   K
	value V
	bytes int
	until time.Time
}

// get returns what is kept under key, and keeps it for another while; 0 leaves its
// time as it is.
func (r *recent[K, V]) get(key K, now time.Time, keep time.Duration) (value V, ok bool) {
	e, ok := r.places[key]
	if !ok {
		return value, false
	}
	at := e.Value.(*place[K, V]) // the list holds nothing else
	if !now.Before(at.until) {
		r.drop(e)
		return value, false
	}
	if keep > 0 {
		at.until = now.Add(keep)
	}
	r.order.MoveToFront(e)
	return at.value, true
}

// put keeps a value of so many bytes.
func (r *recent[K, V]) put(key K, value V, bytes int, until time.Time) {
	if r.places == nil {
		r.places = map[K]*list.Element{}
	}
	if e, ok := r.places[key]; ok {
		r.drop(e)
	}
	for len(r.places) > 0 && (len(r.places) >= r.most || r.bytes+bytes > r.mostBytes) {
		r.drop(r.order.Back())
	}
	r.places[key] = r.order.PushFront(&place[K, V]{key, value, bytes, until})
	r.bytes += bytes
}

func (r *recent[K, V]) drop(e *list.Element) {
	at := r.order.Remove(e).(*place[K, V]) // the list holds nothing else
	delete(r.places, at.key)
	r.bytes -= at.bytes
}
