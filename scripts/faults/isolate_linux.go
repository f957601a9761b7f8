package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const isolated = "QUINTO_FAULTS_ISOLATED"

// isolate runs this program again as the first process of its own mount and process
// namespaces, so that however it ends, no mount and no node is left behind. It
// returns false in that process, and where namespaces cannot be had.
func isolate() (code int, done bool) {
	if os.Getenv(isolated) != "" || os.Getuid() != 0 {
		return 0, false
	}
	runtime.LockOSThread() // the signal of the parent's death is a matter of threads
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "faults: not isolated:", err)
		return 0, false
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), true
	}
	return 1, true
}

// deviceNumber is the device that holds a folder, as cgroups name it.
func deviceNumber(dir string) (string, error) {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), err
}
