// Command walship archives PostgreSQL's WAL, takes base backups, and restores
// a cluster to an exact moment.
package main

import (
	"context"
	"os"

	_ "github.com/walship/walship/cmd/walship/early" // answers some calls before main begins
)

func main() {
	os.Exit(run(context.Background(), os.Args, stdio{os.Stdin, os.Stdout, os.Stderr, os.LookupEnv, os.Environ}))
}
