package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// filesystems are the magic numbers of statfs(2) that a benchmark meets.
var filesystems = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs",
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlayfs", 0xf2f52010: "f2fs",
}

func filesystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	//nolint:unconvert // the field's type differs between architectures
	if name := filesystems[int64(s.Type)&0xffffffff]; name != "" {
		return name
	}
	return fmt.Sprintf("%#x", s.Type)
}

// describeMachine says what the figures depend on: no names, no paths.
func describeMachine(dir string) string {
	return fmt.Sprintf("%d cores (%s), %s of memory, Linux %s, %s, load before the run %s",
		runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memory(), readLine("/proc/sys/kernel/osrelease"),
		filesystem(dir), strings.Join(strings.Fields(readLine("/proc/loadavg") + " ? ? ?")[:3], " "))
}

// field is the value of the first line "name : value" of a file of /proc.
func field(file, name string) string {
	text, _ := os.ReadFile(file) // without /proc the value is unknown
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// kilobytes is a field of /proc in kB, as MB (10^6 bytes); -1 when there is none.
func kilobytes(file, name string) float64 {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(field(file, name), " kB"), 64)
	if err != nil {
		return -1
	}
	return kb * 1024 / 1e6
}

func memory() string {
	return fmt.Sprintf("%.0f GiB", kilobytes("/proc/meminfo", "MemTotal")*1e6/(1<<30))
}

func readLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// describeQuinto is the version of the binary and the commit of the checkout, where there is one.
func describeQuinto(ctx context.Context, binary string) string {
	version, err := command(exec.CommandContext(ctx, binary, "version"))
	if err != nil {
		version = "quinto"
	}
	version, _, _ = strings.Cut(version, "\n")
	commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return version + ", no commit"
	}
	state := ""
	if changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(changed) > 0 {
		state = " with local changes"
	}
	return fmt.Sprintf("%s, commit %s%s", version, strings.TrimSpace(string(commit)), state)
}

// Syncs of the yardstick: as many as one round needs for a steady median.
const (
	syncTries = 300
	syncBytes = 4096
)

// measureSync appends 4 KiB and calls fdatasync, again and again, to a file in dir, and returns the median: what the
// disk makes a durable write cost at the least.
func measureSync(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "fdatasync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, syncBytes)
	took := make([]time.Duration, 0, syncTries)
	for range syncTries {
		begun := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return percentile(took, 0.5), nil
}
