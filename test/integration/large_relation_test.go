//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestLargeRelation backs a relation of more than one segment of 1 GiB up in each
// way, which is also more than a backup or a restore may take of memory. It takes
// --full for that: else the relation has a hundredth of the size.
func TestLargeRelation(t *testing.T) {
	majors, rows := []pgtest.Major{17}, 1_400
	if full() {
		majors, rows = []pgtest.Major{15, 17}, 140_000 // one in a block
	}
	for _, major := range majors {
		t.Run(major.String(), func(t *testing.T) {
			s := newLarge(t, major, rows)
			s.frugal(t, "backup", "push")
			s.restoreLarge(t, "local")
			s.changeLarge(t)
			s.frugal(t, "backup", "push", "--incremental")
			s.restoreLarge(t, "incremental")
			remote := remotely(s.cluster)
			if major >= 17 {
				s.changeLarge(t)
				s.frugal(t, append(remote, "--incremental")...)
				s.restoreLarge(t, "remote and incremental")
			}
			s.changeLarge(t)
			s.frugal(t, remote...)
			s.restoreLarge(t, "remote")
		})
	}
}

// newLarge makes a cluster with such a relation.
func newLarge(t *testing.T, major pgtest.Major, rows int) *site {
	t.Helper()
	options := []pgtest.Option{pgtest.Checksums(true), pgtest.Set("autovacuum", "off"), pgtest.Set("wal_keep_size", "256MB")}
	if major >= 17 {
		options = append(options, pgtest.Set("summarize_wal", "on"))
	}
	s := newSite(t, major, siteOptions{encrypted: true, cluster: options})
	c := s.cluster
	archive := c.SQL(t, "SHOW archive_command")
	c.Configure(t, "archive_command", "true") // nobody needs this WAL
	c.Exec(t, carrier, "CREATE TABLE large (id int, filler text)", "ALTER TABLE large ALTER filler SET STORAGE PLAIN",
		fmt.Sprintf("INSERT INTO large SELECT g, repeat(md5(g::text), 240) FROM generate_series(1, %d) g", rows),
		"CREATE INDEX ON large (id)", "VACUUM FREEZE", "CHECKPOINT")
	c.Configure(t, "archive_command", archive)
	further, err := filepath.Glob(filepath.Join(c.DataDir, "base", "*", c.SQL(t, "SELECT pg_relation_filenode('large')")+".[0-9]"))
	if err != nil || full() && len(further) != 1 {
		t.Fatalf("the relation's files behind the first are %v (%v)", further, err)
	}
	return s
}

// changeLarge changes blocks all over the relation, and lets it grow.
func (s *site) changeLarge(t *testing.T) {
	t.Helper()
	s.cluster.Exec(t, "UPDATE large SET filler = repeat(md5(filler), 240) WHERE id % 500 = 0", "CHECKPOINT")
}

// frugal calls walship, which has to succeed with no more memory than a backup
// may take.
func (s *site) frugal(t *testing.T, args ...string) {
	t.Helper()
	const most = 256 << 20
	got := peakMemory(t, s.command(t, args...))
	t.Logf("walship %s: %d MiB", strings.Join(args, " "), got>>20)
	if got > most {
		t.Errorf("walship %s took %d MiB of memory, more than %d", strings.Join(args, " "), got>>20, most>>20)
	}
}

// restoreLarge restores the latest backup, and has the relation checked.
func (s *site) restoreLarge(t *testing.T, what string) {
	t.Helper()
	const sums = "SELECT count(*), sum(id), sum(hashtext(filler)::bigint) FROM large"
	want := s.cluster.SQL(t, sums)
	target := filepath.Join(s.dir, "restored")
	s.frugal(t, "restore", "run", "--immediate", "--target-action", "promote", "--target-directory", target)
	s.verify(t, target)
	restored := pgtest.Open(t, s.cluster.Major, target, pgtest.Env(s.env...))
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, sums); got != want {
		t.Errorf("%s: the table has %s, want %s", what, got, want)
	}
	s.amcheck(t, restored)
	restored.Stop(t, pgtest.Fast)
	for _, dir := range []string{target, target + ".walship"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}
