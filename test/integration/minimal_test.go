//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestMinimalOnTheWay is rule 5: a plan says where recovery ends because
// wal_level was minimal, and there PostgreSQL ends it.
func TestMinimalOnTheWay(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	site.backup(t, c)
	c.Exec(t, "CREATE TABLE before AS SELECT 1 AS n")
	c.Stop(t, pgtest.Fast)
	c.AppendConf(t, "wal_level = minimal\nmax_wal_senders = 0\narchive_mode = off\n")
	c.Start(t)
	c.Stop(t, pgtest.Fast)
	c.AppendConf(t, "wal_level = replica\nmax_wal_senders = 10\narchive_mode = on\n")
	c.Start(t)
	c.Exec(t, "CREATE TABLE behind AS SELECT 1 AS n")
	c.Archive(t)

	result := site.try(t, "restore", "plan", "--to-latest")
	found := regexp.MustCompile(`wal_level was minimal from LSN (\S+) on`).FindStringSubmatch(result.Stderr)
	if result.Code != 4 || found == nil {
		t.Fatalf("restore plan: exit code %d, want 4 and where wal_level was minimal\n%s", result.Code, result.Stderr)
	}

	restored := site.restore(t, "restored", "--immediate")
	conf, err := os.OpenFile(filepath.Join(restored.DataDir, "postgresql.auto.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.WriteString("recovery_target = ''\n"); err != nil {
		t.Fatal(err)
	}
	if err := conf.Close(); err != nil {
		t.Fatal(err)
	}
	log, code := restored.StartToEnd(t)
	if code == 0 || !strings.Contains(log, "wal_level=minimal") || !strings.Contains(log, "WAL redo at "+found[1]+" for XLOG/PARAMETER_CHANGE") {
		t.Errorf("the server ended with %d, the plan says %q\n%s", code, found[0], log)
	}
}
