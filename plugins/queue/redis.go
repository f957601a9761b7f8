package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"quinto/plugins"
)

// Settings of Redis, as kinto-redis has them.
const (
	RedisList       = "kinto_redis.listeners"
	RedisStream     = "quinto.redis_stream"
	DefaultListName = "kinto.core.events"
	DefaultPoolSize = 25
	MaxPoolSize     = 1000
	MaxStreamLength = 1 << 40
)

// redisList is Kinto's listener (kinto_redis.listeners): LPUSH of the event's payload.
func redisList() backend {
	return backend{module: RedisList, params: []string{"listname", "pool_size", "pool_timeout"}, short: true,
		check: func(s *plugins.Settings) (func(context.Context) (sender, error), error) {
			name, err := text(s, "listname", DefaultListName)
			if err != nil {
				return nil, err
			}
			return redisClient(s, func(ctx context.Context, c *redis.Client, m message) error {
				return c.LPush(ctx, name, m.body).Err()
			})
		}}
}

// redisStream adds each change to a stream, with the fields id and payload.
func redisStream() backend {
	return backend{module: RedisStream, params: []string{"stream", "maxlen", "pool_size", "pool_timeout"},
		check: func(s *plugins.Settings) (func(context.Context) (sender, error), error) {
			name, err := text(s, "stream", DefaultListName)
			if err != nil {
				return nil, err
			}
			most, err := number(s, "maxlen", 0, 0, MaxStreamLength)
			if err != nil {
				return nil, err
			}
			return redisClient(s, func(ctx context.Context, c *redis.Client, m message) error {
				return c.XAdd(ctx, &redis.XAddArgs{Stream: name, MaxLen: most, Approx: most > 0, Values: []any{"id", m.id, "payload", m.body}}).Err()
			})
		}}
}

// redisClient reads url, pool_size and pool_timeout. kinto-redis takes a URL without
// host or port for localhost:6379, and has no users.
func redisClient(s *plugins.Settings, push func(context.Context, *redis.Client, message) error) (func(context.Context) (sender, error), error) {
	address := strings.TrimSpace(s.URL)
	if address == "" {
		address = "redis://localhost:6379"
	}
	o, err := redis.ParseURL(address)
	if err != nil { // it quotes the URL
		return nil, errors.New("url: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE] or rediss://… is needed")
	}
	size, err := number(s, "pool_size", DefaultPoolSize, 1, MaxPoolSize)
	if err != nil {
		return nil, err
	}
	if o.PoolTimeout, err = seconds(s, "pool_timeout", 20*time.Second); err != nil {
		return nil, err
	}
	o.PoolSize, o.MaxActiveConns = int(size), int(size)
	o.MaxRetries = -1 // the dispatcher tries again
	o.Protocol, o.DisableIdentity, o.ContextTimeoutEnabled = 2, true, true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return func(context.Context) (sender, error) { return &redisSender{redis.NewClient(o), push}, nil }, nil
}

type redisSender struct {
	client *redis.Client
	push   func(context.Context, *redis.Client, message) error
}

func (r *redisSender) send(ctx context.Context, m message) error { return r.push(ctx, r.client, m) }

func (r *redisSender) Close() error { return r.client.Close() }
