package main

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quinto/cmd/command"
	"quinto/internal/config"
	"quinto/plugins"
)

var iniBlock = regexp.MustCompile("(?ms)^```ini\n(.*?)^```$")

// Each INI block of docs/plugins.md starts a node as it is written, with a secret in
// the place of …, and names no setting that has no effect.
func TestSettingsOfThePluginsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := iniBlock.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d blocks", len(blocks))
	}
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	elsewhere := strings.NewReplacer("whsec_…", "whsec_"+key, "…", key,
		"/usr/local/bin/index", "/bin/true", "example.shout", "quinto.exec", ".path = /var/log/shout", ".command = /bin/true") // what the reader has, and this machine has not
	known := plugins.Registered()
	for _, b := range blocks {
		text := elsewhere.Replace(b[1])
		if strings.Contains(text, "= example.") {
			continue // of the page's own modules: TestABinaryWithOnesOwnPlugin starts a binary that has them
		}
		name, _, _ := strings.Cut(strings.TrimSpace(b[1]), "\n")
		t.Run(name, func(t *testing.T) {
			ini := filepath.Join(t.TempDir(), "quinto.ini")
			head := "[server:main]\nhost = 127.0.0.1\n[app:main]\nkinto.userid_hmac_secret = x\nkinto.multiauth.policies = basicauth\nkinto.storage_backend = kinto.core.storage.memory\n"
			if err := os.WriteFile(ini, []byte(head+text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(config.Options{Path: ini, Flags: map[string]string{config.PortKey: "0"}, Policies: known.Policies(), Plugins: known.Plugins(), Effective: known.SettingPatterns()})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Unknown)+len(c.NoEffect) > 0 {
				t.Errorf("unknown %v, without effect %v", c.Unknown, c.NoEffect)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n, err := command.OpenNode(ctx, command.NodeOptions{Config: c})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if err := n.WaitReady(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
