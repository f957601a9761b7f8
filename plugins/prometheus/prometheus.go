// Package prometheus is Kinto's plugin kinto.plugins.prometheus: GET /__metrics__
// answers measurements in Prometheus' text format, to anybody, under Kinto's names,
// and beside them the node's own figures.
package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"quinto/plugins"
)

func init() {
	plugins.Register(plugins.Module{Name: "kinto.plugins.prometheus", Settings: "prometheus_*", New: func() any { return new(Prometheus) }})
}

// Path is where the measurements are, below the version prefix.
const Path = "/__metrics__"

// defaultBuckets are the bounds of Kinto's histograms, in seconds.
const defaultBuckets = "0.01 0.05 0.1 0.5 1.0 3.0 6.0 Inf"

// maxBuckets bounds prometheus_histogram_buckets: each is a series per endpoint.
const maxBuckets = 64

// Prometheus keeps the measurements of one node.
type Prometheus struct {
	prefix   string
	disabled []string // as the setting has them
	off      map[string]bool
	buckets  []float64
	created  bool

	registry *prometheus.Registry
	series   vectors
	figures  func() []plugins.Figure
}

// fixName makes a name that Prometheus allows, as Kinto does.
var fixName = strings.NewReplacer("-", "_", ".", "_", " ", "_").Replace

// Provision takes the settings prometheus_*.
func (p *Prometheus) Provision(_ context.Context, s plugins.Settings) error {
	// The first word of a name groups metrics in some consoles, so a prefix is one
	// word: "remote-settings" is remotesettings_.
	if prefix := s.Text("prometheus_prefix", s.Text("project_name", "kinto")); prefix != "" {
		p.prefix = strings.ToLower(strings.ReplaceAll(fixName(prefix), "_", "")) + "_"
	}
	p.disabled, p.off = s.List("prometheus_disabled_metrics"), map[string]bool{}
	for _, name := range p.disabled {
		p.off[strings.ReplaceAll(name, p.prefix, "")] = true
	}
	var err error
	if p.created, err = s.Flag("prometheus_created_metrics_enabled", true); err != nil {
		return err
	}
	if p.buckets, err = bounds(s.Text("prometheus_histogram_buckets", defaultBuckets)); err != nil {
		return fmt.Errorf("prometheus_histogram_buckets: %w", err)
	}
	p.registry = prometheus.NewRegistry()
	p.series = newVectors(p.registry)
	if err := p.registry.Register(collectors.NewGoCollector()); err != nil {
		return err
	}
	return p.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// Validate refuses a prefix of which no name can be made.
func (p *Prometheus) Validate() error {
	for i, c := range p.prefix {
		letter := c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("prometheus_prefix: %q cannot begin a metric's name (allowed: letters, digits, underscores)", p.prefix)
		}
	}
	return nil
}

// bounds reads the bounds of the buckets; infinity is always the last one.
func bounds(text string) (list []float64, err error) {
	for word := range strings.FieldsSeq(text) {
		bound, err := strconv.ParseFloat(word, 64)
		if err != nil || math.IsNaN(bound) {
			return nil, fmt.Errorf("%q is no number (allowed: numbers, rising)", word)
		}
		if !math.IsInf(bound, 1) {
			list = append(list, bound)
		}
	}
	if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) || len(list) > maxBuckets || len(list) == 0 {
		return nil, fmt.Errorf("%q cannot be used (allowed: 1 to %d numbers, rising)", text, maxBuckets)
	}
	return list, nil
}

// name is the metric's, and false if it is disabled.
func (p *Prometheus) name(name string) (string, bool) {
	name = fixName(name)
	return p.prefix + name, !p.off[name]
}

// Count implements plugins.Metrics.
func (p *Prometheus) Count(name string, n int, labels []plugins.Label) {
	if name, on := p.name(name); on {
		if c := p.series.counter(name, labels); c != nil {
			c.Add(float64(n))
		}
	}
}

// Time implements plugins.Metrics.
func (p *Prometheus) Time(name string, seconds float64, labels []plugins.Label) {
	if name, on := p.name(name); on {
		if h := p.series.histogram(name, labels, p.buckets); h != nil {
			h.Observe(seconds)
		}
	}
}

// Observe implements plugins.Metrics.
func (p *Prometheus) Observe(name string, value float64, labels []plugins.Label) {
	if name, on := p.name(name); on {
		if s := p.series.summary(name, labels); s != nil {
			s.Observe(value)
		}
	}
}

// Figures implements plugins.Metrics.
func (p *Prometheus) Figures(read func() []plugins.Figure) { p.figures = read }

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (p *Prometheus) Capabilities() []plugins.Capability {
	disabled := p.disabled
	if disabled == nil {
		disabled = []string{}
	}
	body, err := json.Marshal(struct {
		Description string   `json:"description"`
		URL         string   `json:"url"`
		Prefix      string   `json:"prefix"`
		Disabled    []string `json:"disabled_metrics"`
	}{"Prometheus metrics.", "https://github.com/Kinto/kinto/", p.prefix, disabled})
	if err != nil {
		return nil
	}
	return []plugins.Capability{{Name: "prometheus", Body: string(body)}}
}

// Routes implements plugins.RouteProvider: each node tells its own measurements,
// whether or not there is a leader.
func (p *Prometheus) Routes() []plugins.Route {
	return []plugins.Route{{Method: http.MethodGet, Path: Path, Name: "prometheus_metrics", Local: true,
		Handle: func(context.Context, *plugins.RouteRequest) *plugins.RouteResponse {
			text, err := p.text()
			if err != nil {
				return &plugins.RouteResponse{Status: http.StatusInternalServerError, Header: map[string]string{"Content-Type": "text/plain"},
					Body: []byte(err.Error())}
			}
			return &plugins.RouteResponse{Status: http.StatusOK, Header: map[string]string{"Content-Type": contentType}, Body: text}
		}}}
}

var (
	_ plugins.Provisioner        = (*Prometheus)(nil)
	_ plugins.Validator          = (*Prometheus)(nil)
	_ plugins.Metrics            = (*Prometheus)(nil)
	_ plugins.CapabilityProvider = (*Prometheus)(nil)
	_ plugins.RouteProvider      = (*Prometheus)(nil)
)
