package plugins

import (
	"context"
	"sync"
)

// Later is the error by which an Authenticator, a Kind's Complete or a BeforeCommit asks for slow
// work that must not be done while something is decided, such as the hash of a
// password. The server calls Work with nothing held and then decides the request
// again; what was found out is kept with Remember. Work's error fails the request:
// one that wraps fsm.ErrOverloaded with a 503.
type Later struct {
	Work func(ctx context.Context) error
}

// Error implements error.
func (*Later) Error() string { return "plugins: slow work has to be done before the decision" }

type memoKey struct{}

// WithMemo returns a context for one request, through which Remember and Recall
// keep what its decisions must not find out twice.
func WithMemo(ctx context.Context) context.Context {
	return context.WithValue(ctx, memoKey{}, new(sync.Map))
}

// Remember keeps a value under a comparable key until the request of ctx is
// answered. Without WithMemo it does nothing.
func Remember(ctx context.Context, key, value any) {
	if memo, ok := ctx.Value(memoKey{}).(*sync.Map); ok {
		memo.Store(key, value)
	}
}

// Recall returns what Remember kept under key, or ok false.
func Recall(ctx context.Context, key any) (value any, ok bool) {
	if memo, found := ctx.Value(memoKey{}).(*sync.Map); found {
		return memo.Load(key)
	}
	return nil, false
}
