//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestPatroni calls walship with the commands of docs/patroni.md, without
// parameters, as Patroni does with no_params: over a directory that it has made
// and left empty, and over one that it has kept.
func TestPatroni(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/patroni.md")
	if err != nil {
		t.Fatal(err)
	}
	const program, directory = "/usr/local/bin/walship --config /etc/walship/walship.toml restore run ", "/var/lib/postgresql/15/main"
	var commands []string
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(strings.TrimSpace(line), "command: "+program); found {
			commands = append(commands, rest)
		}
	}
	if len(commands) != 2 || !strings.Contains(commands[0], "--replace") || !strings.Contains(commands[1], "--standby") {
		t.Fatalf("docs/patroni.md has the commands %q", commands)
	}
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	s.cluster.Exec(t, "CREATE TABLE t AS SELECT 1 AS id")
	s.backup(t, s.cluster)
	s.cluster.Archive(t)
	s.cluster.Stop(t, pgtest.Fast)
	for i, name := range []string{"bootstrapped", "replica"} {
		target := pgtest.MkdirNobody(t, s.dir, name)
		call := func() {
			t.Helper()
			s.walship(t, append([]string{"restore", "run"}, strings.Fields(strings.Replace(commands[i], directory, target, 1))...)...)
		}
		call()
		if name == "replica" {
			write(t, filepath.Join(target, "PG_VERSION"), "14\n") // of a replica that is made again
			call()
		}
		c := pgtest.Open(t, 15, target)
		c.Start(t)
		if name == "bootstrapped" {
			c.WaitPromoted(t)
		}
		pgtest.WaitFor(t, "the row", func() bool { return c.SQL(t, "SELECT count(*) FROM t") == "1" })
		if got := c.SQL(t, "SELECT pg_is_in_recovery()::text || current_setting('archive_mode')"); got != map[string]string{"bootstrapped": "falseon", "replica": "trueon"}[name] {
			t.Errorf("%s: %s", name, got)
		}
		c.Stop(t, pgtest.Fast)
	}
}
