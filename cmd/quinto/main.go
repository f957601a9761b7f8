// Command quinto is a server with Kinto's API that runs as a cluster of nodes.
package main

import (
	"context"
	"os"

	"quinto/cmd/command"
)

func main() {
	os.Exit(command.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
