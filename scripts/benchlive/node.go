//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// node is the process that is measured.
type node struct {
	url, addr string
	cmd       *exec.Cmd
}

func start(ctx context.Context, binary, dir string, streams int) (*node, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, "quinto.ini")
	text := fmt.Sprintf("[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.userid_hmac_secret = bench\nmultiauth.policies = basicauth\n"+
		"quinto.limit_streams = %d\nquinto.limit_user_streams = %[1]d\n", streams)
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n := &node{url: "http://" + addr + "/v1", addr: addr}
	n.cmd = exec.CommandContext(ctx, binary, "start", "--ini", ini, "--data", filepath.Join(dir, "data"), "--http", addr)
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(answerTimeout); ; time.Sleep(50 * time.Millisecond) {
		if n.send("PUT", "/buckets/b", "") == nil {
			return n, nil
		}
		if time.Now().After(end) {
			n.stop()
			return nil, errors.New("the node is not ready")
		}
	}
}

func (n *node) stop() {
	_ = n.cmd.Process.Kill() // its folder goes with it
	_ = n.cmd.Wait()
}

func (n *node) send(method, path, body string) error {
	r, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", auth)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode > 299 {
		err = fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return err
}

func collection(i int) string { return "/buckets/b/collections/c" + strconv.Itoa(i) }

// rss is the memory of a process, in bytes.
func rss(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.New("no VmRSS")
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture that
// Go has.
const tick = time.Second / 100

// cpu is the time that a process has computed for, in user space and in the kernel.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields in stat", len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}
