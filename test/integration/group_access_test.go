//go:build integration

package integration

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestGroupAccess: of a cluster that its group may read (initdb
// --allow-group-access) the group can read the restored one too, and nobody gets
// more than that. The server starts in it.
func TestGroupAccess(t *testing.T) {
	t.Parallel()
	const major = pgtest.Major(17)
	site := newSite(t, major, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.InitArgs("--allow-group-access")}})
	c := site.cluster
	old := pgtest.MkdirNobody(t, site.dir, "space")
	pgtest.WriteNobody(t, filepath.Join(c.DataDir, "secret.key"), "secret")
	c.Exec(t, append(schema, "CREATE TABLESPACE space LOCATION '"+old+"'",
		"CREATE TABLE moved TABLESPACE space AS SELECT generate_series(1, 1000) AS id")...)
	site.backup(t, c)
	c.Exec(t, "INSERT INTO moved VALUES (0)")
	site.walship(t, "backup", "push", "--incremental")
	remote := backupID(t, site.walship(t, "backup", "push", "--remote", "--json").Stdout)
	want := c.Dump(t, "postgres")
	c.Archive(t)

	chain := filepath.Join(site.dir, "space of chain")
	restored := site.restore(t, "chain", "--tablespace-map", old+"="+chain, "--waldir", filepath.Join(site.dir, "wal"))
	checkModes(t, c.DataDir, restored.DataDir)
	checkModes(t, old, chain)
	checkModes(t, filepath.Join(c.DataDir, "pg_wal"), filepath.Join(site.dir, "wal"))

	exported := filepath.Join(site.dir, "exported")
	site.walship(t, "backup", "export", "--to-dir", exported, "--tablespace-map", old+"="+filepath.Join(site.dir, "space of export"), remote)
	checkModes(t, c.DataDir, exported)
	readAsGroup(t, site.dir, filepath.Join(exported, "PG_VERSION"), true)
	readAsGroup(t, site.dir, filepath.Join(exported, "secret.key"), false)

	c.Stop(t, pgtest.Fast)
	copied := pgtest.Open(t, major, exported)
	copied.Start(t)
	if got := copied.Dump(t, "postgres"); got != want {
		t.Errorf("the exported database differs:\n%s", diff(t, want, got))
	}
	if got := copied.SQL(t, "SHOW data_directory_mode"); got != "0750" {
		t.Errorf("the server takes the mode of its data directory for %s", got)
	}
}

// checkModes holds the modes in a copy against those of the original, and what
// only one of them has against PostgreSQL's own.
func checkModes(t *testing.T, original, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type() == fs.ModeSymlink {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o640)
		if entry.IsDir() {
			want = fs.ModeDir | 0o750
		}
		there, err := os.Stat(filepath.Join(original, strings.TrimPrefix(name, dir)))
		if err == nil {
			want = there.Mode()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// readAsGroup reads a file below dir as another user of the files' group.
func readAsGroup(t *testing.T, dir, name string, may bool) {
	t.Helper()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "cat", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: info.Sys().(*syscall.Stat_t).Gid}}
	if out, err := cmd.CombinedOutput(); (err == nil) != may {
		t.Errorf("the group reads %s: %v, %s", name, err, out)
	}
}
