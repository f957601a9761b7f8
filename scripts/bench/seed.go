package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

const (
	// seedConns are the connections that put the records into quinto.
	seedConns = 8
	// seedTries bounds how often one batch is sent; each part is a PUT, so that sending it again does no harm.
	seedTries     = 20
	seedRetryWait = 100 * time.Millisecond
	// seedAge puts the timestamps of what SQL puts into Kinto in the past: a collection whose clock is ahead
	// answers 409 to nearly all concurrent writes until the time has come.
	seedAge        = 24 * time.Hour
	progressPeriod = 5 * time.Second
)

// seedSQL puts n records into the seed collection of Kinto by COPY, with the permission that creating them through the
// API would have left (the creator may write), and lets the planner know of them.
func (k *kinto) seedSQL(ctx context.Context, n int) error {
	user, err := k.userID(ctx)
	if err != nil {
		return err
	}
	first := time.Now().Add(-seedAge)
	return k.pg.script(ctx, "bench", func(to io.Writer) error {
		w := bufio.NewWriterSize(to, 1<<16)
		// Without the trigger that would give each row a timestamp of its own choice.
		fmt.Fprintln(w, "SET session_replication_role = replica;")
		fmt.Fprintln(w, "COPY objects (id, parent_id, resource_name, last_modified, data, deleted) FROM STDIN;")
		var data []byte
		for i := range n {
			data = appendRecord(data[:0], i)
			at := first.Add(time.Duration(i) * time.Millisecond).UTC().Format("2006-01-02 15:04:05.000")
			fmt.Fprintf(w, "%s\t%s\trecord\t%s\t%s\tf\n", recordID(i), seedPath, at, data)
		}
		fmt.Fprintln(w, `\.`)
		fmt.Fprintln(w, "COPY access_control_entries (object_id, permission, principal) FROM STDIN;")
		for i := range n {
			fmt.Fprintf(w, "%s/records/%s\twrite\t%s\n", seedPath, recordID(i), user)
		}
		fmt.Fprintln(w, `\.`)
		fmt.Fprintln(w, "VACUUM ANALYZE; CHECKPOINT;")
		return w.Flush()
	})
}

// seedBatches puts records [from, to) into the seed collection through the API, size to a batch.
func seedBatches(ctx context.Context, c *contender, from, to, size int) error {
	group, ctx := errgroup.WithContext(ctx)
	var next, done atomic.Int64
	next.Store(int64(from))
	began := time.Now()
	report := time.NewTicker(progressPeriod)
	defer report.Stop()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		for {
			select {
			case <-finished:
				return
			case <-report.C:
				progress("  %s: %d of %d records, %.0f/s", c.Name, done.Load(), to-from, float64(done.Load())/time.Since(began).Seconds())
			}
		}
	}()
	for i := range seedConns {
		group.Go(func() error {
			l := newLoader(c, i, seedConns)
			defer l.open.close()
			for {
				start := int(next.Add(int64(size))) - size
				if start >= to {
					return nil
				}
				end := min(to, start+size)
				if err := l.putBatch(ctx, seedBatch(start, end), end-start); err != nil {
					return err
				}
				done.Add(int64(end - start))
			}
		})
	}
	return group.Wait()
}

// seedBatch is the body of a batch that puts records [from, to).
func seedBatch(from, to int) []byte {
	b := []byte(`{"defaults":{"method":"PUT"},"requests":[`)
	for i := from; i < to; i++ {
		if i > from {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"path":"%s/records/%s","body":{"data":`, seedPath, recordID(i))
		b = append(appendRecord(b, i), `}}`...)
	}
	return append(b, `]}`...)
}

// putBatch sends a batch until every part was created, or updated by a try whose answer got lost.
func (l *loader) putBatch(ctx context.Context, body []byte, parts int) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	var last error
	for try := range seedTries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		req.Reset()
		resp.Reset()
		post(req, "http://bench/v1/batch", body)
		req.Header.SetHost(l.clients[0].Addr)
		req.Header.Set("Authorization", authorization)
		last = l.clients[0].Do(req, resp)
		if last == nil {
			status, answer := resp.StatusCode(), resp.Body()
			if checkBatch(parts, 201)(status, answer) == nil || try > 0 && checkBatch(parts, 200)(status, answer) == nil {
				return nil
			}
			last = checkBatch(parts, 201)(status, answer)
		}
		time.Sleep(seedRetryWait + rand.N(seedRetryWait))
	}
	return errors.Join(fmt.Errorf("a batch of %d records failed %d times", parts, seedTries), last)
}
