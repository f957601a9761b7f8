package clients

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"quinto/internal/checker"
)

const pollPages = 200 // of one poll

// Poller follows the changes of the collection as an ordinary client does, and
// changes the node at each request.
type Poller struct {
	*Load
	name     string
	level    string
	patience time.Duration
	rand     *rand.Rand
	since    int64
	next     int
}

// NewPollers returns new pollers, the last one of which asks for a session only.
func (l *Load) NewPollers() []*Poller {
	var all []*Poller
	for i := range l.Pollers {
		p := &Poller{Load: l, name: fmt.Sprint("p", i), level: "linearizable", patience: l.patience(i), since: 1, next: i, rand: rand.New(rand.NewPCG(l.Seed, uint64(100+i)))}
		if i == l.Pollers-1 {
			p.level = "session" // with nothing but _since and page tokens
		}
		all = append(all, p)
	}
	return all
}

// Follow lets them poll until End.
func (l *Load) Follow(all []*Poller) {
	for _, p := range all {
		l.wg.Go(func() {
			for l.wait(l.PollPause) {
				p.Poll()
			}
		})
	}
}

// Poll asks once and notes what came; it reports whether there was an answer to all
// pages, and nothing new.
func (p *Poller) Poll() (rest bool) {
	out := &checker.Poll{Client: p.name, Since: p.since, Level: p.level, Limit: p.PageEntries, Call: p.Now()}
	header := map[string]string{"Quinto-Consistency": p.level}
	if p.since > 1 && p.rand.IntN(2) == 0 {
		header["If-None-Match"] = fmt.Sprintf(`"%d"`, p.since)
	}
	path := fmt.Sprintf("%s?_since=%d&_sort=last_modified&_limit=%d", RecordsPath, p.since, p.PageEntries)
	for range pollPages {
		p.next++
		n := p.node(p.next)
		a := send(n, &Request{Method: http.MethodGet, Path: path, Header: header, User: Owner}, p.patience)
		delete(header, "If-None-Match")
		if !a.Decided() {
			return false
		}
		if len(out.Pages) == 0 {
			out.Status, out.ETag = a.Status, a.ETag
		}
		page := checker.Page{Node: n.Name(), Revision: a.Revision}
		if a.Status == http.StatusOK {
			var err error
			if page.Entries, err = many(a.Body); err != nil {
				return false
			}
		}
		out.Pages = append(out.Pages, page)
		if a.Next == "" {
			out.Complete = true
			break
		}
		path = a.Next
	}
	out.Return = p.Now()
	p.Add(&checker.Line{Poll: out})
	if !out.Complete || out.Status != http.StatusOK && out.Status != http.StatusNotModified {
		return false
	}
	rest = out.ETag == p.since
	p.since = out.ETag
	return rest
}

// Final reads the whole collection through one node.
func (l *Load) Final(n Node) (*checker.Final, error) {
	f := &checker.Final{Node: n.Name()}
	path := RecordsPath + "?_sort=last_modified&_limit=5000"
	for range pollPages {
		a := send(n, &Request{Method: http.MethodGet, Path: path, User: Owner}, 10*time.Second)
		if a.Err != nil || a.Status != http.StatusOK {
			return nil, fmt.Errorf("final list of %s: %d %.200s: %w", n.Name(), a.Status, a.Body, errors.Join(a.Err, errUnread))
		}
		values, err := many(a.Body)
		if err != nil {
			return nil, err
		}
		if f.Revision == 0 {
			f.Revision, f.ETag = a.Revision, a.ETag
		}
		f.Values = append(f.Values, values...)
		if a.Next == "" {
			return f, nil
		}
		path = a.Next
	}
	return nil, errUnread
}

var errUnread = errors.New("the list could not be read")

// node is the i-th, round and round.
func (l *Load) node(i int) Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[i%len(l.nodes)]
}
