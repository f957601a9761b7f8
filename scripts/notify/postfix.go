package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/mail"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The accounts that Postfix gives its rights up to. They are there on every Debian, and
// nobody else uses them.
const (
	postfixUser  = "mail"
	postfixGroup = "news"
)

// postfix is a mail server of its own: queue, configuration and mailbox lie in dir.
type postfix struct {
	program string // where the package was unpacked
	dir     string
	port    string
}

const mainCF = `compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
command_directory = {program}/usr/sbin
daemon_directory = {program}/usr/lib/postfix/sbin
shlib_directory = {program}/usr/lib/postfix
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
mail_owner = ` + postfixUser + `
setgid_group = ` + postfixGroup + `
default_privs = nobody
myhostname = localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = example.com
virtual_mailbox_maps = static:reader/
virtual_mailbox_base = {dir}/mails
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
enable_long_queue_ids = yes
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
`

const masterCF = `127.0.0.1:{port} inet n - n - - smtpd
anvil unix - - n - 1 anvil
bounce unix - - n - 0 bounce
cleanup unix n - n - 0 cleanup
defer unix - - n - 0 bounce
error unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
qmgr unix n - n 300 1 qmgr
retry unix - - n - - error
rewrite unix - - n - - trivial-rewrite
trace unix - - n - 0 bounce
virtual unix - n n - - virtual
`

// prepare writes what Debian's package would have in /etc and /var.
func (p postfix) prepare() (*server, error) {
	owner, err := user.Lookup(postfixUser)
	if err != nil {
		return nil, err
	}
	group, err := user.LookupGroup(postfixGroup)
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(owner.Uid) // of this system: a number
	gid, _ := strconv.Atoi(group.Gid)
	for _, d := range []struct {
		name     string
		uid, gid int
		mode     os.FileMode
	}{
		{"", 0, 0, 0o755}, {"conf", 0, 0, 0o755}, {"data", uid, 0, 0o700}, {"mails", uid, 0, 0o700}, {"queue", 0, 0, 0o755}, {"queue/pid", 0, 0, 0o755},
		{"queue/public", uid, gid, 0o710}, {"queue/maildrop", uid, gid, 0o730},
	} {
		if err := makeDir(filepath.Join(p.dir, d.name), d.uid, d.gid, d.mode); err != nil {
			return nil, err
		}
	}
	for name := range strings.FieldsSeq("active bounce corrupt defer deferred flush hold incoming private saved trace") {
		if err := makeDir(filepath.Join(p.dir, "queue", name), uid, 0, 0o700); err != nil {
			return nil, err
		}
	}
	fill := strings.NewReplacer("{dir}", p.dir, "{program}", p.program, "{port}", p.port, "{uid}", owner.Uid, "{gid}", owner.Gid)
	for name, text := range map[string]string{"main.cf": mainCF, "master.cf": masterCF} {
		if err := os.WriteFile(filepath.Join(p.dir, "conf", name), []byte(fill.Replace(text)), 0o644); err != nil { //nolint:gosec // Postfix reads it with other rights
			return nil, err
		}
	}
	return &server{
		args: []string{filepath.Join(p.program, "usr/lib/postfix/sbin/master"), "-c", filepath.Join(p.dir, "conf"), "-d"}, addr: "127.0.0.1:" + p.port,
		env: []string{"LD_LIBRARY_PATH=" + filepath.Join(p.program, "usr/lib/postfix")},
	}, nil
}

func makeDir(path string, uid, gid int, mode os.FileMode) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// ownSession makes the process and all that it starts one group, which is ended at once.
var ownSession = &syscall.SysProcAttr{Setsid: true}

// maildir is a mailbox of Postfix, a file for each mail.
type maildir struct {
	folder string
	known  map[string]queued // by the name of the file
}

// queued is a mail with the id that it had in the queue, which rises with the time at
// which Postfix took it: mailboxes are written in any order.
type queued struct {
	arrival
	queue string
}

func (*maildir) name() string { return "mail (Postfix)" }
func (*maildir) close()       {}

func (m *maildir) read(context.Context) (all []arrival, err error) {
	files, err := os.ReadDir(m.folder)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, f := range files {
		if _, ok := m.known[f.Name()]; ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.folder, f.Name()))
		if err != nil {
			return nil, err
		}
		q, err := parseMail(text)
		if err != nil {
			return nil, err
		}
		m.known[f.Name()] = q
	}
	var mails []queued
	for _, q := range m.known {
		mails = append(mails, q)
	}
	slices.SortFunc(mails, func(a, b queued) int { return strings.Compare(a.queue, b.queue) })
	for _, q := range mails {
		all = append(all, q.arrival)
	}
	return all, nil
}

func parseMail(text []byte) (q queued, err error) {
	message, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		return q, err
	}
	body, err := io.ReadAll(message.Body)
	if err != nil {
		return q, err
	}
	q.id = message.Header.Get("Message-ID")
	_, after, _ := strings.Cut(message.Header.Get("Received"), "SMTP id ")
	q.queue, _, _ = strings.Cut(after, " ")
	if q.queue == "" {
		return q, fmt.Errorf("a mail without an id of Postfix: %q", text)
	}
	if _, err = fmt.Sscan(string(body), &q.revision, &q.collection, &q.record); err != nil {
		err = fmt.Errorf("mail %q: %w", text, err)
	}
	return q, err
}
