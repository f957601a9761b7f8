package prometheus

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"quinto/plugins"
)

// vectors are the metrics that were used so far, made at their first use as in
// Kinto: their names and labels are those of the first measurement.
type vectors struct {
	registry *prometheus.Registry

	mu sync.RWMutex
	of map[string]*vector
}

// maxSeries bounds the series of one metric. Ids of objects and users are labels,
// so clients decide how many there are; those beyond are not measured.
const maxSeries = 20_000

// vector is one metric with all its series.
type vector struct {
	names []string // of the labels

	counters   *prometheus.CounterVec
	histograms *prometheus.HistogramVec
	summaries  *prometheus.SummaryVec

	mu    sync.RWMutex
	known map[string]any // the series, by their labels' values
}

func newVectors(registry *prometheus.Registry) vectors {
	return vectors{registry: registry, of: map[string]*vector{}}
}

// get returns the metric called name; make registers a new one.
func (v *vectors) get(name string, labels []plugins.Label, make func(x *vector) prometheus.Collector) *vector {
	v.mu.RLock()
	x := v.of[name]
	v.mu.RUnlock()
	if x != nil {
		return x
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if x := v.of[name]; x != nil {
		return x
	}
	x = &vector{known: map[string]any{}}
	for _, l := range labels {
		x.names = append(x.names, fixName(l.Name))
	}
	if err := v.registry.Register(make(x)); err != nil {
		x = &vector{} // a name or label that cannot be used is measured in vain
	}
	v.of[name] = x
	return x
}

// at returns the series of labels, by made at its first use; nil for labels other
// than those of the metric.
func at[T any](x *vector, labels []plugins.Label, by func(values ...string) (T, error)) (series T) {
	if len(labels) != len(x.names) {
		return series
	}
	var key []byte
	for i, l := range labels {
		if i > 0 {
			key = append(key, 0xff)
		}
		key = append(key, l.Value...)
	}
	x.mu.RLock()
	found, ok := x.known[string(key)].(T)
	x.mu.RUnlock()
	if ok {
		return found
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if found, ok := x.known[string(key)].(T); ok {
		return found
	}
	if len(x.known) >= maxSeries || !slices.EqualFunc(labels, x.names, func(l plugins.Label, name string) bool { return fixName(l.Name) == name }) {
		return series
	}
	values := make([]string, len(labels))
	for i, l := range labels {
		values[i] = l.Value
	}
	made, err := by(values...)
	if err != nil { // not UTF-8
		return series
	}
	x.known[string(key)] = made
	return made
}

func (v *vectors) counter(name string, labels []plugins.Label) prometheus.Counter {
	x := v.get(name, labels, func(x *vector) prometheus.Collector {
		// The library's name has the suffix that Kinto's adds when it writes.
		x.counters = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: "Counter of " + name}, x.names)
		return x.counters
	})
	if x.counters == nil {
		return nil
	}
	return at(x, labels, x.counters.GetMetricWithLabelValues)
}

func (v *vectors) histogram(name string, labels []plugins.Label, buckets []float64) prometheus.Observer {
	x := v.get(name, labels, func(x *vector) prometheus.Collector {
		x.histograms = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: "Histogram of " + name, Buckets: buckets}, x.names)
		return x.histograms
	})
	if x.histograms == nil {
		return nil
	}
	return at(x, labels, x.histograms.GetMetricWithLabelValues)
}

func (v *vectors) summary(name string, labels []plugins.Label) prometheus.Observer {
	x := v.get(name, labels, func(x *vector) prometheus.Collector {
		x.summaries = prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: name, Help: "Summary of " + name}, x.names)
		return x.summaries
	})
	if x.summaries == nil {
		return nil
	}
	return at(x, labels, x.summaries.GetMetricWithLabelValues)
}
