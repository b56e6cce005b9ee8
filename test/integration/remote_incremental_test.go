//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestRemoteIncremental takes a chain in which the server sends what changed,
// and what walship finds itself is mixed in. What walship puts it together to is
// what pg_combinebackup makes of it, and what a full backup has.
func TestRemoteIncremental(t *testing.T) {
	t.Parallel()
	for _, major := range daily([]pgtest.Major{18}, 17) {
		t.Run(major.String(), func(t *testing.T) {
			site := newSite(t, major, siteOptions{cluster: []pgtest.Option{
				pgtest.Checksums(true), pgtest.Set("autovacuum", "off"), pgtest.Set("max_prepared_transactions", "10"), pgtest.Set("summarize_wal", "on")}})
			c := site.cluster
			c.Exec(t, append(schema, carrier)...)
			begin(t, c)
			ids := []string{backupID(t, site.walship(t, remotely(c, "--json")...).Stdout)}
			for round := range 4 {
				change(t, c, round)
				parent := ids[len(ids)-1]
				if round == 1 {
					ids = append(ids, site.incremental(t, parent))
					continue
				}
				ids = append(ids, site.incremental(t, parent, remotely(c)...))
			}
			full := site.backup(t, c)
			want := dumpAll(t, c)

			chain := site.restore(t, "chain", "--backup", ids[4], "--tablespace-map", c.Dir+"/space="+site.dir+"/space")
			whole := site.restore(t, "whole", "--backup", full, "--tablespace-map", c.Dir+"/space="+site.dir+"/space-whole")
			equalFiles(t, whole.DataDir, chain.DataDir)
			equalFiles(t, site.combine(t, ids), chain.DataDir)
			// Servers before 17.11 and 18.6 miss changes of visibility maps.
			for _, id := range []string{ids[1], ids[3], ids[4]} {
				for _, other := range []string{"vm", "fsm", "init"} {
					if found, err := filepath.Glob(filepath.Join(site.dir, "raw-"+id, "base", "*", "INCREMENTAL.*_"+other)); err != nil || len(found) > 0 {
						t.Errorf("forks that must be whole are not: %v (%v)", found, err)
					}
				}
			}
			chain.Start(t)
			chain.WaitPromoted(t)
			if got := dumpAll(t, chain); got != want {
				t.Errorf("the restored databases differ:\n%s", diff(t, want, got))
			}
			site.amcheck(t, chain)
		})
	}
}

// TestRemoteWhole: where the server can't send what changed, or it isn't known
// what the parent has, the backup is a full one and says why; a parent that was
// named is an error then. A host without an identity remembers what the server
// sent it.
func TestRemoteWhole(t *testing.T) {
	t.Parallel()
	for _, major := range []pgtest.Major{16, 18} {
		t.Run(major.String(), func(t *testing.T) {
			site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
			c := site.cluster
			c.Exec(t, append(schema, carrier)...)
			host := site.withoutIdentity(t)
			whole := func(says string) {
				t.Helper()
				result := host.walship(t, remotely(c, "--incremental")...)
				if !strings.HasPrefix(result.Stdout, "full backup") || !strings.Contains(result.Stderr, says) {
					t.Errorf("want a full backup that says %q, got\n%s%s", says, result.Stdout, result.Stderr)
				}
			}
			first := backupID(t, host.walship(t, remotely(c, "--json")...).Stdout)
			says := "PostgreSQL 16 doesn't send incremental backups"
			if major >= 17 {
				says = "summarize_wal is off"
			}
			whole(says)
			result := host.try(t, remotely(c, "--incremental", "--parent", first)...)
			if result.Code != 1 || !strings.Contains(result.Stderr, says) {
				t.Errorf("with a parent: exit code %d, %s", result.Code, result.Stderr)
			}
			if major < 17 {
				return
			}
			// The server summarizes what it still has, so that goes first.
			c.Archive(t)
			c.Exec(t, "CHECKPOINT")
			c.Configure(t, "summarize_wal", "on")
			whole("WAL summaries are required")
			parent := backupID(t, host.walship(t, remotely(c, "--json")...).Stdout)
			c.Exec(t, "DELETE FROM customers WHERE id % 3 = 0")
			last := host.incremental(t, parent, remotely(c)...)
			want := c.Dump(t, "postgres")
			restored := site.restore(t, "restored", "--backup", last)
			restored.Start(t)
			restored.WaitPromoted(t)
			if got := restored.Dump(t, "postgres"); got != want {
				t.Errorf("the restored database differs:\n%s", diff(t, want, got))
			}
			if err := os.RemoveAll(filepath.Join(site.dir, "state")); err != nil {
				t.Fatal(err)
			}
			whole("no identity opens it")
		})
	}
}
