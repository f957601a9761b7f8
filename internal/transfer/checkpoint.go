package transfer

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"quinto/fsm"
)

// Checkpoint is a file that notes, after each batch, how far each list came, so that
// an import that was interrupted goes on there. A line is only appended; the last one
// about a list counts. What was written and not noted is found unchanged the next time.
// A nil Checkpoint keeps nothing.
type Checkpoint struct {
	file  *os.File
	lists map[fsm.Path]*progress
}

// progress is a line of the file. The first line has only Job.
type progress struct {
	Job    string   `json:"job,omitempty"`
	List   fsm.Path `json:"list,omitempty"`
	At     place    `json:"at"`
	Whole  bool     `json:"whole"`
	Digest Digest   `json:"digest"`

	earlier bool // as an earlier run left it
	stamp   fsm.Timestamp
	was     place
	wasDone bool
}

// OpenCheckpoint opens the file of one job: source, selection and cluster. The file of
// another one is begun anew.
func OpenCheckpoint(path, job string) (*Checkpoint, error) {
	c := &Checkpoint{lists: map[fsm.Path]*progress{}}
	if err := c.load(path, job); err != nil {
		return nil, err
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if len(c.lists) == 0 {
		flags |= os.O_TRUNC
	}
	var err error
	if c.file, err = os.OpenFile(path, flags, 0o600); err != nil {
		return nil, err
	}
	if len(c.lists) == 0 {
		err = c.write(&progress{Job: job})
	}
	return c, err
}

func (c *Checkpoint) load(path, job string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for first := true; lines.Scan(); first = false {
		var p progress
		if json.Unmarshal(lines.Bytes(), &p) != nil {
			break // cut off by a crash: what follows was not noted
		}
		if first && p.Job != job {
			return nil
		}
		if !first {
			p.earlier, p.stamp, p.was, p.wasDone = true, p.Digest.Timestamp, p.At, p.Whole
			c.lists[p.List] = &p
		}
	}
	return lines.Err()
}

func (c *Checkpoint) write(p *progress) error {
	line, err := json.Marshal(p)
	if err == nil {
		_, err = c.file.Write(append(line, '\n'))
	}
	return err
}

func (c *Checkpoint) of(list fsm.Path) *progress {
	p := c.lists[list]
	if p == nil {
		p = &progress{List: list}
		c.lists[list] = p
	}
	return p
}

// Resumes reports whether an earlier run left something to go on from.
func (c *Checkpoint) Resumes() bool { return c != nil && len(c.lists) > 0 }

// at is how far the earlier run read a list.
func (c *Checkpoint) at(list fsm.Path) (place, bool) {
	if c == nil || c.lists[list] == nil || !c.lists[list].earlier {
		return place{}, false
	}
	return c.lists[list].was, c.lists[list].wasDone
}

// timestamp is what the earlier run found the list's to be, if it read all of it.
func (c *Checkpoint) timestamp(list fsm.Path) (fsm.Timestamp, bool) {
	if _, whole := c.at(list); !whole {
		return 0, false
	}
	return c.lists[list].stamp, true
}

// digest is what the earlier run counted in a list.
func (c *Checkpoint) digest(list fsm.Path) *Digest {
	if c == nil {
		return &Digest{}
	}
	return &c.of(list).Digest
}

func (c *Checkpoint) reach(list fsm.Path, at place) {
	if c != nil {
		c.of(list).At = at
	}
}

func (c *Checkpoint) finish(list fsm.Path) {
	if c != nil {
		c.of(list).Whole = true
	}
}

// note appends how far a list is now.
func (c *Checkpoint) note(list fsm.Path, d *Digest) error {
	if c == nil {
		return nil
	}
	p := c.of(list)
	p.Digest = *d
	return c.write(p)
}

// Close closes the file, and removes it when done: the next import reads everything.
func (c *Checkpoint) Close(done bool) error {
	if c == nil {
		return nil
	}
	err := c.file.Close()
	if done {
		err = errors.Join(err, os.Remove(c.file.Name()))
	}
	return err
}
