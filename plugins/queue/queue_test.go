package queue

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"quinto/fsm"
	"quinto/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t testing.TB, module, url string, params map[string]string) *Queue {
	t.Helper()
	p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "q", Use: module, URL: url, Params: params})
	if err != nil {
		t.Fatal(err)
	}
	q := p.(*Queue)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func delivery(id string) plugins.Delivery {
	path := fsm.Path("/buckets/b/collections/c/records/r")
	return plugins.Delivery{
		ID: id, Notifier: "q", Cluster: "x", Attempt: 1,
		Event: &fsm.Event{Revision: 7, Action: fsm.ActionCreate, Path: path, UserID: "basicauth:a", LastModified: 1500},
		New:   &fsm.Object{Path: path, Revision: 7, LastModified: 1500, Data: []byte(`{}`)},
	}
}

const (
	full = `{"timestamp":1500,"action":"create","uri":"/buckets/b/collections/c/records/r","user_id":"basicauth:a","resource_name":"record","bucket_id":"b","collection_id":"c","record_id":"r","revision":7,` +
		`"impacted_objects":[{"new":{"id":"r","last_modified":1500}}]}`
	short = `{"timestamp":1500,"action":"create","uri":"/buckets/b/collections/c/records/r","user_id":"basicauth:a","resource_name":"record","bucket_id":"b","collection_id":"c","record_id":"r","revision":7,` +
		`"delivery_id":"msg_1"}`
)

// A Redis that is away, and comes back, gets what it had missed, in order, and keeps it.
func TestRedis(t *testing.T) {
	s := startRedis(t)
	url := "redis://:geheim@" + s.addr + "/0"
	list := load(t, RedisList, url, map[string]string{"listname": "l", "pool_size": "3"})
	stream := load(t, RedisStream, url, map[string]string{"stream": "s", "maxlen": "1000"})
	ctx := context.Background()
	for _, q := range []*Queue{list, stream} {
		if err := q.Deliver(ctx, delivery("msg_1")); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	for _, q := range []*Queue{list, stream} {
		if err := q.Deliver(ctx, delivery("msg_2")); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("to a dead server: %v", err)
		}
	}
	s.start()
	for _, q := range []*Queue{list, stream} {
		until(t, "delivery after the restart", func(ctx context.Context) error { return q.Deliver(ctx, delivery("msg_2")) })
	}
	c := redis.NewClient(&redis.Options{Addr: s.addr, Password: "geheim", Protocol: 2})
	defer c.Close()
	got, err := c.LRange(ctx, "l", 0, -1).Result()
	if err != nil || len(got) != 2 || got[1] != short || got[0] != strings.ReplaceAll(short, "msg_1", "msg_2") {
		t.Errorf("list %q, %v", got, err)
	}
	entries, err := c.XRange(ctx, "s", "-", "+").Result()
	if err != nil || len(entries) != 2 || entries[0].Values["id"] != "msg_1" || entries[1].Values["id"] != "msg_2" || entries[0].Values["payload"] != full {
		t.Errorf("stream %v, %v", entries, err)
	}
	if wrong := load(t, RedisList, "redis://:geheimnis@"+s.addr, nil).Deliver(ctx, delivery("msg_3")); wrong == nil || strings.Contains(wrong.Error(), "geheim") {
		t.Errorf("a wrong password: %v", wrong)
	}
}

func TestRedisStreamIsBounded(t *testing.T) {
	s := startRedis(t)
	q := load(t, RedisStream, "redis://:geheim@"+s.addr, map[string]string{"maxlen": "50"})
	for range 400 {
		if err := q.Deliver(context.Background(), delivery("msg_1")); err != nil {
			t.Fatal(err)
		}
	}
	c := redis.NewClient(&redis.Options{Addr: s.addr, Password: "geheim", Protocol: 2})
	defer c.Close()
	if n, err := c.XLen(context.Background(), DefaultListName).Result(); err != nil || n > 200 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// A repeat has the id of the first and is kept once; without a stream nothing is taken.
func TestNATS(t *testing.T) {
	s := startNATS(t)
	url := "nats://quinto:geheim@" + s.addr
	q := load(t, JetStream, url, map[string]string{"subject": "kinto.events", "stream": "K"})
	ctx := context.Background()
	if err := q.Deliver(ctx, delivery("msg_1")); err == nil {
		t.Error("taken without a stream")
	}
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "K", Subjects: []string{"kinto.>"}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"msg_1", "msg_1", "msg_2"} {
		if err := q.Deliver(ctx, delivery(id)); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	if err := q.Deliver(ctx, delivery("msg_3")); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("to a dead server: %v", err)
	}
	s.start()
	until(t, "delivery after the restart", func(ctx context.Context) error { return q.Deliver(ctx, delivery("msg_3")) })
	var k jetstream.Stream
	until(t, "stream", func(ctx context.Context) (err error) { k, err = js.Stream(ctx, "K"); return err })
	for i, id := range []string{"msg_1", "msg_2", "msg_3"} {
		m, err := k.GetMsg(ctx, uint64(i+1))
		if err != nil || m.Header.Get("Nats-Msg-Id") != id || string(m.Data) != full {
			t.Errorf("message %d: %v, %v", i+1, m, err)
		}
	}
	big := delivery("msg_4")
	big.New.Data = []byte(`{"x":"` + strings.Repeat("x", 2<<20) + `"}`)
	if err := q.Deliver(ctx, big); !plugins.IsPermanent(err) {
		t.Errorf("more than the server takes: %v", err)
	}
	if err := load(t, JetStream, "nats://quinto:geheimnis@"+s.addr, nil).Deliver(ctx, delivery("msg_5")); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a wrong password: %v", err)
	}
}

// A server that takes a connection and never answers costs one bounded attempt.
func TestTimeout(t *testing.T) {
	p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "q", Use: RedisList, Params: map[string]string{"timeout_seconds": "0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	q := p.(*Queue)
	q.connect = func(context.Context) (sender, error) { return silent{}, nil }
	begun := time.Now()
	if err := q.Deliver(context.Background(), delivery("msg_1")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if err := q.Deliver(context.Background(), delivery("msg_1")); err == nil {
		t.Error("delivered after the close")
	}
}

type silent struct{}

func (silent) send(ctx context.Context, _ message) error { <-ctx.Done(); return ctx.Err() }
func (silent) Close() error                              { return nil }

func TestPayloadsAreJSON(t *testing.T) {
	for _, action := range []fsm.Action{fsm.ActionCreate, fsm.ActionFlush} {
		d := delivery("msg_1")
		if d.Event.Action = action; action == fsm.ActionFlush {
			d.Event.Path, d.New = "", nil
		}
		for _, b := range [][]byte{plugins.ShortPayload(&d), plugins.Payload(&d)} {
			if !json.Valid(b) {
				t.Errorf("%s", b)
			}
		}
	}
}

// A bad setting is one clear error that never shows a password.
func TestBadSettings(t *testing.T) {
	for name, s := range map[string]plugins.Settings{
		"scheme":        {Use: RedisList, URL: "http://:geheim@localhost"},
		"database":      {Use: RedisList, URL: "redis://:geheim@localhost/x"},
		"control":       {Use: RedisList, URL: "redis://:geheim\n@localhost/x"},
		"pool":          {Use: RedisList, Params: map[string]string{"pool_size": "0"}},
		"maxlen":        {Use: RedisStream, Params: map[string]string{"maxlen": "-1"}},
		"timeout":       {Use: RedisStream, Params: map[string]string{"timeout_seconds": "31"}},
		"name":          {Use: RedisStream, Params: map[string]string{"stream": strings.Repeat("x", MaxNameBytes+1)}},
		"nats url":      {Use: JetStream, URL: "nats://u:geheim@localhost, http://x"},
		"no nats url":   {Use: JetStream},
		"subject":       {Use: JetStream, URL: "nats://localhost", Params: map[string]string{"subject": "a.>"}},
		"empty subject": {Use: JetStream, URL: "nats://localhost", Params: map[string]string{"subject": "a..b"}},
		"grouped":       {Use: JetStream, URL: "nats://localhost", Params: map[string]string{"grouped": "maybe"}},
		"action":        {Use: RedisList, Actions: []string{"made"}},
		"pattern":       {Use: RedisList, Params: map[string]string{"bucket": "["}},
	} {
		s.Name = "q"
		_, err := plugins.Registered().Load(context.Background(), s)
		if err == nil || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilter(t *testing.T) {
	record := &fsm.Event{Path: "/buckets/b/collections/c/records/r", Action: fsm.ActionCreate}
	bucket := &fsm.Event{Path: "/buckets/b", Action: fsm.ActionDelete}
	flush := &fsm.Event{Action: fsm.ActionFlush}
	for i, c := range []struct {
		actions, resources    []string
		bucket, collection    string
		record, whole, flushs bool
	}{
		{record: true, whole: true},
		{actions: []string{"create"}, record: true},
		{actions: []string{"read"}},
		{resources: []string{"bucket"}, whole: true},
		{bucket: "a b*", record: true, whole: true},
		{collection: "c", record: true},
		{actions: []string{"flush"}, bucket: "x", flushs: true},
	} {
		q := load(t, RedisList, "", nil)
		p, err := plugins.Registered().Load(context.Background(), plugins.Settings{Name: "q", Use: RedisList, Actions: c.actions, Resources: c.resources, Params: map[string]string{"bucket": c.bucket, "collection": c.collection}})
		if err != nil {
			t.Fatal(err)
		}
		f := p.(*Queue)
		if f.Match(record) != c.record || f.Match(bucket) != c.whole || f.Match(flush) != c.flushs {
			t.Errorf("case %d: %v %v %v", i, f.Match(record), f.Match(bucket), f.Match(flush))
		}
		if (string(f.FilterHash()) == string(q.FilterHash())) != (i == 0) {
			t.Errorf("case %d: hash", i)
		}
	}
}

var loss = plugins.Loss{ID: "msg_lost", After: 12, UpTo: 40, Time: 1500}

const lossBody = `{"timestamp":1500,"action":"lost","after":12,"up_to":40,"delivery_id":"msg_lost"}`

// A consumer finds in its Redis list, and in its stream, that changes are lost for it.
func TestLossInRedis(t *testing.T) {
	s := startRedis(t)
	url := "redis://:geheim@" + s.addr + "/0"
	ctx := context.Background()
	for _, module := range []string{RedisList, RedisStream} {
		if err := load(t, module, url, nil).Lost(ctx, loss); err != nil {
			t.Fatal(err)
		}
		c := redis.NewClient(&redis.Options{Addr: s.addr, Password: "geheim", Protocol: 2})
		if module == RedisList {
			if got, err := c.LPop(ctx, DefaultListName).Result(); err != nil || got != lossBody {
				t.Errorf("%q, %v", got, err)
			}
		} else if got, err := c.XRange(ctx, DefaultListName, "-", "+").Result(); err != nil || len(got) != 1 || got[0].Values["payload"] != lossBody || got[0].Values["id"] != loss.ID {
			t.Errorf("%v, %v", got, err)
		}
		_ = c.Close()
	}
}

// An operator can try a queue out: it takes what is no change. A queue that is not there
// is an error, without the password.
func TestTestOfAQueue(t *testing.T) {
	s := startRedis(t)
	ctx := context.Background()
	for _, module := range []string{RedisList, RedisStream} {
		q := load(t, module, "redis://:geheim@"+s.addr+"/0", nil)
		if err := q.Test(ctx, "test_1"); err != nil {
			t.Fatal(err)
		}
		c := redis.NewClient(&redis.Options{Addr: s.addr, Password: "geheim", Protocol: 2})
		if module == RedisList {
			if got, err := c.LPop(ctx, DefaultListName).Result(); err != nil || got != `{"action":"test","delivery_id":"test_1"}` {
				t.Errorf("%q, %v", got, err)
			}
		} else if got, err := c.XRange(ctx, DefaultListName, "-", "+").Result(); err != nil || len(got) != 1 || got[0].Values["id"] != "test_1" {
			t.Errorf("%v, %v", got, err)
		}
		_ = c.Close()
	}
	for module, url := range map[string]string{RedisList: "redis://:geheim@127.0.0.1:1", JetStream: "nats://u:geheim@127.0.0.1:1"} {
		q := load(t, module, url, map[string]string{"timeout_seconds": "0.3"})
		if err := q.Test(ctx, "test_1"); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", module, err)
		}
	}
}

// So does one of NATS.
func TestLossInNATS(t *testing.T) {
	s := startNATS(t)
	url := "nats://quinto:geheim@" + s.addr
	ctx := context.Background()
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "K", Subjects: []string{"kinto.>"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := load(t, JetStream, url, map[string]string{"subject": "kinto.events"}).Lost(ctx, loss); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetMsg(ctx, 1); err != nil || string(m.Data) != lossBody {
		t.Errorf("%v %v", m, err)
	}
}
