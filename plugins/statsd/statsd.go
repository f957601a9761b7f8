// Package statsd is Kinto's plugin kinto.plugins.statsd: measurements go to a
// statsd server in UDP packets, under Kinto's names.
package statsd

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"quinto/plugins"
)

func init() {
	plugins.Register(plugins.Module{Name: "kinto.plugins.statsd", Settings: "statsd_*", New: func() any { return new(StatsD) }})
}

const (
	// DefaultPort is the one of a statsd_url without.
	DefaultPort = "8125"
	// figuresEvery is how often the node's own figures are sent.
	figuresEvery = 10 * time.Second
	// packetBytes keeps packets below what any network takes in one piece.
	packetBytes = 1432
)

// backends are the names of statsd_backend that mean this client.
var backends = []string{"kinto.core.statsd", "kinto.plugins.statsd"}

// StatsD sends the measurements of one node.
type StatsD struct {
	address, prefix string
	client          *statsd.Client
	stop, done      chan struct{}
	last            map[string]float64 // of the figures that are counters
}

// Provision takes the settings statsd_*. The address is looked up, nothing is sent.
func (s *StatsD) Provision(_ context.Context, c plugins.Settings) error {
	if backend := c.Text("statsd_backend", backends[0]); !slices.Contains(backends, backend) {
		return fmt.Errorf("statsd_backend: %q cannot be used (allowed: %s)", backend, strings.Join(backends, ", "))
	}
	// As in Kinto, the project's name comes before statsd_prefix.
	if s.prefix = c.Text("project_name", "kinto"); s.prefix == "" {
		s.prefix = c.Text("statsd_prefix", "kinto.core")
	}
	target := c.Text("statsd_url", "")
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "udp" || u.Hostname() == "" {
		return fmt.Errorf("statsd_url: %q cannot be used (allowed: udp://HOST:PORT)", target)
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	prefix := s.prefix
	if prefix != "" {
		prefix += "."
	}
	s.client, err = statsd.New(s.address, statsd.WithNamespace(prefix), statsd.WithoutTelemetry(), statsd.WithoutClientSideAggregation(),
		statsd.WithoutOriginDetection(), statsd.WithMaxBytesPerPayload(packetBytes))
	if err != nil {
		return fmt.Errorf("statsd_url: %s: %w", target, err)
	}
	return nil
}

// clean takes out what would end a name or value: Kinto drops colons (telegraf
// issue 4495); bars and line ends would make further measurements.
var clean = strings.NewReplacer(":", "", "|", "", "@", "", "\n", "", "\r", "", "#", "").Replace

// joined is Kinto's form of labels: "method.get.endpoint.hello".
func joined(labels []plugins.Label) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(l.Name)
		b.WriteByte('.')
		b.WriteString(clean(l.Value))
	}
	return b.String()
}

// Count implements plugins.Metrics. Labels make it a set, as in Kinto. Errors are
// of a full buffer: measurements are dropped then.
func (s *StatsD) Count(name string, n int, labels []plugins.Label) {
	if len(labels) > 0 {
		_ = s.client.Set(name, joined(labels), nil, 1)
		return
	}
	_ = s.client.Count(name, int64(n), nil, 1)
}

// Time implements plugins.Metrics.
func (s *StatsD) Time(name string, seconds float64, labels []plugins.Label) {
	if len(labels) > 0 {
		name += "." + joined(labels)
	}
	_ = s.client.TimeInMilliseconds(name, 1000*seconds, nil, 1)
}

// Observe implements plugins.Metrics. Kinto sends no labels here.
func (s *StatsD) Observe(name string, value float64, _ []plugins.Label) {
	_ = s.client.Gauge(name, value, nil, 1)
}

// Figures implements plugins.Metrics: they are sent every ten seconds until Close.
func (s *StatsD) Figures(read func() []plugins.Figure) {
	s.stop, s.done, s.last = make(chan struct{}), make(chan struct{}), map[string]float64{}
	go func() {
		defer close(s.done)
		tick := time.NewTicker(figuresEvery)
		defer tick.Stop()
		for {
			s.send(read())
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	}()
}

// send sends figures: gauges as they are, counters by what they grew.
func (s *StatsD) send(figures []plugins.Figure) {
	for i := range figures {
		f := &figures[i]
		name := f.Name
		if len(f.Labels) > 0 {
			name += "." + joined(f.Labels)
		}
		if !f.Counter {
			_ = s.client.Gauge(name, f.Value, nil, 1)
			continue
		}
		if grown := int64(f.Value - s.last[name]); grown > 0 {
			_ = s.client.Count(name, grown, nil, 1)
		}
		s.last[name] = f.Value
	}
}

// Close sends what is buffered and ends.
func (s *StatsD) Close() error {
	if s.stop != nil {
		close(s.stop)
		<-s.done
		s.stop = nil
	}
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

var (
	_ plugins.Provisioner = (*StatsD)(nil)
	_ plugins.Metrics     = (*StatsD)(nil)
)
