// Command walship archives PostgreSQL's WAL, takes base backups, and restores
// a cluster to an exact moment.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args, stdio{os.Stdin, os.Stdout, os.Stderr, os.LookupEnv, os.Environ}))
}
