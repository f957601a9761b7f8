package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The user of all requests, and what the benchmark makes on both servers: records are in collections that this user
// owns, so every request goes through authentication and permissions.
const (
	userName   = "bench"
	userSecret = "bench"
	bucketPath = "/buckets/bench"
	// seedPath has the records that are read; nothing writes to it during the rounds, so that "10 changes" stay 10.
	seedPath = bucketPath + "/collections/seed"
	// loadPath takes the creates.
	loadPath = bucketPath + "/collections/load"
)

const callTimeout = 60 * time.Second

var authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(userName+":"+userSecret))

// contender is a server under measurement: one service behind one or more addresses.
type contender struct {
	Name  string
	Addrs []string // host:port, all equal
	PIDs  []int    // its processes, without those that they started
}

// cpuTime is the processor time of all its processes so far, their children's included.
func (c *contender) cpuTime() time.Duration { return treeTime(c.PIDs) }

// call sends one request that is not measured to the first address; an answer that is not a 2xx is an error.
func (c *contender) call(ctx context.Context, method, path string, body []byte) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addrs[0]+"/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", authorization)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s %s: %d %s", c.Name, method, path, resp.StatusCode, answer[:min(len(answer), 300)])
	}
	return resp.Header, answer, err
}

// setUp makes the bucket and the collections, through the API, as their owner.
func (c *contender) setUp(ctx context.Context) error {
	for _, path := range []string{bucketPath, seedPath, loadPath} {
		if _, _, err := c.call(ctx, http.MethodPut, path, nil); err != nil {
			return err
		}
	}
	return nil
}

// userID is the principal that the server gives to the user.
func (c *contender) userID(ctx context.Context) (string, error) {
	_, body, err := c.call(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return "", err
	}
	var hello struct {
		User struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	if err := json.Unmarshal(body, &hello); err != nil {
		return "", err
	}
	if hello.User.ID == "" {
		return "", fmt.Errorf("%s: the hello view names no user", c.Name)
	}
	return hello.User.ID, nil
}

// changesBefore returns the timestamp after which exactly n records of the seed collection were changed.
func (c *contender) changesBefore(ctx context.Context, n int) (int64, error) {
	_, body, err := c.call(ctx, http.MethodGet, fmt.Sprintf("%s/records?_sort=-last_modified&_limit=%d", seedPath, n+1), nil)
	if err != nil {
		return 0, err
	}
	var page struct {
		Data []struct {
			LastModified int64 `json:"last_modified"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return 0, err
	}
	if len(page.Data) != n+1 {
		return 0, fmt.Errorf("%s: %d records, want %d", c.Name, len(page.Data), n+1)
	}
	return page.Data[n].LastModified, nil
}

// count returns the number of records of a collection as the server's header gives it.
func (c *contender) count(ctx context.Context, collection string) (int, error) {
	header, _, err := c.call(ctx, http.MethodHead, collection+"/records", nil)
	if err != nil {
		return 0, err
	}
	text := header.Get("Total-Objects")
	if text == "" {
		text = header.Get("Total-Records")
	}
	var n int
	_, err = fmt.Sscan(text, &n)
	return n, err
}
