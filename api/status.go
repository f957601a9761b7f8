package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
	"quinto/fsm"
)

// The paths of the endpoints behind `quinto cluster`, without the version prefix.
const (
	// ClusterPath answers a ClusterStatus.
	ClusterPath = "/__cluster__"
	// HashPath answers the NodeHash of the node that is asked; `?revision=N` waits
	// until it has applied N.
	HashPath = "/__cluster__/hash"
)

// clusterPath reports whether a raw path is of the cluster's inside, which those who
// operate it need also after the service has ended.
func clusterPath(path []byte) bool {
	rest, ok := strings.CutPrefix(string(path), prefix)
	return ok && (rest == ClusterPath || rest == HashPath)
}

// ClusterStatus is what `quinto cluster status --json` prints. Its form is stable.
type ClusterStatus struct {
	Leader   string       `json:"leader"` // name; empty: none is known
	Term     uint64       `json:"term"`
	Revision fsm.Revision `json:"revision"` // the highest applied by a member
	Members  []fsm.Member `json:"members"`
	// SettingsDiffer has the names of settings that change answers and are not the
	// leader's, by node; absent when all are equal, or without TLS between nodes.
	SettingsDiffer map[string][]string `json:"settings_differ,omitempty"`
}

// NodeHash is the content of one node in two digests. Two nodes that have applied
// the same entry have the same, or one of them is wrong. The revision does not
// tell that: cursors and settings change the state without a revision.
type NodeHash struct {
	Name      string       `json:"name"`
	ClusterID string       `json:"cluster_id"`
	Revision  fsm.Revision `json:"revision"`
	Applied   uint64       `json:"applied"` // index of the last log entry in it
	// State is the rolling hash of all that was applied, hexadecimal.
	State string `json:"state"`
	// Full is computed from every replicated key, hexadecimal. It reads all data.
	Full string `json:"full"`
}

// clusterStatus answers a ClusterStatus to those who may know it.
func (s *Server) clusterStatus(ctx context.Context, r *resource.Request) *resource.Response {
	if !s.mayKnow(ctx, r) {
		return s.problem(errForbidden)
	}
	status, err := StatusOf(ctx, s.options.Node, s.options.SettingsDiffer)
	if err != nil {
		s.logger.Warn("cluster status", "error", err)
		return s.problem(errBusy)
	}
	return jsonResponse(fasthttp.StatusOK, encode(status))
}

// StatusOf asks n, and through it all members, for the ClusterStatus; differ gives its
// SettingsDiffer, nil leaves that out. The error is that of n's Members.
func StatusOf(ctx context.Context, n Node, differ func() map[string][]string) (ClusterStatus, error) {
	members, err := n.Members(ctx)
	if err != nil {
		return ClusterStatus{}, err
	}
	status := ClusterStatus{Term: n.Term(), Members: members}
	if leader, ok := n.Leader(); ok {
		status.Leader = leader.Name
	}
	if differ != nil {
		status.SettingsDiffer = differ()
	}
	if status.Members == nil {
		status.Members = []fsm.Member{}
	}
	for _, m := range members {
		status.Revision = max(status.Revision, m.Revision)
	}
	return status, nil
}

// clusterHash answers this node's NodeHash to those who may know it. Its view is
// this node's own, never the leader's: the point is to compare them.
func (s *Server) clusterHash(ctx context.Context, r *resource.Request) *resource.Response {
	if !s.mayKnow(ctx, r) {
		return s.problem(errForbidden)
	}
	fresh := fsm.Freshness{Level: fsm.Stale}
	if query, err := url.ParseQuery(r.Query); err == nil && query.Has("revision") {
		n, err := strconv.ParseUint(query.Get("revision"), 10, 64)
		if err != nil {
			return s.problem(malformed("revision is not a number."))
		}
		fresh = fsm.Freshness{Level: fsm.Session, Revision: fsm.Revision(n)}
	}
	hash, err := s.hash(ctx, fresh)
	if err != nil {
		s.logger.Warn("cluster hash", "error", err)
		if errors.Is(err, fsm.ErrCorrupt) {
			return s.problem(errInternal)
		}
		return s.problem(errBusy)
	}
	return jsonResponse(fasthttp.StatusOK, encode(hash))
}

func (s *Server) hash(ctx context.Context, fresh fsm.Freshness) (NodeHash, error) {
	v, err := s.options.Node.View(ctx, fresh)
	if err != nil {
		return NodeHash{}, err
	}
	defer v.Close()
	full, err := v.Hash()
	if err != nil {
		return NodeHash{}, err
	}
	state := v.StateHash()
	return NodeHash{Name: s.options.Name, ClusterID: v.ClusterID(), Revision: v.Revision(), Applied: v.Applied(),
		State: hex.EncodeToString(state[:]), Full: hex.EncodeToString(full[:])}, nil
}

// mayKnow guards the cluster's inside: a client on this machine that no proxy
// speaks for, or one of the principals in quinto.cluster_status_principals.
func (s *Server) mayKnow(ctx context.Context, r *resource.Request) bool {
	_, proxied := r.Header["x-forwarded-for"]
	if _, also := r.Header["forwarded"]; !proxied && !also && net.ParseIP(r.Client).IsLoopback() {
		return true
	}
	who, err := s.identify(ctx, r)
	return err == nil && slices.ContainsFunc(who.Principals, func(p string) bool {
		return slices.Contains(s.options.Config.StatusPrincipals, p)
	})
}

// user is who sends a request, as the hello view tells him.
type user struct {
	ID         string   `json:"id"`
	Principals []string `json:"principals"`
}

// identify asks the service who sends r, through the view that tells a client who
// he is: so there is one place where credentials are judged.
func (s *Server) identify(ctx context.Context, r *resource.Request) (user, error) {
	hello := *r
	hello.Method, hello.Path, hello.Query, hello.Body = fasthttp.MethodGet, "/", "", nil
	answer := s.options.Service.Do(ctx, &hello)
	if answer.Status != fasthttp.StatusOK {
		return user{}, fmt.Errorf("api: cannot identify the user: status %d", answer.Status)
	}
	var body struct {
		User user `json:"user"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return user{}, fmt.Errorf("api: cannot identify the user: %w", err)
	}
	return body.User, nil
}
