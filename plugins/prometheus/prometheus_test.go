package prometheus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"quinto/plugins"
)

// open makes the plugin as a server does.
func open(t *testing.T, settings map[string]string) *Prometheus {
	t.Helper()
	p, err := load(settings)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Prometheus)
}

func load(settings map[string]string) (any, error) {
	return plugins.Registered().Load(context.Background(), plugins.Settings{Name: "p", Use: "kinto.plugins.prometheus",
		Lookup: func(name string) (string, bool) { text, ok := settings[name]; return text, ok }})
}

func scrape(t *testing.T, p *Prometheus) string {
	t.Helper()
	answer := p.Routes()[0].Handle(context.Background(), &plugins.RouteRequest{Method: "GET", Path: Path})
	if answer.Status != 200 || answer.Header["Content-Type"] != contentType {
		t.Fatalf("%d %v", answer.Status, answer.Header)
	}
	return string(answer.Body)
}

func measure(p *Prometheus) {
	endpoint := []plugins.Label{{Name: "method", Value: "get"}, {Name: "endpoint", Value: "hello"}}
	p.Count("request_summary", 1, append(endpoint[:2:2], plugins.Label{Name: "status", Value: "200"}))
	p.Time("request_duration_seconds", 0.02, endpoint)
	p.Time("backend.storage.seconds", 2, []plugins.Label{{Name: "method", Value: "get"}})
	p.Observe("request_size", 12, endpoint)
	p.Figures(func() []plugins.Figure {
		return []plugins.Figure{{Name: "raft.term", Help: "Raft's term.", Value: 3},
			{Name: "dispatch.failures", Help: "Failed.", Counter: true, Value: 7, Labels: []plugins.Label{{Name: "notifier", Value: "x\"y"}}}}
	})
}

func TestText(t *testing.T) {
	cases := map[string]struct {
		settings  map[string]string
		want, not []string
	}{
		"Kinto's names": {nil, []string{
			"# TYPE kinto_request_summary_total counter\n", `kinto_request_summary_total{endpoint="hello",method="get",status="200"} 1`,
			"# TYPE kinto_request_summary_created gauge\n", "# HELP kinto_request_duration_seconds Histogram of kinto_request_duration_seconds\n",
			`kinto_request_duration_seconds_bucket{endpoint="hello",method="get",le="0.01"} 0`, `le="0.05"} 1`, `le="1.0"} 1`, `le="+Inf"} 1`,
			`kinto_backend_storage_seconds_bucket{method="get",le="3.0"} 1`, `kinto_request_size_sum{endpoint="hello",method="get"} 12`,
			"kinto_request_size_created{", "kinto_raft_term 3\n", `kinto_dispatch_failures_total{notifier="x\"y"} 7`, "go_goroutines "}, nil},
		"prefix is one word": {map[string]string{"prometheus_prefix": "Remote-Settings_x"}, []string{"\nremotesettingsx_request_size_sum"}, []string{"kinto_"}},
		"project's name":     {map[string]string{"project_name": "My app"}, []string{"\nmyapp_request_size_sum"}, nil},
		"no prefix":          {map[string]string{"project_name": ""}, []string{"\nrequest_size_sum"}, nil},
		"disabled": {map[string]string{"prometheus_disabled_metrics": "kinto_request_size request_summary raft_term"}, []string{"kinto_request_duration_seconds_sum"},
			[]string{"request_size", "request_summary", "raft_term"}},
		"buckets":    {map[string]string{"prometheus_histogram_buckets": "1 2.5"}, []string{`le="1.0"`, `le="2.5"`, `le="+Inf"`}, []string{`le="0.01"`}},
		"no created": {map[string]string{"prometheus_created_metrics_enabled": "false"}, []string{"kinto_request_size_sum"}, []string{"_created"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := open(t, c.settings)
			measure(p)
			text := scrape(t, p)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("missing %q", want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(text, not) {
					t.Errorf("there is %q", not)
				}
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"bucket":  {"prometheus_histogram_buckets": "1 x"},
		"falling": {"prometheus_histogram_buckets": "2 1"},
		"created": {"prometheus_created_metrics_enabled": "maybe"},
		"prefix":  {"prometheus_prefix": "1+1"},
		"NaN":     {"prometheus_histogram_buckets": "NaN"},
		"none":    {"prometheus_histogram_buckets": "Inf"},
	} {
		if _, err := load(settings); err == nil || !strings.Contains(err.Error(), "prometheus_") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCapability(t *testing.T) {
	got := open(t, map[string]string{"prometheus_disabled_metrics": "kinto_users"}).Capabilities()
	want := `{"description":"Prometheus metrics.","url":"https://github.com/Kinto/kinto/","prefix":"kinto_","disabled_metrics":["kinto_users"]}`
	if len(got) != 1 || got[0].Name != "prometheus" || got[0].Body != want {
		t.Errorf("%+v", got)
	}
}

// Clients choose ids, and with them the number of series and strange bytes in them.
func TestLabelsOfClients(t *testing.T) {
	p := open(t, nil)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range maxSeries / 2 {
				p.Count("users", 1, []plugins.Label{{Name: "userid", Value: fmt.Sprint(worker%2, i)}})
			}
		})
	}
	wg.Wait()
	p.Count("users", 1, []plugins.Label{{Name: "userid", Value: "one more"}})
	p.Count("other", 1, []plugins.Label{{Name: "userid", Value: "\xff"}})
	p.Count("other", 1, []plugins.Label{{Name: "userid", Value: "a"}, {Name: "more", Value: "b"}})
	p.Count("other", 1, []plugins.Label{{Name: "another", Value: "a"}})
	text := scrape(t, p)
	if n := strings.Count(text, "kinto_users_total{"); n != maxSeries {
		t.Errorf("%d series", n)
	}
	if strings.Contains(text, "one more") || strings.Contains(text, "kinto_other_total{") {
		t.Error("too many series, or a strange one")
	}
}

func BenchmarkCount(b *testing.B) {
	p, err := load(nil)
	if err != nil {
		b.Fatal(err)
	}
	labels := []plugins.Label{{Name: "method", Value: "get"}, {Name: "endpoint", Value: "record-object"}, {Name: "bucket_id", Value: "b"}}
	for b.Loop() {
		p.(*Prometheus).Count("request_summary", 1, labels)
	}
}
