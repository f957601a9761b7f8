package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// proposal is one transaction on its way, or a plan that makes one.
type proposal struct {
	data []byte
	plan func(*fsm.View) (fsm.Txn, error) // exclusive
	// taken: the proposer has it, from now on its caller cannot withdraw it.
	taken  atomic.Bool
	done   chan struct{}
	result fsm.Result
	err    error
}

func (p *proposal) finish(r fsm.Result, err error) {
	p.result, p.err = r, err
	close(p.done)
}

// take marks p as taken; false when its caller has given up.
func (p *proposal) take() bool { return p.taken.CompareAndSwap(false, true) }

// proposer is the group commit: while an entry is in flight, transactions
// gather; when it is done they travel together in the next one. One fsync on
// each node then serves them all. There is no timer: a lone writer waits for
// nobody.
type proposer struct {
	n      *Node
	queue  chan *proposal
	slots  chan struct{} // one token per entry in flight
	queued atomic.Int64  // bytes
	wg     sync.WaitGroup

	closing chan struct{}
	once    sync.Once

	// For the watchdog: when the oldest waiting began, or the last entry came
	// through; unix nanoseconds, 0 when nothing is in flight.
	mu       sync.Mutex
	inFlight int
	progress time.Time
}

func newProposer(n *Node) *proposer {
	return &proposer{
		n: n, queue: make(chan *proposal, n.cfg.PendingWrites),
		slots:   make(chan struct{}, n.cfg.InFlight),
		closing: make(chan struct{}),
	}
}

// Propose replicates t and returns what it did once this node has applied it.
// Only the leader can. Nothing was done: fsm.ErrNotLeader, ErrOverloaded,
// ErrTooLarge, ErrNoSpace, ErrFeatureLevel, or an error of decoding (a Txn that no
// node could apply). Perhaps something was: fsm.ErrUnknownOutcome. A compare that failed is
// Result.Conflict, not an error.
func (n *Node) Propose(ctx context.Context, t fsm.Txn) (fsm.Result, error) {
	if err := n.mayPropose(&t); err != nil {
		return fsm.Result{}, err
	}
	data, err := encodeTxn(&t, n.fsm.FeatureLevel())
	if err != nil {
		return fsm.Result{}, err
	}
	return n.prop.submit(ctx, &proposal{data: data, done: make(chan struct{})})
}

// ProposeExclusive runs plan with nothing in flight, on the state after the last
// proposal, and proposes what it returns: no other write can come between, so
// its compares hold. A Txn without Ops is not proposed and gives a Result with
// the revision of the view; plan's error is returned as it is. plan must be
// quick: every write waits for it. Errors as in Propose.
func (n *Node) ProposeExclusive(ctx context.Context, plan func(*fsm.View) (fsm.Txn, error)) (fsm.Result, error) {
	if err := n.mayPropose(nil); err != nil {
		return fsm.Result{}, err
	}
	return n.prop.submit(ctx, &proposal{plan: plan, done: make(chan struct{})})
}

// mayPropose refuses early; what frees space passes even without any.
func (n *Node) mayPropose(t *fsm.Txn) error {
	if !n.IsLeader() {
		return fsm.ErrNotLeader
	}
	if err := n.health.writes(); err != nil && !(t != nil && freesSpace(t)) {
		return err
	}
	return nil
}

func freesSpace(t *fsm.Txn) bool {
	for i := range t.Ops {
		switch t.Ops[i].Type {
		case fsm.OpTrimEvents, fsm.OpPurgeTombstones, fsm.OpDelete, fsm.OpDeleteTree:
		default:
			return false
		}
	}
	return len(t.Ops) > 0
}

// encodeTxn encodes t and reads it back: what every node must be able to apply
// is checked before it is in the log, where it would halt them all, or those that
// know no more than level.
func encodeTxn(t *fsm.Txn, level uint32) ([]byte, error) {
	data := fsm.EncodeTxn(t)
	if len(data) > fsm.MaxTxnBytes {
		return nil, fmt.Errorf("%w: %d bytes", fsm.ErrTooLarge, len(data))
	}
	if len(t.Ops) > fsm.MaxOps || len(t.Compares) > fsm.MaxCompares {
		return nil, fmt.Errorf("%w: %d operations, %d compares", fsm.ErrTooLarge, len(t.Ops), len(t.Compares))
	}
	if err := t.CheckLevel(level); err != nil {
		return nil, err
	}
	if _, err := fsm.DecodeTxn(data); err != nil {
		return nil, fmt.Errorf("cluster: transaction refused: %w", err)
	}
	return data, nil
}

func (q *proposer) submit(ctx context.Context, p *proposal) (fsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, q.n.cfg.ApplyTimeout)
	defer cancel()
	size := int64(len(p.data))
	defer q.queued.Add(-size)
	if q.queued.Add(size) > MaxQueuedBytes {
		return fsm.Result{}, fmt.Errorf("%w: bytes waiting to be written", fsm.ErrOverloaded)
	}
	select {
	case <-q.closing:
		return fsm.Result{}, fsm.ErrNotLeader
	default:
	}
	select {
	case q.queue <- p:
	default:
		return fsm.Result{}, fmt.Errorf("%w: %d transactions waiting", fsm.ErrOverloaded, cap(q.queue))
	}
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
	}
	if p.take() { // still in the queue: withdrawn
		return fsm.Result{}, fmt.Errorf("%w: waited in vain: %w", fsm.ErrOverloaded, ctx.Err())
	}
	select {
	case <-p.done: // it came just now
		return p.result, p.err
	default:
		return fsm.Result{}, fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, ctx.Err())
	}
}

// run takes from the queue until close; then it refuses what is left.
func (q *proposer) run() {
	var held *proposal // did not fit into the group before
	for {
		p := held
		held = nil
		if p == nil {
			select {
			case p = <-q.queue:
			case <-q.closing:
				q.refuseQueued()
				return
			}
		}
		q.slots <- struct{}{} // entries in flight always end, at the latest with Raft
		if p.plan != nil {
			q.exclusive(p)
			continue
		}
		var group []*proposal
		if p.take() {
			group = append(group, p)
		}
		group, held = q.gather(group, len(p.data))
		if len(group) == 0 {
			<-q.slots
			continue
		}
		q.propose(group)
	}
}

func (q *proposer) refuseQueued() {
	for {
		select {
		case p := <-q.queue:
			if p.take() {
				p.finish(fsm.Result{}, fsm.ErrNotLeader)
			}
		default:
			return
		}
	}
}

// gather adds what waits, up to the limits of a group; what does not fit any
// more comes back as held.
func (q *proposer) gather(group []*proposal, size int) (_ []*proposal, held *proposal) {
	for len(group) < fsm.MaxGroupTxns {
		var p *proposal
		select {
		case p = <-q.queue:
		default:
			return group, nil
		}
		if p.plan != nil || size+len(p.data) > fsm.MaxGroupBytes {
			return group, p
		}
		if p.take() {
			group = append(group, p)
			size += len(p.data)
		}
	}
	return group, nil
}

// propose sends one entry and leaves a goroutine that waits for it; the slot is
// held until Raft has answered.
func (q *proposer) propose(group []*proposal) {
	f, err := q.apply(group)
	if err != nil {
		<-q.slots
		finishAll(group, err)
		return
	}
	q.track(1)
	q.wg.Go(func() {
		results, err := outcome(f, len(group))
		q.track(-1)
		<-q.slots
		if err != nil {
			q.n.lead.poke()
			finishAll(group, err)
			return
		}
		for i, p := range group {
			p.finish(results[i], nil)
		}
	})
}

func (q *proposer) apply(group []*proposal) (raft.ApplyFuture, error) {
	t := q.n.lead.now.Load()
	if t == nil {
		return nil, fsm.ErrNotLeader
	}
	txns := make([][]byte, len(group))
	for i, p := range group {
		txns[i] = p.data
	}
	return q.n.raft.Apply(fsm.EncodeGroup(t.cluster, txns), enqueueTimeout), nil
}

func finishAll(group []*proposal, err error) {
	for _, p := range group {
		p.finish(fsm.Result{}, err)
	}
}

// exclusive waits until nothing is in flight, plans and proposes.
func (q *proposer) exclusive(p *proposal) {
	for range cap(q.slots) - 1 {
		q.slots <- struct{}{}
	}
	defer func() {
		for range cap(q.slots) - 1 {
			<-q.slots
		}
	}()
	if !p.take() {
		<-q.slots
		return
	}
	if q.n.lead.now.Load() == nil {
		<-q.slots
		p.finish(fsm.Result{}, fsm.ErrNotLeader)
		return
	}
	data, r, err := q.plan(p)
	if err != nil || data == nil {
		<-q.slots
		p.finish(r, err)
		return
	}
	p.data = data
	q.propose([]*proposal{p})
	<-p.done // the slots given back above would let the next one in
}

func (q *proposer) plan(p *proposal) ([]byte, fsm.Result, error) {
	v, err := q.n.fsm.View()
	if err != nil {
		return nil, fsm.Result{}, err
	}
	defer v.Close()
	t, err := p.plan(v)
	if err != nil || !t.Changes() {
		return nil, fsm.Result{Revision: v.Revision()}, err
	}
	data, err := encodeTxn(&t, v.FeatureLevel())
	return data, fsm.Result{}, err
}

// outcome waits for Raft and says what happened: nothing, perhaps, or results.
func outcome(f raft.ApplyFuture, want int) ([]fsm.Result, error) {
	if err := f.Error(); err != nil {
		return nil, outcomeError(err)
	}
	switch r := f.Response().(type) {
	case []fsm.Result:
		if len(r) == want {
			return r, nil
		}
		return nil, fmt.Errorf("%w: %d results for %d transactions", fsm.ErrUnknownOutcome, len(r), want)
	case error:
		return nil, fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, r)
	default:
		return nil, fmt.Errorf("%w: answer of type %T", fsm.ErrUnknownOutcome, r)
	}
}

// outcomeError sorts Raft's errors into "nothing was done" and "unknown".
// ErrLeadershipLost, ErrRaftShutdown and failures of the log store come after
// the entry may have left this node.
func outcomeError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", fsm.ErrOverloaded, err)
	default:
		return fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, err)
	}
}

func (q *proposer) track(delta int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inFlight += delta
	q.progress = time.Now()
}

// pending returns how long nothing has come through although something is in
// flight; 0 when nothing is.
func (q *proposer) pending() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inFlight == 0 {
		return 0
	}
	return time.Since(q.progress)
}

// close refuses new transactions; wait ends when all in flight are answered.
func (q *proposer) close() { q.once.Do(func() { close(q.closing) }) }
