package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quinto/internal/testcluster"
)

const (
	diskBytes = 256 << 20 // above the floor of free space; sparse
	// A frozen file system is thawed after this by a process of its own, whatever
	// happens to this one: who writes to it cannot even be killed.
	thawAfter = 40 * time.Second
	slowIOPS  = 20
	throttle  = "/sys/fs/cgroup/blkio"
)

// disk is an ext4 file system in a file, mounted as a node's data folder.
type disk struct {
	node     *testcluster.Node
	image    string
	deadline *exec.Cmd // thaws it; nil: not frozen
	group    string    // cgroup that slows it; empty: none
}

func newDisk(dir string, n *testcluster.Node) (*disk, error) {
	d := &disk{node: n, image: filepath.Join(dir, n.Name+".img")}
	f, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), tool("mkfs.ext4", "-q", "-F", "-m", "0", d.image)); err != nil {
		return nil, err
	}
	return d, d.mount()
}

func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *disk) mount() error { return tool("mount", "-o", "loop", d.image, d.node.Dir) }

func (d *disk) unmount() error {
	var err error
	for range 50 {
		if err = tool("umount", d.node.Dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func (d *disk) close() error {
	err := d.unmount()
	if d.group != "" {
		err = errors.Join(err, os.Remove(d.group))
	}
	return err
}

func (d *disk) freeze() error {
	d.deadline = exec.Command("sh", "-c", fmt.Sprintf("sleep %d; fsfreeze -u '%s'", int(thawAfter.Seconds()), d.node.Dir))
	d.deadline.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.deadline.Start(); err != nil {
		return err
	}
	return tool("fsfreeze", "-f", d.node.Dir)
}

func (d *disk) thaw() error {
	if d.deadline == nil {
		return nil
	}
	err := tool("fsfreeze", "-u", d.node.Dir)
	_ = syscall.Kill(-d.deadline.Process.Pid, syscall.SIGKILL)
	_ = d.deadline.Wait()
	d.deadline = nil
	return err
}

// fill takes all free space, and returns the file that does.
func (d *disk) fill() (string, error) {
	path := filepath.Join(d.node.Dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	block := make([]byte, 1<<20)
	for size := len(block); size >= 4096; {
		if _, err := f.Write(block[:size]); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return path, errors.Join(err, f.Close())
		}
	}
	err = f.Close()
	return path, err
}

// slow lets the node's process write slowIOPS times a second.
func (d *disk) slow() error {
	device, err := deviceNumber(d.node.Dir)
	if err != nil {
		return err
	}
	d.group = filepath.Join(throttle, fmt.Sprintf("quinto-faults-%d-%s", os.Getpid(), d.node.Name))
	if err := os.Mkdir(d.group, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.group, "blkio.throttle.write_iops_device"), fmt.Appendf(nil, "%s %d", device, slowIOPS), 0),
		os.WriteFile(filepath.Join(d.group, "cgroup.procs"), fmt.Append(nil, d.node.PID()), 0))
}

func (d *disk) fast() error {
	return os.WriteFile(filepath.Join(throttle, "cgroup.procs"), fmt.Append(nil, d.node.PID()), 0)
}

// cut takes the disk as it is at this moment, as after a loss of power: what was
// written and not synced is not on it. The process has to be stopped, so that the
// copy is of one moment.
func (d *disk) cut() error { return tool("cp", "--sparse=always", d.image, d.image+".cut") }

// restore puts the copy in the place of the disk; the process has to be dead.
func (d *disk) restore() error {
	return errors.Join(d.unmount(), os.Rename(d.image+".cut", d.image), d.mount())
}

// tryDisk finds out whether file systems can be made here.
func tryDisk(dir string) error {
	n := &testcluster.Node{Name: "trial", Dir: filepath.Join(dir, "trial")}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	d, err := newDisk(dir, n)
	if err == nil {
		err = errors.Join(d.freeze(), d.thaw(), d.close())
	}
	if d != nil {
		err = errors.Join(err, os.Remove(d.image))
	}
	return errors.Join(err, os.RemoveAll(n.Dir))
}

func (w *world) disk(n *testcluster.Node) *disk {
	for _, d := range w.disks {
		if d.node == n {
			return d
		}
	}
	return nil
}

func diskHarms() []*harm {
	all := []*harm{
		{name: "hung-disk-leader", do: hungDisk, hold: 15 * time.Second, weight: 2},
		{name: "slow-disk-leader", do: slowDisk, weight: 1},
		{name: "full-disk-leader", do: fullDisk(true), weight: 1},
		{name: "full-disk-follower", do: fullDisk(false), weight: 1},
		{name: "power-cut-leader", do: powerCut(1), weight: 1},
		{name: "power-cut-majority", do: powerCut(2), weight: 1},
		{name: "power-cut-all", do: powerCut(0), times: 2, weight: 3},
	}
	for _, h := range all {
		h.disks = true
	}
	return all
}

func hungDisk(ctx context.Context, w *world) (string, func() error, error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return "", nil, err
	}
	d := w.disk(leader)
	return leader.Name, func() error {
		if err := d.thaw(); err != nil {
			return err
		}
		return startAll([]*testcluster.Node{leader})
	}, d.freeze()
}

func slowDisk(ctx context.Context, w *world) (string, func() error, error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return "", nil, err
	}
	d := w.disk(leader)
	return leader.Name, d.fast, d.slow()
}

func fullDisk(leads bool) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		n := leader
		if !leads {
			n = others[0]
		}
		path, err := w.disk(n).fill()
		return n.Name, func() error {
			return errors.Join(os.Remove(path), startAll([]*testcluster.Node{n}))
		}, err
	}
}

// powerCut takes the power from the leader and count-1 others; 0: from all.
func powerCut(count int) func(context.Context, *world) (string, func() error, error) {
	return func(ctx context.Context, w *world) (string, func() error, error) {
		leader, others, err := w.roles(ctx)
		if err != nil {
			return "", nil, err
		}
		hit := append([]*testcluster.Node{leader}, others...)
		switch count {
		case 1:
			hit = hit[:1]
		case 2:
			hit = hit[:len(w.cluster.Nodes)/2+1]
		}
		var errs []error
		for _, n := range hit { // what the kernel wrote by itself a moment ago must not help
			errs = append(errs, tool("sync", "-f", n.Dir))
		}
		errs = append(errs, pause(ctx, 2*time.Second))
		for _, n := range hit {
			errs = append(errs, n.Pause())
		}
		for _, n := range hit {
			errs = append(errs, w.disk(n).cut(), n.Kill())
		}
		for _, n := range hit {
			errs = append(errs, w.disk(n).restore())
		}
		return names(hit), func() error { return startAll(hit) }, errors.Join(errs...)
	}
}
