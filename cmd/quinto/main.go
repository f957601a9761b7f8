// Command quinto is a server with Kinto's API that runs as a cluster of nodes.
package main

import (
	"context"
	"os"

	"quinto/cmd/command"

	_ "quinto/plugins/accounts"
	_ "quinto/plugins/admin"
	_ "quinto/plugins/changes"
	_ "quinto/plugins/counters"
	_ "quinto/plugins/defaultbucket"
	_ "quinto/plugins/exec"
	_ "quinto/plugins/flush"
	_ "quinto/plugins/gatekeeper"
	_ "quinto/plugins/history"
	_ "quinto/plugins/mail"
	_ "quinto/plugins/openid"
	_ "quinto/plugins/prometheus"
	_ "quinto/plugins/queue"
	_ "quinto/plugins/statsd"
)

func main() {
	os.Exit(command.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
