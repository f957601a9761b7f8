package prometheus

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quinto/plugins"
)

// contentType is that of Kinto's Python library. All names are plain, so that the
// text is the same as that of version 0.0.4.
const contentType = "text/plain; version=1.0.0; charset=utf-8"

// wholeBound is a bucket's bound without a point: Kinto writes le="1.0", and
// queries name it so. No label's value can look like it, since quotes in there are
// escaped.
var wholeBound = regexp.MustCompile(`([{,]le="[0-9]+)"`)

// text is all measurements.
func (p *Prometheus) text() ([]byte, error) {
	families, err := p.registry.Gather()
	if err != nil {
		return nil, err
	}
	families = append(families, p.figureFamilies()...)
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, err
		}
		if p.created && strings.HasPrefix(f.GetName(), p.prefix) {
			if created := createdFamily(f); created != nil {
				if _, err := expfmt.MetricFamilyToText(&b, created); err != nil {
					return nil, err
				}
			}
		}
	}
	return wholeBound.ReplaceAll(b.Bytes(), []byte(`$1.0"`)), nil
}

// createdFamily is the family X_created of Kinto's library, with the time at which
// each series of X began; nil for those that have none.
func createdFamily(f *dto.MetricFamily) *dto.MetricFamily {
	out := &dto.MetricFamily{Name: proto.String(strings.TrimSuffix(f.GetName(), "_total") + "_created"), Help: f.Help, Type: dto.MetricType_GAUGE.Enum()}
	for _, m := range f.GetMetric() {
		var since *timestamppb.Timestamp
		switch {
		case m.GetCounter() != nil:
			since = m.GetCounter().GetCreatedTimestamp()
		case m.GetHistogram() != nil:
			since = m.GetHistogram().GetCreatedTimestamp()
		case m.GetSummary() != nil:
			since = m.GetSummary().GetCreatedTimestamp()
		}
		if since == nil {
			return nil
		}
		seconds := float64(since.AsTime().UnixMicro()) / 1e6
		out.Metric = append(out.Metric, &dto.Metric{Label: m.GetLabel(), Gauge: &dto.Gauge{Value: &seconds}})
	}
	return out
}

// figureFamilies are the node's own figures.
func (p *Prometheus) figureFamilies() []*dto.MetricFamily {
	if p.figures == nil {
		return nil
	}
	byName := map[string]*dto.MetricFamily{}
	var all []*dto.MetricFamily
	for _, figure := range p.figures() {
		name, on := p.name(figure.Name)
		if !on {
			continue
		}
		if figure.Counter {
			name += "_total"
		}
		f := byName[name]
		if f == nil {
			f = &dto.MetricFamily{Name: &name, Help: proto.String(figure.Help), Type: dto.MetricType_GAUGE.Enum()}
			if figure.Counter {
				f.Type = dto.MetricType_COUNTER.Enum()
			}
			byName[name], all = f, append(all, f)
		}
		f.Metric = append(f.Metric, figureMetric(&figure))
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

func figureMetric(figure *plugins.Figure) *dto.Metric {
	m := &dto.Metric{}
	for _, l := range figure.Labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(fixName(l.Name)), Value: proto.String(l.Value)})
	}
	if figure.Counter {
		m.Counter = &dto.Counter{Value: &figure.Value}
	} else {
		m.Gauge = &dto.Gauge{Value: &figure.Value}
	}
	return m
}
