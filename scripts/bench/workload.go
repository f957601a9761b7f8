package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/valyala/fasthttp"
)

const (
	batchSize   = 25 // Kinto's default batch_max_requests
	pageSize    = 100
	payloads    = 512 // bodies made in advance, so that making them does not burden the measured machine
	payloadBase = 1 << 40
	writeShare  = 10 // percent of the mix
)

// workload is one kind of request with the connections it is measured at.
type workload struct {
	name  string
	what  string // for the table
	conns []int  // of quinto
	// tries are Kinto's connections, of which the first short round finds the best.
	tries []int
	// prepare makes the operation for one contender; it may ask the server for what the requests need.
	prepare func(ctx context.Context, c *contender, records int) (operation, error)
}

var tryAll = []int{1, 4, 16, 64}

var workloads = []workload{
	{"create", "create one record", []int{1, 16, 64}, tryAll, prepareCreate},
	{"read", "read one record, random", []int{1, 16, 64}, tryAll, prepareRead},
	{"page", fmt.Sprintf("page of %d", pageSize), []int{16}, tryAll, preparePage},
	{"since0", "`_since`, 0 changes", []int{1, 16, 64}, tryAll, prepareSince(0)},
	{"since10", "`_since`, 10 changes", []int{1, 16, 64}, tryAll, prepareSince(10)},
	// 64 batches at once are 1,600 creates, which take Kinto longer than a cell lasts.
	{"batch", fmt.Sprintf("batch of %d creates", batchSize), []int{1, 4, 16}, []int{1, 4, 16}, prepareBatch},
	{"mixed", "90 % reads, 10 % creates", []int{64}, tryAll, prepareMixed},
}

func chooseWorkloads(o options) []workload {
	var chosen []workload
	for _, w := range workloads {
		if o.match.MatchString(w.name) {
			chosen = append(chosen, w)
		}
	}
	return chosen
}

// recordsOf is the URL of a collection's records. The host in it is a placeholder, which the loader replaces.
func recordsOf(collection string) string { return "http://bench/v1" + collection + "/records" }

func createBodies() [][]byte {
	bodies := make([][]byte, payloads)
	for i := range bodies {
		bodies[i] = append(appendRecord([]byte(`{"data":`), payloadBase+i), '}')
	}
	return bodies
}

func prepareCreate(context.Context, *contender, int) (operation, error) {
	bodies, uri := createBodies(), recordsOf(loadPath)
	return func(r *rand.Rand, req *fasthttp.Request) check {
		post(req, uri, bodies[r.IntN(len(bodies))])
		return checkCreated
	}, nil
}

func post(req *fasthttp.Request, uri string, body []byte) {
	req.Header.SetMethod(http.MethodPost)
	req.Header.SetContentType("application/json")
	req.SetRequestURI(uri)
	req.SetBodyRaw(body)
}

func checkCreated(status int, body []byte) error {
	if status != http.StatusCreated {
		return wrong(status, body)
	}
	return nil
}

func prepareRead(_ context.Context, _ *contender, records int) (operation, error) {
	prefix := recordsOf(seedPath) + "/"
	return func(r *rand.Rand, req *fasthttp.Request) check {
		id := recordID(r.IntN(records))
		req.SetRequestURI(prefix + id)
		return func(status int, body []byte) error {
			if status != http.StatusOK || !bytes.Contains(body, []byte(id)) {
				return wrong(status, body)
			}
			return nil
		}
	}, nil
}

func preparePage(_ context.Context, _ *contender, records int) (operation, error) {
	return getList(recordsOf(seedPath)+"?_limit="+strconv.Itoa(pageSize), min(pageSize, records)), nil
}

// prepareSince asks for the changes since a timestamp after which n records of all were changed.
func prepareSince(n int) func(context.Context, *contender, int) (operation, error) {
	return func(ctx context.Context, c *contender, _ int) (operation, error) {
		since, err := c.changesBefore(ctx, n)
		if err != nil {
			return nil, err
		}
		return getList(fmt.Sprintf("%s?_since=%d", recordsOf(seedPath), since), n), nil
	}
}

// getList is a GET whose answer must have n records, with their data.
func getList(uri string, n int) operation {
	verify := func(status int, body []byte) error {
		if status != http.StatusOK || bytes.Count(body, []byte(`"last_modified"`)) != n {
			return wrong(status, body)
		}
		return nil
	}
	return func(_ *rand.Rand, req *fasthttp.Request) check {
		req.SetRequestURI(uri)
		return verify
	}
}

func prepareBatch(context.Context, *contender, int) (operation, error) {
	bodies := make([][]byte, payloads/batchSize+1)
	for i := range bodies {
		b := append([]byte(`{"defaults":{"method":"POST","path":"`), loadPath...)
		b = append(b, `/records"},"requests":[`...)
		for j := range batchSize {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(appendRecord(append(b, `{"body":{"data":`...), payloadBase+i*batchSize+j), `}}`...)
		}
		bodies[i] = append(b, `]}`...)
	}
	return func(r *rand.Rand, req *fasthttp.Request) check {
		post(req, "http://bench/v1/batch", bodies[r.IntN(len(bodies))])
		return checkBatch(batchSize, http.StatusCreated)
	}, nil
}

// checkBatch accepts a batch of which every part has this status.
func checkBatch(parts, want int) check {
	// Kinto and quinto write JSON without blanks, proxies may not.
	tight, loose := fmt.Appendf(nil, `"status":%d`, want), fmt.Appendf(nil, `"status": %d`, want)
	return func(status int, body []byte) error {
		if status == http.StatusOK && bytes.Count(body, tight)+bytes.Count(body, loose) == parts {
			return nil
		}
		if i := bytes.Index(body, []byte(`"errno"`)); i >= 0 {
			body = body[max(0, i-len(`{"code":409,`)):] // of the part that failed
		}
		return wrong(status, body)
	}
}

func prepareMixed(ctx context.Context, c *contender, records int) (operation, error) {
	read, err := prepareRead(ctx, c, records)
	if err != nil {
		return nil, err
	}
	create, err := prepareCreate(ctx, c, records)
	if err != nil {
		return nil, err
	}
	return func(r *rand.Rand, req *fasthttp.Request) check {
		if r.IntN(100) < writeShare {
			return create(r, req)
		}
		return read(r, req)
	}, nil
}
