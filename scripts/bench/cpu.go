package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of times in /proc: 1/100 s on every Linux (USER_HZ is part of its interface).
const tick = time.Second / 100

// usage is what one line of /proc/PID/stat says.
type usage struct {
	pid, parent int
	own, reaped time.Duration // of the process; of its children that have ended
}

// parseStat takes apart a line of /proc/PID/stat. The name in it may hold anything, so counting begins after its last ')'.
func parseStat(line []byte) (usage, error) {
	open, end := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return usage{}, fmt.Errorf("not a line of stat: %.60q", line)
	}
	pid, err := strconv.Atoi(string(line[:open]))
	if err != nil {
		return usage{}, err
	}
	u := usage{pid: pid}
	var state string
	var skip, user, system, childUser, childSystem int64
	_, err = fmt.Sscan(string(line[end+1:]), &state, &u.parent, &skip, &skip, &skip, &skip, &skip,
		&skip, &skip, &skip, &skip, &user, &system, &childUser, &childSystem)
	u.own, u.reaped = time.Duration(user+system)*tick, time.Duration(childUser+childSystem)*tick
	return u, err
}

// treeTime is the processor time of these processes and of all that descend from them, ended ones included.
func treeTime(roots []int) time.Duration {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(roots) == 0 {
		return 0
	}
	all := map[int]usage{}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		if u, err := parseStat(line); err == nil {
			all[u.pid] = u
		}
	}
	var sum time.Duration
	for _, u := range all {
		if descends(u.pid, roots, all) {
			sum += u.own + u.reaped
		}
	}
	return sum
}

func descends(pid int, roots []int, all map[int]usage) bool {
	for range len(all) {
		if slices.Contains(roots, pid) {
			return true
		}
		u, ok := all[pid]
		if !ok {
			return false
		}
		pid = u.parent
	}
	return false
}

// cpuTime is the processor time of this program so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
