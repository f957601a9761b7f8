package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// LifeStep is the distance at which a restored state begins its revisions: they
// go on at the next multiple of it. A service would need 348 years of a hundred
// changes each second to use one up, so what a lost life has given out lies
// between the two and is recognised (docs/adr/0013-backup-archives.md).
const LifeStep Revision = 1 << 40

// lifePrefix begins the names of the settings that remember restores; the rest
// is Life.Next, so that their order is that of time.
const lifePrefix = "life/"

// Life is one restore, or one recovery from a lost quorum, in the history of a state: revisions above Last and below
// Next were given out, if at all, by a life that was lost.
type Life struct {
	Last Revision  // the backup's, or the survivor's: the last that this state and the lost life share
	Next Revision  // the restored state's, a multiple of LifeStep
	From string    // id of the cluster that the backup is of
	At   Timestamp // when it was restored
}

const (
	lifeFormat byte = 1

	lifeFieldLast protowire.Number = 1
	lifeFieldNext protowire.Number = 2
	lifeFieldFrom protowire.Number = 3
	lifeFieldAt   protowire.Number = 4
)

func lifeName(next Revision) string { return fmt.Sprintf("%s%020d", lifePrefix, next) }

func encodeLife(l *Life) []byte {
	b := append(make([]byte, 0, 64), lifeFormat)
	b = appendUint(b, lifeFieldLast, uint64(l.Last))
	b = appendUint(b, lifeFieldNext, uint64(l.Next))
	b = appendString(b, lifeFieldFrom, l.From)
	return appendUint(b, lifeFieldAt, protowire.EncodeZigZag(int64(l.At)))
}

func decodeLife(v []byte, l *Life) error {
	if len(v) == 0 || v[0] != lifeFormat {
		return formatError("life", v)
	}
	return eachField(v[1:], func(num protowire.Number, b []byte, n uint64) error {
		switch num {
		case lifeFieldLast:
			l.Last = Revision(n)
		case lifeFieldNext:
			l.Next = Revision(n)
		case lifeFieldFrom:
			l.From = string(b)
		case lifeFieldAt:
			l.At = Timestamp(protowire.DecodeZigZag(n))
		default:
			return unknownField("life", num)
		}
		return nil
	})
}

// maxLives bounds how often a life may begin: revisions stay below 2^63.
const maxLives = 1<<63/uint64(LifeStep) - 1

// beginLife is Apply's part of a recovery: whatever nodes that are lost gave out above
// the revision of this state is told apart from what comes now. The timestamps of lists
// stay. At the last life that there is room for it does nothing.
func (a *applier) beginLife(now Timestamp) error {
	lives := uint64(a.meta.Revision / LifeStep)
	if lives >= maxLives {
		return nil
	}
	life := Life{Last: a.meta.Revision, Next: Revision(lives+1) * LifeStep, From: a.meta.ClusterID, At: now}
	a.meta.Revision = life.Next
	return a.set(key(spaceSetting, lifeName(life.Next)), encodeLife(&life))
}

// Lives are the restores that a state has behind it, the oldest first. Nil: its
// revisions are one row without a gap.
type Lives []Life

// Lives returns the restores behind the state.
func (v *View) Lives() (Lives, error) {
	var all Lives
	var bad error
	err := v.Settings(lifePrefix, func(_ string, value []byte) bool {
		var l Life
		bad = decodeLife(value, &l)
		all = append(all, l)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return all, err
}

// Lost reports whether r was given out by a life that a restore has undone: what
// was read at it may never have been part of this state.
func (l Lives) Lost(r Revision) bool {
	return slices.ContainsFunc(l, func(x Life) bool { return r > x.Last && r < x.Next })
}

// Back returns the revision that lies n changes before r.
func (l Lives) Back(r Revision, n uint64) Revision {
	for _, x := range slices.Backward(l) {
		if r < x.Next {
			continue
		}
		if here := uint64(r - x.Next); here >= n {
			return r - Revision(n)
		} else {
			n -= here
		}
		r = x.Last
	}
	return r - min(r, Revision(n))
}

// Forward returns the revision that lies n changes after r, or the beginning of
// the next life if that is nearer: the step does not cross a gap.
func (l Lives) Forward(r Revision, n uint64) Revision {
	for _, x := range l {
		if r >= x.Last && r < x.Next {
			return x.Next
		}
		if r < x.Last && uint64(x.Last-r) <= n {
			return x.Last
		}
	}
	return r + Revision(n)
}
