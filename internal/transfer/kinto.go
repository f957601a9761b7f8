package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"quinto/fsm"
)

// Bounds of reading over HTTP.
const (
	pageObjects   = 500
	readers       = 8        // objects that are read at a time, for their permissions
	maxAnswer     = 64 << 20 // bytes of one answer
	answerTimeout = 60 * time.Second
	attempts      = 6
	firstPause    = 200 * time.Millisecond
	longestPause  = 10 * time.Second
)

// kintoSource is any Kinto server, over HTTP. Lists do not tell permissions, so each
// object is read once more.
type kintoSource struct {
	base     string // with the version, without a slash at the end
	user     string // "name:password"
	selected Selection
	client   http.Client
	leftOut  []string
	version  string
}

func openKinto(ctx context.Context, base, user string, selected Selection) (*kintoSource, error) {
	u, err := url.Parse(strings.TrimRight(base, "/"))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a server", redact(base))
	}
	if u.User != nil && user == "" {
		password, _ := u.User.Password()
		user = u.User.Username() + ":" + password
	}
	u.User = nil
	if !strings.HasSuffix(u.Path, "/v1") {
		u.Path += "/v1"
	}
	k := &kintoSource{base: u.String(), user: user, selected: selected}
	k.client.Transport = &http.Transport{MaxIdleConnsPerHost: readers, Proxy: http.ProxyFromEnvironment}
	var hello struct {
		Capabilities map[string]json.RawMessage `json:"capabilities"`
		Version      string                     `json:"project_version"`
	}
	if _, err := k.get(ctx, "/", &hello); err != nil {
		return nil, err
	}
	if _, ok := hello.Capabilities["history"]; ok {
		k.leftOut = append(k.leftOut, "the history: over HTTP nobody tells who may read an entry")
	}
	if _, ok := hello.Capabilities["accounts"]; !ok {
		k.version = "no accounts"
	}
	return k, nil
}

// Name implements Source.
func (k *kintoSource) Name() string { return k.base }

// LeftOut implements Source.
func (k *kintoSource) LeftOut() []string { return k.leftOut }

// Total implements Source: it would take a request per collection.
func (k *kintoSource) Total(context.Context) (int64, error) { return -1, nil }

// Close implements Source.
func (k *kintoSource) Close(context.Context) error {
	k.client.CloseIdleConnections()
	return nil
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	text   string
	after  time.Duration // Retry-After
}

// Error is what the server said.
func (e *statusError) Error() string { return fmt.Sprintf("answered %d: %s", e.status, e.text) }

// get reads a path below the version, again after a pause when the network or the
// server fails, and returns the headers.
func (k *kintoSource) get(ctx context.Context, path string, v any) (http.Header, error) {
	pause := firstPause
	for n := 1; ; n++ {
		header, err := k.try(ctx, path, v)
		if err == nil {
			return header, nil
		}
		wait := pause
		var s *statusError
		if errors.As(err, &s) {
			if s.status < 500 && s.status != http.StatusTooManyRequests {
				return nil, err
			}
			wait = max(wait, min(s.after, longestPause))
		}
		if n == attempts || ctx.Err() != nil {
			return nil, fmt.Errorf("%s%s: %w (tried %d times)", k.base, path, err, n)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		pause = min(2*pause, longestPause)
	}
}

func (k *kintoSource) try(ctx context.Context, path string, v any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return nil, err
	}
	if name, password, ok := strings.Cut(k.user, ":"); ok {
		r.SetBasicAuth(name, password)
	}
	answer, err := k.client.Do(r)
	if err != nil {
		var u *url.Error // its text repeats the URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // 0 if absent
		return nil, &statusError{answer.StatusCode, string(body[:min(len(body), 200)]), time.Duration(seconds) * time.Second}
	}
	return answer.Header, json.Unmarshal(body, v)
}

// Items implements Source.
func (k *kintoSource) Items(ctx context.Context, resume func(fsm.Path) (place, bool), yield func(*Item) error) error {
	var buckets, collections []fsm.Path
	remember := func(into *[]fsm.Path) func(*Item) error {
		return func(i *Item) error {
			if !i.List && !i.Deleted {
				*into = append(*into, i.Path)
			}
			return yield(i)
		}
	}
	none := func(fsm.Path) (place, bool) { return place{}, false }
	if len(k.selected) == 0 && k.version == "" {
		if err := k.list(ctx, "/accounts", resume, yield); err != nil {
			return err
		}
	}
	if err := k.list(ctx, "/buckets", none, remember(&buckets)); err != nil {
		return err
	}
	for _, b := range buckets {
		if !k.selected.wants(b) {
			continue
		}
		if err := k.list(ctx, b.Child("groups"), resume, yield); err != nil {
			return err
		}
		if err := k.list(ctx, b.Child("collections"), none, remember(&collections)); err != nil {
			return err
		}
	}
	for _, c := range collections {
		if err := k.list(ctx, c.Child("records"), resume, yield); err != nil {
			return err
		}
	}
	return nil
}

// list gives what a list holds, oldest first, then its timestamp as it was before.
func (k *kintoSource) list(ctx context.Context, list fsm.Path, resume func(fsm.Path) (place, bool), yield func(*Item) error) error {
	from, done := resume(list)
	query := fmt.Sprintf("?_since=%d&_sort=last_modified&_limit=%d", max(from.LastModified-1, 0), pageObjects)
	if done {
		query = "?_limit=1"
	}
	var stamp fsm.Timestamp
	for query != "" {
		var page struct {
			Data []json.RawMessage `json:"data"`
		}
		header, err := k.get(ctx, string(list)+query, &page)
		if err != nil {
			return err
		}
		etag, err := strconv.ParseInt(strings.Trim(header.Get("ETag"), `"`), 10, 64)
		if err != nil {
			return fmt.Errorf("%s%s: it sends no ETag of a list", k.base, list)
		}
		if stamp == 0 {
			stamp = fsm.Timestamp(etag)
		}
		query = nextQuery(header.Get("Next-Page"))
		if done {
			break
		}
		if err := k.page(ctx, list, page.Data, yield); err != nil {
			return err
		}
	}
	return yield(&Item{Path: list, List: true, LastModified: stamp})
}

// nextQuery is the query of a Next-Page URL: its host may be another name of ours.
func nextQuery(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.RawQuery == "" {
		return ""
	}
	return "?" + u.RawQuery
}

// page reads each live object of a page, several at a time, and yields them in order.
func (k *kintoSource) page(ctx context.Context, list fsm.Path, page []json.RawMessage, yield func(*Item) error) error {
	items := make([]Item, len(page))
	errs := make([]error, len(page))
	slots := make(chan struct{}, readers)
	var wg sync.WaitGroup
	for i, raw := range page {
		var head struct {
			ID           string        `json:"id"`
			LastModified fsm.Timestamp `json:"last_modified"`
			Deleted      bool          `json:"deleted"`
		}
		if err := json.Unmarshal(raw, &head); err != nil || head.ID == "" {
			return fmt.Errorf("%s%s: an object without id", k.base, list)
		}
		items[i] = Item{Path: list.Child(head.ID), LastModified: head.LastModified, Deleted: head.Deleted}
		if head.Deleted || !k.selected.wants(items[i].Path) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = k.object(ctx, &items[i])
			<-slots
		})
	}
	wg.Wait()
	for i := range items {
		if errs[i] != nil {
			return errs[i]
		}
		if err := yield(&items[i]); err != nil {
			return err
		}
	}
	return nil
}

func (k *kintoSource) object(ctx context.Context, i *Item) error {
	var whole struct {
		Data        json.RawMessage     `json:"data"`
		Permissions map[string][]string `json:"permissions"`
	}
	path := (&url.URL{Path: string(i.Path)}).EscapedPath()
	_, err := k.get(ctx, path, &whole)
	var s *statusError
	if errors.As(err, &s) && s.status < 500 {
		i.Refused = "the server " + s.Error()
		return nil
	}
	if err != nil {
		return err
	}
	i.Data, i.Permissions = whole.Data, whole.Permissions
	var head struct {
		LastModified fsm.Timestamp `json:"last_modified"`
		Password     *string       `json:"password"`
	}
	if err := json.Unmarshal(whole.Data, &head); err != nil {
		return err
	}
	i.LastModified = head.LastModified
	switch {
	case whole.Permissions == nil:
		i.Refused = "the server hides its permissions from this user, who may not write it"
	case i.Path.List() == "/accounts" && head.Password == nil:
		i.Refused = "the server hides its password hash"
	}
	return nil
}
