//go:build integration

package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestServerMade puts together a chain that the server itself made from its WAL
// summaries: the result must be what pg_combinebackup makes of it, and pass
// pg_verifybackup.
func TestServerMade(t *testing.T) {
	for _, major := range []pgtest.Major{17, 18} {
		t.Run(major.String(), func(t *testing.T) {
			c := pgtest.New(t, major, pgtest.SegmentSize(1), pgtest.Set("summarize_wal", "on"), pgtest.Set("autovacuum", "off"))
			c.Start(t)
			c.Exec(t, "CREATE TABLE t AS SELECT g, repeat('x', 300) AS filler FROM generate_series(1, 5000) g", "CREATE TABLE cut AS TABLE t", "VACUUM")
			dirs := []string{basebackup(t, c, "")}
			for n := range 3 {
				c.Exec(t, fmt.Sprintf("UPDATE t SET filler = 'y' WHERE g %% 500 = %d", n), fmt.Sprintf("CREATE TABLE t%d AS SELECT * FROM t LIMIT 1000", n),
					fmt.Sprintf("DELETE FROM cut WHERE g > %d", 4000-1000*n), "VACUUM cut", "CHECKPOINT")
				dirs = append(dirs, basebackup(t, c, dirs[n]))
			}
			combined := filepath.Join(c.Dir, "combined")
			pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_combinebackup", append([]string{"--output", combined, "--no-sync"}, dirs...)...))

			r := makeRepository()
			var parent *repo.Backup
			for n, dir := range dirs {
				parent = packBackup(t, r, dir, fmt.Sprintf("20261120T0%d0000Z", n+1), parent)
			}
			q := Request{Target: Target{Kind: TargetImmediate}, Directory: filepath.Join(c.Dir, "restored"), Backup: parent.ID, RestoreCommand: "false"}
			p, err := MakePlan(t.Context(), Of(r), q)
			if err != nil {
				t.Fatal(err)
			}
			p.Problems = nil // there is no WAL
			if _, err := Run(t.Context(), r, p, Options{Concurrency: 2, Log: discard}); err != nil {
				t.Fatal(err)
			}
			giveAway(t, q.Directory)
			pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", q.Directory))
			equalTrees(t, combined, q.Directory)
		})
	}
}

// giveAway gives a directory to the servers' user.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 65534, 65534))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// basebackup takes a backup with pg_basebackup, incrementally if a parent is
// named.
func basebackup(t *testing.T, c *pgtest.Cluster, parent string) string {
	t.Helper()
	dir := filepath.Join(c.Dir, "base-"+fmt.Sprint(time.Now().UnixNano()))
	args := []string{"--pgdata", dir, "--checkpoint", "fast", "--no-sync", "--wal-method", "none"}
	if parent != "" {
		args = append(args, "--incremental", filepath.Join(parent, "backup_manifest"))
	}
	pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_basebackup", args...))
	return dir
}

// packBackup puts a directory that pg_basebackup made into a repository.
func packBackup(t *testing.T, r *repo.Repository, dir, id string, parent *repo.Backup) *repo.Backup {
	t.Helper()
	var entries, last []tarEntry
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, path)
		if err != nil || relErr != nil || name == "." || name == pgdata.BackupManifestFileName {
			return err
		}
		if e.IsDir() {
			entries = append(entries, tarEntry{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o700}, nil})
			return nil
		}
		data, err := os.ReadFile(path)
		if name == pgdata.ControlFileName || name == pgdata.BackupLabelFileName {
			last = append(last, file(name, string(data)))
		} else {
			entries = append(entries, file(name, string(data)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, pgdata.BackupManifestFileName))
	if err != nil {
		t.Fatal(err)
	}
	b := describe(t, last, manifest)
	b.ID = id
	if parent != nil {
		b.Parent = parent.AsParent()
	}
	for i, part := range [][]tarEntry{entries, last} {
		b.Parts = append(b.Parts, seal(t, r, repo.PartKey(b.SystemID, id, i+1), repo.PartHeader(b.SystemID, id, i+1), makeTar(t, part)))
	}
	b.Manifest = seal(t, r, repo.ManifestKey(b.SystemID, id), repo.ManifestHeader(b.SystemID, id), manifest)
	if err := r.CommitBackup(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// describe makes the record of a backup from its label, pg_control and
// manifest.
func describe(t *testing.T, last []tarEntry, manifest []byte) *repo.Backup {
	t.Helper()
	b := &repo.Backup{Timeline: 1, ManifestChecksums: "CRC32C", StopTime: time.Now()}
	for _, e := range last {
		if e.Name == pgdata.BackupLabelFileName {
			label, err := pgdata.ParseBackupLabel(e.content)
			if err != nil {
				t.Fatal(err)
			}
			b.StartLSN, b.Checkpoint = label.Start, label.Checkpoint
			continue
		}
		control, err := pgdata.ParseControlFile(e.content)
		if err != nil {
			t.Fatal(err)
		}
		b.SystemID, b.SegmentSize, b.ServerVersion = control.SystemID, control.WALSegmentSize, control.Major*10000
		b.DataChecksums = control.DataChecksumVersion != 0
	}
	ranges, err := eachFile(bytes.NewReader(manifest), b.SystemID, func(pgdata.ManifestFile) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	b.StopLSN = wal.LSN(ranges[0].End)
	return b
}

// equalTrees compares files below base and global, and the label.
func equalTrees(t *testing.T, want, got string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(want, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(want, path)
		if err != nil || e.IsDir() || name == "backup_manifest" || strings.HasPrefix(name, "postgresql.auto") {
			return err
		}
		files++
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes, want %d (%v), or differs", name, len(b), len(a), err)
		}
		return nil
	})
	if err != nil || files < 500 {
		t.Errorf("%d files were compared (%v)", files, err)
	}
}
