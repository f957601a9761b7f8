package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// secretBytes is the length of a made secret, as `kinto init` makes it.
const secretBytes = 32

// WriteDefault writes the commented INI of a first start to path, which only the
// owner may read: basic auth, random secrets, the data in the file's own folder,
// which is made if absent. It never replaces a file: the error then wraps
// fs.ErrExist. A crash leaves the whole file or none.
func WriteDefault(path string) error {
	return writeNew(path, strings.NewReplacer("{userid_secret}", newSecret()).Replace(defaultINI))
}

// writeNew writes text to a file that must not exist, whole or not at all.
func writeNew(path, text string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write %s: %w", path, fs.ErrExist)
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(folder, ".ini-*") // CreateTemp's mode is 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(text)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, fails if the name is taken by now.
	return os.Link(temp.Name(), path)
}

func newSecret() string {
	secret := make([]byte, secretBytes)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(secret)
}

const defaultINI = `# Settings of a quinto server, in the form and with the names of Kinto's.
# All of them: docs/settings.md. The environment wins over this file (KINTO_READONLY=true,
# QUINTO_DATA_DIR=/var/lib/quinto), a flag over both.
# Keep this file: the secrets below decide the ids of users.

[server:main]
host = 127.0.0.1
# 8888, or what --port says.
port = %(http_port)s


[app:main]
use = egg:kinto

# Where everything is kept. %(here)s is the folder of this file.
quinto.data_dir = %(here)s

# Features
#
# kinto.readonly = false
# kinto.batch_max_requests = 25
# kinto.paginate_by =
# kinto.storage_max_fetch_size = 10000

# Storage: durable and replicated unless said otherwise.
#
# kinto.storage_backend = kinto.core.storage.memory

# Authentication
#
# Basic auth takes any name and password: together they make the user's id. Whoever
# uses the same pair again is the same user.
multiauth.policies = basicauth
multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy
kinto.userid_hmac_secret = {userid_secret}

# Permissions
#
# Who may create buckets. system.Everyone includes those without credentials.
kinto.bucket_create_principals = system.Authenticated

# Notifications: webhooks, signed as Standard Webhooks.
#
# kinto.event_listeners = hook
# kinto.event_listeners.hook.use = quinto.webhook
# kinto.event_listeners.hook.url = https://example.com/hook
# kinto.event_listeners.hook.secret = whsec_…
# kinto.event_listeners.hook.actions = create update delete
# kinto.event_listeners.hook.resources = record

# Behind a proxy: how the server names itself in URLs.
#
# kinto.http_scheme = https
# kinto.http_host = kinto.example.com

# What the service says about itself.
#
# kinto.project_name = kinto
# kinto.error_info_link = https://github.com/Kinto/kinto/issues/
# kinto.retry_after_seconds = 3
`
