package api

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"quinto/api/resource"
	"quinto/fsm"
)

// maxVersionFile bounds version.json, in bytes.
const maxVersionFile = 64 << 10

// Version is what `__version__` and `quinto version` say, in the form of
// Mozilla's version.json.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Source  string `json:"source"`
}

// BuildVersion reads this program's Version from what the Go tool wrote into it.
// Unless release is given, an unreleased build is called "0.0.0".
func BuildVersion(release string) Version {
	v := Version{Name: "quinto", Version: release}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = strings.TrimPrefix(strings.Trim(info.Main.Version, "()"), "v")
		}
		if strings.Contains(info.Main.Path, ".") { // a path that names a place
			v.Source = "https://" + info.Main.Path
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if v.Version == "" || v.Version == "devel" {
		v.Version = "0.0.0"
	}
	return v
}

// utility is an endpoint of this package: Kinto's name of it and its answer.
type utility struct {
	name   string
	answer func(context.Context, *resource.Request) *resource.Response
}

// utilities is the table of the endpoints that this package answers itself, by
// their path. All take GET and HEAD.
func (s *Server) utilities() map[string]utility {
	version := sync.OnceValue(s.version)
	return map[string]utility{
		"/__heartbeat__":   {"heartbeat", s.heartbeat},
		"/__lbheartbeat__": {"lbheartbeat", fixed(func() []byte { return []byte("{}") })},
		"/__version__":     {"version", s.versionView(version)},
		"/contribute.json": {"contribute.json", fixed(func() []byte { return []byte(contribute) })},
		DocumentPath:       {"openapi", s.describer()},
		ClusterPath:        {"cluster", s.clusterStatus},
		HashPath:           {"cluster_hash", s.clusterHash},
	}
}

func fixed(body func() []byte) func(context.Context, *resource.Request) *resource.Response {
	return func(context.Context, *resource.Request) *resource.Response {
		return jsonResponse(fasthttp.StatusOK, body())
	}
}

// BatchPart answers a part of a batch that asks for a utility endpoint; nil if it
// asks for anything else. The cluster's inside is not for batches: whether a proxy
// speaks for the client shows only in the headers of the whole.
func (s *Server) BatchPart(ctx context.Context, r *resource.Request) *resource.Response {
	u, ok := s.utility[r.Path]
	if !ok || r.Path == ClusterPath || r.Path == HashPath {
		return nil
	}
	return s.answerUtility(ctx, r, u.answer)
}

func (s *Server) answerUtility(ctx context.Context, r *resource.Request, f func(context.Context, *resource.Request) *resource.Response) *resource.Response {
	return s.cors.Endpoint(r, utilityMethods, func() *resource.Response { return f(ctx, r) })
}

var utilityMethods = []string{fasthttp.MethodGet, fasthttp.MethodHead}

// contribute is the body of contribute.json (Mozilla's contribute.json schema).
const contribute = `{"name":"quinto","description":"Kinto's JSON storage service as one replicated binary.",` +
	`"repository":{"license":"Apache License (2.0)"},"participate":{"docs":"https://kinto.readthedocs.io/"},"bugs":{},` +
	`"keywords":["JSON","Go","Raft","REST","API","Database"]}`

// versionView answers the version. Kinto answers 500 without the file; here a
// setting asks for that.
func (s *Server) versionView(version func() []byte) func(context.Context, *resource.Request) *resource.Response {
	project := s.options.Config.Project
	if _, err := os.Stat(project.VersionJSONPath); err != nil && project.VersionNeedsFile {
		return func(context.Context, *resource.Request) *resource.Response { return s.problem(errInternal) }
	}
	return fixed(version)
}

// version is the configured version.json, else the program's own.
func (s *Server) version() []byte {
	path := s.options.Config.Project.VersionJSONPath
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() <= maxVersionFile {
		var compact bytes.Buffer // as Kinto writes all its answers
		if text, err := os.ReadFile(path); err == nil && json.Compact(&compact, text) == nil {
			return compact.Bytes()
		}
		s.logger.Warn("version_json_path is not JSON", "path", path)
	}
	return encode(s.options.Version)
}

// heartbeatBody has Kinto's keys, then ours. Each boolean that is false makes the
// answer a 503.
type heartbeatBody struct {
	Storage    bool         `json:"storage"`    // a read that the leader confirmed
	Permission bool         `json:"permission"` // kept in the same state
	Cache      bool         `json:"cache"`      // this node's own state answers
	Ready      bool         `json:"ready"`      // it has caught up with the cluster
	Writable   bool         `json:"writable"`   // its disk takes writes
	Leader     bool         `json:"leader"`     // one is known
	Revision   fsm.Revision `json:"revision"`   // of this node
	Role       string       `json:"role"`       // leader, follower, or nonvoter
	Lag        uint64       `json:"lag"`        // revisions behind the leader
}

// heartbeat checks that this node can read its own state and, within the
// configured time, a state that the leader confirms.
func (s *Server) heartbeat(ctx context.Context, _ *resource.Request) *resource.Response {
	ctx, cancel := context.WithTimeout(ctx, s.options.Config.Timeouts.Heartbeat)
	defer cancel()
	var b heartbeatBody
	_, b.Leader = s.options.Node.Leader()
	b.Revision, b.Cache = s.readable(ctx, fsm.Stale)
	if fresh, ok := s.readable(ctx, fsm.Linearizable); ok {
		b.Revision, b.Storage, b.Permission = fresh, true, true
		_, b.Leader = s.options.Node.Leader()
	}
	b.Role, b.Lag = s.options.Node.Standing()
	b.Ready, b.Writable = s.options.Node.Ready() == nil, s.options.Node.WriteError() == nil
	if b.Storage && b.Permission && b.Cache && b.Ready && b.Writable && b.Leader {
		return jsonResponse(fasthttp.StatusOK, encode(b))
	}
	return jsonResponse(fasthttp.StatusServiceUnavailable, encode(b))
}

// readable reads something at the given freshness.
func (s *Server) readable(ctx context.Context, level fsm.Level) (fsm.Revision, bool) {
	v, err := s.options.Node.View(ctx, fsm.Freshness{Level: level})
	if err != nil {
		return 0, false
	}
	defer v.Close()
	_, err = v.List("/buckets")
	return v.Revision(), err == nil
}

// encode is v as JSON; only types that have one are given to it.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
