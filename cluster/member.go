package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"quinto/fsm"
)

// Changes of membership that an operator asks for. They are made by the leader,
// one at a time; any node takes them there.

// The replicated settings of membership. node/NAME ties a name to the id of its
// data directory and outlives the membership, until the name is forgotten.
// removed/ID says that the directory of that id was removed: for ever, since it
// may come back after any time. novote/NAME keeps a node from being promoted.
const (
	nodeSetting    = "node/"
	removedSetting = "removed/"
	noVoteSetting  = "novote/"
)

// Action is what a Change asks for. The texts travel between nodes.
type Action string

// The actions of a Change.
const (
	// ActionRemove takes a member out of the cluster, for ever.
	ActionRemove Action = "remove"
	// ActionPromote gives a vote now to a member that has none.
	ActionPromote Action = "promote"
	// ActionDemote takes the vote of a member, which goes on to follow.
	ActionDemote Action = "demote"
	// ActionTransfer hands leadership to a member, or to the best one.
	ActionTransfer Action = "transfer"
	// ActionForget gives the name of a removed member free for another directory.
	ActionForget Action = "forget"
)

// Change is one change of membership or leadership.
type Change struct {
	Action Action `json:"action"`
	Name   string `json:"name"`  // of the node meant; with ActionTransfer empty for any
	Force  bool   `json:"force"` // also if no living majority is left, or the node does not keep up
}

func (c *Change) encode() []byte {
	return appendBool(appendString(appendString(nil, string(c.Action)), c.Name), c.Force)
}

func decodeChange(b []byte) (*Change, error) {
	d := decoder{b: b}
	c := &Change{Action: Action(d.string()), Name: d.string(), Force: d.bool()}
	return c, d.err
}

// ChangeMember makes c through the leader, whichever node that is, and returns what
// was done, in words. It waits up to 30 s: a leader that is to be removed hands over
// first, and its successor does the rest. say, if not nil, hears of the steps. A
// change that is made already is no error, so it may be asked for again. Nothing was
// done: ErrQuorum, ErrNoMember, ErrRefused, fsm.ErrNoLeader. Perhaps something was:
// fsm.ErrUnknownOutcome.
func (n *Node) ChangeMember(ctx context.Context, c Change, say func(string)) (string, error) {
	if say == nil {
		say = func(string) {}
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var done string
	told := false
	for asked := ""; ; {
		err := n.askLeader(ctx, func(ctx context.Context, l leader) error {
			if l.name != asked {
				asked = l.name
				say("asking the leader, " + l.name)
			}
			var err error
			if l.self {
				done, err = n.change(ctx, &c)
				return err
			}
			done, err = n.callChange(ctx, l, &c)
			return err
		})
		if err != nil && c.Action == ActionRemove && c.Name == n.cfg.Name && errors.Is(n.health.fault(), ErrRemoved) {
			// Nobody answers a removed node; but it was told.
			return fmt.Sprintf("removed %s, which was asked itself", c.Name), nil
		}
		again := errors.Is(err, fsm.ErrNoLeader) || // what is done already is no error:
			errors.Is(err, fsm.ErrUnknownOutcome) && c.Action != ActionTransfer && ctx.Err() == nil
		if !again {
			return done, err
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%w: less than a majority of the members answers", fsm.ErrNoLeader)
		}
		if !told {
			told = true
			say("waiting for a leader")
		}
		pause(ctx, retryMax)
	}
}

func (n *Node) callChange(ctx context.Context, l leader, c *Change) (string, error) {
	f, err := n.client.call(ctx, l.name, l.addr, callMember, c.encode())
	switch {
	case errors.Is(err, errUnsent):
		return "", fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
	case err != nil:
		return "", fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, err)
	}
	text := string(f.payload)
	switch f.status {
	case statusOK:
		return text, nil
	case statusQuorum:
		return "", fmt.Errorf("%w: %s", ErrQuorum, text)
	case statusNoMember:
		return "", fmt.Errorf("%w: %s", ErrNoMember, text)
	case statusRefused:
		return "", fmt.Errorf("%w: %s", ErrRefused, text)
	case statusUnknown:
		return "", fmt.Errorf("%w: the leader, %s, is of an older version", ErrRefused, l.name)
	default:
		return "", forwardStatus(f)
	}
}

// serveChange is the other end.
func (n *Node) serveChange(ctx context.Context, payload []byte) (callStatusCode, []byte) {
	c, err := decodeChange(payload)
	if err != nil {
		return statusRefused, []byte(err.Error())
	}
	done, err := n.change(ctx, c)
	text := func(kind error) []byte { return []byte(strings.TrimPrefix(err.Error(), kind.Error()+": ")) }
	switch {
	case err == nil:
		return statusOK, []byte(done)
	case errors.Is(err, fsm.ErrNotLeader):
		return statusNotLeader, nil
	case errors.Is(err, ErrQuorum):
		return statusQuorum, text(ErrQuorum)
	case errors.Is(err, ErrNoMember):
		return statusNoMember, text(ErrNoMember)
	case errors.Is(err, fsm.ErrUnknownOutcome):
		return statusFailed, []byte(err.Error())
	default:
		return statusRefused, text(ErrRefused)
	}
}

// change makes c on the leader. fsm.ErrNotLeader: ask again, this node does not lead
// or has just handed over because c is about itself.
func (n *Node) change(ctx context.Context, c *Change) (string, error) {
	if !n.IsLeader() {
		return "", fsm.ErrNotLeader
	}
	n.joinMu.Lock()
	defer n.joinMu.Unlock()
	var (
		done string
		err  error
	)
	switch c.Action {
	case ActionRemove:
		done, err = n.removeMember(ctx, c)
	case ActionPromote:
		done, err = n.promoteMember(ctx, c)
	case ActionDemote:
		done, err = n.demoteMember(ctx, c)
	case ActionTransfer:
		done, err = n.transferTo(c.Name)
	case ActionForget:
		done, err = n.forgetName(ctx, c.Name)
	default:
		err = fmt.Errorf("%w: %q is of a newer version", ErrRefused, c.Action)
	}
	if err != nil {
		n.log.Warn("membership", "action", c.Action, "node", c.Name, "error", err)
		return "", err
	}
	n.log.Info("membership", "action", c.Action, "node", c.Name, "done", done)
	return done, nil
}

// find returns the member called name.
func (n *Node) find(name string) (raft.Server, error) {
	servers := n.servers()
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == name })
	if i < 0 {
		return raft.Server{}, fmt.Errorf("%w: %q; the members are %s", ErrNoMember, name, memberNames(servers))
	}
	return servers[i], nil
}

func memberNames(servers []raft.Server) string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = string(s.ID)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// checkQuorum returns ErrQuorum unless a majority of the voters that are left without
// name answers now, on the cluster port: what gossip believes does not count.
func (n *Node) checkQuorum(ctx context.Context, name string, force bool) error {
	var left []raft.Server
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter && string(s.ID) != name {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return fmt.Errorf("%w: %q has the only vote", ErrQuorum, name)
	}
	if force {
		return nil
	}
	need := len(left)/2 + 1
	if count := n.countAnswers(ctx, left, need); count < need {
		return fmt.Errorf("%w: without %q there are %d votes, %d of them have to answer, %d do", ErrQuorum, name, len(left), need, count)
	}
	return nil
}

// countAnswers returns how many of the members answer, or need as soon as so many did.
// One that is slow, or whose connection was of its process before, is asked again.
func (n *Node) countAnswers(ctx context.Context, members []raft.Server, need int) (count int) {
	ctx, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	alive := make(chan bool, len(members))
	for _, s := range members {
		n.goRun(func() {
			_, err := n.askStatus(ctx, string(s.ID), n.peerAddr(string(s.ID), string(s.Address)))
			for err != nil && ctx.Err() == nil {
				pause(ctx, retryMax)
				_, err = n.askStatus(ctx, string(s.ID), n.peerAddr(string(s.ID), string(s.Address)))
			}
			alive <- err == nil
		})
	}
	for range members {
		select {
		case ok := <-alive:
			if ok {
				count++
			}
		case <-ctx.Done():
			return count
		}
		if count >= need {
			break
		}
	}
	return count
}

// removeMember notes first that the directory is out, so that no crash in between can
// let it come back, then takes it out of Raft's configuration. The leader's chores end
// what is left half done.
func (n *Node) removeMember(ctx context.Context, c *Change) (string, error) {
	s, err := n.find(c.Name)
	if err != nil {
		if id, known := n.knownID(c.Name); known == nil && n.removed(id) {
			return fmt.Sprintf("%s is no member any more", c.Name), nil
		}
		return "", err
	}
	if s.Suffrage == raft.Voter {
		if err := n.checkQuorum(ctx, c.Name, c.Force); err != nil {
			return "", err
		}
	}
	if c.Name == n.cfg.Name {
		if _, err := n.transferTo(""); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: handed over, since it is to be removed", fsm.ErrNotLeader)
	}
	id, err := n.knownID(c.Name)
	if err != nil {
		return "", err
	}
	for _, f := range n.ident.get().Bootstrap { // a new cluster's leader has yet to note them
		if id == "" && f.Name == c.Name {
			id = f.ID
		}
	}
	if id == "" {
		return "", fmt.Errorf("%w: the id behind %q is not known yet, try again", ErrRefused, c.Name)
	}
	err = n.setSettings(ctx, setting(removedSetting+id, c.Name), setting(nodeSetting+c.Name, id), setting(noVoteSetting+c.Name, ""))
	if err != nil {
		return "", err
	}
	if err := n.dropServer(ctx, s.ID); err != nil {
		return "", err
	}
	left := n.voters()
	return fmt.Sprintf("removed %s; %d votes are left, %d of them are a majority", c.Name, left, left/2+1), nil
}

// dropServer takes id out of Raft's configuration.
func (n *Node) dropServer(ctx context.Context, id raft.ServerID) error {
	err := await(ctx, n.raft.RemoveServer(id, 0, callTimeout))
	if err == nil {
		n.log.Warn("removed", "node", id)
	}
	return err
}

// await waits for a change of Raft's configuration, at most until ctx ends.
func await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if err != nil {
			return outcomeError(err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", fsm.ErrUnknownOutcome, ctx.Err())
	}
}

func (n *Node) promoteMember(ctx context.Context, c *Change) (string, error) {
	s, err := n.find(c.Name)
	if err != nil {
		return "", err
	}
	if s.Suffrage == raft.Voter {
		return c.Name + " has a vote already", nil
	}
	if !c.Force {
		commit := n.raft.CommitIndex()
		st, err := n.askStatus(ctx, c.Name, n.peerAddr(c.Name, string(s.Address)))
		if err != nil {
			return "", fmt.Errorf("%w: %q does not answer: %w", ErrRefused, c.Name, err)
		}
		if st.Applied+promoteLag < commit {
			return "", fmt.Errorf("%w: %q is still catching up, %d entries are left", ErrRefused, c.Name, commit-st.Applied)
		}
	}
	if err := n.setSettings(ctx, setting(noVoteSetting+c.Name, "")); err != nil {
		return "", err
	}
	if err := await(ctx, n.raft.AddVoter(s.ID, s.Address, 0, callTimeout)); err != nil {
		return "", err
	}
	return c.Name + " has a vote", nil
}

func (n *Node) demoteMember(ctx context.Context, c *Change) (string, error) {
	s, err := n.find(c.Name)
	if err != nil {
		return "", err
	}
	if s.Suffrage == raft.Voter {
		if err := n.checkQuorum(ctx, c.Name, c.Force); err != nil {
			return "", err
		}
	}
	if c.Name == n.cfg.Name {
		if _, err := n.transferTo(""); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: handed over, since it is to lose its vote", fsm.ErrNotLeader)
	}
	if err := n.setSettings(ctx, setting(noVoteSetting+c.Name, "1")); err != nil {
		return "", err
	}
	if err := await(ctx, n.raft.DemoteVoter(s.ID, 0, callTimeout)); err != nil {
		return "", err
	}
	return c.Name + " has no vote now", nil
}

// transferTo hands leadership to the voter called name, or to the best one.
func (n *Node) transferTo(name string) (string, error) {
	if name == n.cfg.Name {
		return name + " leads already", nil
	}
	if n.voters() < 2 {
		return "", fmt.Errorf("%w: %q has the only vote", ErrRefused, n.cfg.Name)
	}
	begin := time.Now()
	if name == "" {
		if err := n.TransferLeadership("asked for"); err != nil {
			return "", fmt.Errorf("%w: %w", ErrRefused, err)
		}
	} else {
		s, err := n.find(name)
		if err != nil {
			return "", err
		}
		if s.Suffrage != raft.Voter {
			return "", fmt.Errorf("%w: %q has no vote", ErrRefused, name)
		}
		if err := n.handTo(s); err != nil {
			return "", fmt.Errorf("%w: %q does not take over: %w", ErrRefused, name, err)
		}
	}
	waitLeader(n, begin)
	_, id := n.raft.LeaderWithID()
	if id == "" {
		return "handed over", nil
	}
	return fmt.Sprintf("%s leads, after %d ms", id, time.Since(begin).Milliseconds()), nil
}

// waitLeader waits until a successor has told this node that it leads, so that the
// answer can name it; that it does not is no error.
func waitLeader(n *Node, begin time.Time) {
	for time.Since(begin) < leaderWait && n.ctx.Err() == nil {
		if _, id := n.raft.LeaderWithID(); id != "" && string(id) != n.cfg.Name {
			return
		}
		pause(n.ctx, retryMin)
	}
}

// forgetName gives a name free. The directory that had it stays removed.
func (n *Node) forgetName(ctx context.Context, name string) (string, error) {
	if n.isMember(name) {
		return "", fmt.Errorf("%w: %q is a member: remove it first", ErrRefused, name)
	}
	id, err := n.knownID(name)
	if err != nil {
		return "", err
	}
	if id == "" {
		return fmt.Sprintf("nothing is known of %s", name), nil
	}
	err = n.setSettings(ctx, setting(removedSetting+id, name), setting(nodeSetting+name, ""))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s may be the name of a new node", name), nil
}

// knownID is the id that is tied to name; "" when there is none.
func (n *Node) knownID(name string) (string, error) {
	v, err := n.fsm.View()
	if err != nil {
		return "", err
	}
	defer v.Close()
	id, err := v.Setting(nodeSetting + name)
	return string(id), err
}

// setting is the operation that sets a replicated setting, or drops it when empty.
func setting(name, value string) fsm.Op {
	op := fsm.Op{Type: fsm.OpSetSetting, Name: name}
	if value != "" {
		op.Value = []byte(value)
	}
	return op
}

// setSettings replicates ops, as far as they change anything.
func (n *Node) setSettings(ctx context.Context, ops ...fsm.Op) error {
	v, err := n.fsm.View()
	if err != nil {
		return err
	}
	var todo []fsm.Op
	for _, op := range ops {
		have, err := v.Setting(op.Name)
		if err != nil {
			v.Close()
			return err
		}
		if string(have) != string(op.Value) {
			todo = append(todo, op)
		}
	}
	v.Close()
	if len(todo) == 0 {
		return nil
	}
	_, err = n.Propose(ctx, fsm.Txn{Now: n.Now(), Ops: todo})
	return err
}
