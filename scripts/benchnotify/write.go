package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	writers   = 32
	batchSize = 25 // Kinto's default of batch_max_requests
	callLimit = 30 * time.Second
)

// record is the body of a write, of about 300 bytes as in `make bench`.
var record = []byte(`{"data":{"title":"a record as people write them","description":"` +
	`Some words that fill the record until it has the size of what an application keeps: a few fields and a line or two of text.` +
	`","tags":["one","two","three"],"count":42,"done":false,"author":{"name":"Ann","mail":"ann@example.com"}}}`)

func collection(i int) string { return fmt.Sprintf("c%02d", i) }

// take gives the ids of the next records, which go round the collections.
func (w *world) take(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		w.next++
		ids[i] = fmt.Sprintf("%s-%07d", collection(w.next%collections), w.next)
	}
	return ids
}

// takeDead gives ids in the lane that is dead.
func (w *world) takeDead(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		w.next++
		ids[i] = fmt.Sprintf("%s-%07d", deadName, w.next)
	}
	return ids
}

func recordPath(id string) string {
	of, _, _ := bytes.Cut([]byte(id), []byte("-"))
	return "/buckets/b/collections/" + string(of) + "/records/" + id
}

// put writes one object through the node of that number.
func (w *world) put(ctx context.Context, node int, path string, body []byte) error {
	return w.send(ctx, node, http.MethodPut, path, body, nil)
}

func (w *world) send(ctx context.Context, node int, method, path string, body []byte, check func([]byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	code, answer, err := w.cluster.Nodes[node%nodes].Do(ctx, method, path, body, nil)
	if err == nil && code > 299 {
		err = fmt.Errorf("%s %s: %d %.300s", method, path, code, answer)
	}
	if err == nil && check != nil {
		err = check(answer)
	}
	return err
}

// batch writes records in one request.
func (w *world) batch(ctx context.Context, node int, ids []string) error {
	b := []byte(`{"defaults":{"method":"PUT"},"requests":[`)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"path":%q,"body":%s}`, recordPath(id), record)
	}
	return w.send(ctx, node, http.MethodPost, "/batch", append(b, "]}"...), func(answer []byte) error {
		if n := bytes.Count(answer, []byte(`"status":201`)); n != len(ids) {
			return fmt.Errorf("%d of %d records of a batch were created: %.300s", n, len(ids), answer)
		}
		return nil
	})
}

// batches writes all the records as fast as some writers can.
func (w *world) batches(ctx context.Context, ids []string) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1))
				from := (n - 1) * batchSize
				if from >= len(ids) {
					return
				}
				errs[i] = w.batch(ctx, n, ids[from:min(from+batchSize, len(ids))])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// written is a write that was answered.
type written struct {
	id             string
	sent, answered time.Time
}

// paced calls write for each part at even intervals over a span, whether or not the calls
// before have ended; each is a goroutine, of which no more than writers run. It returns
// how long each took. A failed one is an error unless mayFail.
func paced(span time.Duration, parts int, mayFail bool, write func(i int) error) ([]written, error) {
	all := make([]written, parts)
	errs := make([]error, parts)
	slots := make(chan struct{}, writers)
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range parts {
		due := begun.Add(span * time.Duration(i) / time.Duration(parts))
		time.Sleep(time.Until(due))
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i].sent = due // not when a slot came free: a late start is the server's
			errs[i] = write(i)
			all[i].answered = time.Now()
		})
	}
	wg.Wait()
	done := all[:0]
	for i := range all {
		if errs[i] == nil {
			done = append(done, all[i])
		} else if !mayFail {
			return nil, errs[i]
		}
	}
	return done, nil
}

// pacedPuts writes single records through all nodes.
func (w *world) pacedPuts(ctx context.Context, rate int, span time.Duration) ([]written, error) {
	ids := w.take(int(float64(rate) * span.Seconds()))
	all, err := paced(span, len(ids), false, func(i int) error { return w.put(ctx, i, recordPath(ids[i]), record) })
	for i := range all {
		all[i].id = ids[i]
	}
	return all, err
}

// pacedBatches writes records in batches, until stop is closed or the span is over, and
// returns those that were acknowledged.
func (w *world) pacedBatches(ctx context.Context, rate int, span time.Duration, mayFail bool) ([]string, error) {
	ids := w.take(int(float64(rate) * span.Seconds()))
	var mu sync.Mutex
	var done []string
	_, err := paced(span, len(ids)/batchSize, mayFail, func(i int) error {
		part := ids[i*batchSize : (i+1)*batchSize]
		err := w.batch(ctx, i, part)
		if err == nil {
			mu.Lock()
			done = append(done, part...)
			mu.Unlock()
		}
		return err
	})
	return done, err
}
