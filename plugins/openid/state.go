package openid

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strconv"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// A login that was begun is a replicated row /openid/<provider>/states/<state>, so that
// it may be ended on any node, after any failover, and once: the row goes in the
// transaction that ends the login. It is an entry of the log that is no event: hooks,
// history and webhooks do not see it, clients cannot reach it, and a flush takes it
// along.

const (
	// maxStates bounds the logins of a provider that are under way: beyond it the oldest
	// are forgotten. Anybody may begin one.
	maxStates = 20_000
	// maxDrop bounds the old states that one login takes along.
	maxDrop = 20
)

var stateForm = regexp.MustCompile(`^(?:[0-9a-f]{2}){1,` + strconv.Itoa(maxStateBytes) + `}$`)

// pending is what is kept of a login.
type pending struct {
	callback string
	nonce    string // that the ID token must have; empty: any
	until    fsm.Timestamp
}

func (p *pending) encode() []byte {
	b := canon.AppendString([]byte(`{"callback":`), p.callback)
	b = canon.AppendString(append(b, `,"nonce":`...), p.nonce)
	return append(strconv.AppendInt(append(b, `,"until":`...), int64(p.until), 10), '}')
}

func decodePending(data canon.Value) (p pending) {
	text := func(name string) string {
		v, _ := data.Get(name)
		s, _ := v.String()
		return s
	}
	until, _ := data.Get("until")
	n, _ := until.Int()
	return pending{text("callback"), text("nonce"), fsm.Timestamp(n)}
}

// states is the list of a provider's.
func states(provider string) fsm.Path { return fsm.Path("/openid").Child(provider).Child("states") }

// begin makes a state, and the operations that keep it and drop old ones.
func begin(r fsm.Reader, now fsm.Timestamp, p *provider, callback string, nonce bool) (state string, kept pending, ops []fsm.Op, err error) {
	kept = pending{callback: callback, until: now + fsm.Timestamp(p.stateSeconds*1000)}
	state = random(p.stateBytes)
	if nonce {
		kept.nonce = random(16)
	}
	list := states(p.name)
	info, err := r.List(list)
	if err != nil {
		return "", kept, nil, err
	}
	surplus := info.Count + 1 - maxStates
	var old []string
	err = r.Scan(list, fsm.ScanOptions{}, func(o *fsm.Object) bool {
		if int64(len(old)) >= surplus && decodePending(o.Data).until > now || len(old) == maxDrop {
			return false
		}
		old = append(old, o.Path.ID())
		return true
	})
	if len(old) > 0 {
		ops = append(ops, fsm.Op{Type: fsm.OpDropEntries, Path: list, Members: old})
	}
	return state, kept, append(ops, fsm.Op{Type: fsm.OpPutEntry, Path: list.Child(state), Data: kept.encode()}), err
}

// resume returns the login of a state, or the refusal of a state that is unknown, used
// or too old.
func resume(r fsm.Reader, now fsm.Timestamp, provider, state string) (fsm.Path, pending, error) {
	if !stateForm.MatchString(state) {
		return "", pending{}, invalidState()
	}
	path := states(provider).Child(state)
	o, err := r.Get(path)
	if err != nil {
		return "", pending{}, err
	}
	kept := decodePending(o.Data)
	if !o.Exists() || kept.until <= now {
		return "", pending{}, invalidState()
	}
	return path, kept, nil
}

func invalidState() error {
	return &plugins.Veto{Problems: []plugins.Problem{{Location: "body", Name: "state", Description: "Invalid state", Errno: errnoInvalidAuthToken}}}
}

func random(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
