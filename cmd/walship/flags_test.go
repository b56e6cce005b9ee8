package main

import (
	"testing"

	"github.com/urfave/cli/v2"
)

// TestAlias: both names of a flag set the same setting.
func TestAlias(t *testing.T) {
	for _, args := range [][]string{{"push", "--backup-max-rate=2MB"}, {"push", "--max-rate=2MB"}, {"push", "--max-rate", "2MB"}} {
		e := &environment{flags: map[string]string{}}
		app := &cli.App{
			Flags:  alias("backup-max-rate", "max-rate", e.settingFlags("backup.max_rate", "backup.concurrency")),
			Action: func(*cli.Context) error { return nil },
		}
		if err := app.Run(args); err != nil {
			t.Fatal(err)
		}
		if got := e.flags["backup.max_rate"]; got != "2MB" || len(e.flags) != 1 {
			t.Errorf("%q set %v", args, e.flags)
		}
	}
}
