//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestIncremental takes a full backup and four incremental ones while all
// happens that rule 25 names, and then a second full one. What the chain is put
// together to must be, byte for byte, what the full backup has; and pg_combinebackup
// must put the same together where there is one.
func TestIncremental(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			// With page checksums, changes of hint bits are in WAL too, so that
			// copies of one state are equal to the bit.
			site := newSite(t, major, siteOptions{cluster: []pgtest.Option{
				pgtest.Checksums(true), pgtest.Set("autovacuum", "off"), pgtest.Set("max_prepared_transactions", "10"),
			}})
			c := site.cluster
			c.Exec(t, schema...)
			begin(t, c)
			ids := []string{site.backup(t, c)}
			for round := range 4 {
				change(t, c, round)
				ids = append(ids, site.incremental(t, ids[len(ids)-1]))
			}
			full := site.backup(t, c)
			want := dumpAll(t, c)

			chain := site.restore(t, "chain", "--backup", ids[4], "--tablespace-map", c.Dir+"/space="+site.dir+"/space")
			whole := site.restore(t, "whole", "--backup", full, "--tablespace-map", c.Dir+"/space="+site.dir+"/space-whole")
			equalFiles(t, whole.DataDir, chain.DataDir)
			if c.HasTool("pg_combinebackup") {
				combined := site.combine(t, ids)
				equalFiles(t, combined, chain.DataDir)
			}
			chain.Start(t)
			chain.WaitPromoted(t)
			if got := dumpAll(t, chain); got != want {
				t.Errorf("the restored databases differ:\n%s", diff(t, want, got))
			}
			chain.Exec(t, "COMMIT PREPARED 'kept'")
			site.amcheck(t, chain)
		})
	}
}

// incremental takes an incremental backup, which must be based on that one; push
// is how, if it isn't the plain command.
func (s *site) incremental(t *testing.T, parent string, push ...string) string {
	t.Helper()
	var record struct {
		ID     string
		Parent struct{ Backup string }
	}
	if len(push) == 0 {
		push = []string{"backup", "push"}
	}
	result := s.walship(t, append(push, "--incremental", "--json")...)
	if err := json.Unmarshal([]byte(result.Stdout), &record); err != nil || record.Parent.Backup != parent {
		t.Fatalf("the backup is based on %q, want %q (%v)\n%s", record.Parent.Backup, parent, err, result.Stderr)
	}
	return record.ID
}

// begin makes what the rounds change.
func begin(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	space := pgtest.MkdirNobody(t, c.Dir, "space")
	c.Exec(t,
		"CREATE TABLESPACE space LOCATION '"+space+"'",
		"CREATE TABLE large (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 90)",
		"INSERT INTO large SELECT g, 0, repeat('x', 200) FROM generate_series(1, 20000) g",
		"CREATE TABLE shrinking AS SELECT g, repeat('y', 500) AS filler FROM generate_series(1, 10000) g",
		"CREATE TABLE emptied AS SELECT g FROM generate_series(1, 5000) g",
		"CREATE TABLE wandering (id int PRIMARY KEY, n int)",
		"INSERT INTO wandering SELECT g, g FROM generate_series(1, 5000) g",
		"CREATE TABLE doomed AS SELECT g FROM generate_series(1, 5000) g",
		"CREATE INDEX ON large USING gin (to_tsvector('simple', filler))",
		"CREATE INDEX ON large USING brin (n)",
		"CREATE DATABASE moving", "CREATE DATABASE dropped",
		"VACUUM", "CHECKPOINT")
	c.ExecIn(t, "moving", "CREATE TABLE kept AS SELECT g AS id, 0 AS round FROM generate_series(1, 5000) g")
}

// change does in each round something else of what rule 25 names.
func change(t *testing.T, c *pgtest.Cluster, round int) {
	t.Helper()
	c.Exec(t,
		fmt.Sprintf("UPDATE large SET n = n + 1 WHERE id %% 1000 = %d", round),
		fmt.Sprintf("INSERT INTO large SELECT g, 0, 'more' FROM generate_series(%d, %[1]d + 99) g", 100000+1000*round),
		fmt.Sprintf("CREATE TABLE new%d AS SELECT g FROM generate_series(1, 3000) g", round),
		fmt.Sprintf("CREATE UNLOGGED TABLE passing%d AS SELECT g FROM generate_series(1, 300) g", round),
		"BEGIN; CREATE TABLE undone AS SELECT g FROM generate_series(1, 3000) g; ROLLBACK")
	create := "CREATE DATABASE made%d"
	if c.Major >= 15 {
		create += " STRATEGY " + []string{"wal_log", "file_copy"}[round%2]
	}
	c.Exec(t, fmt.Sprintf(create, round))
	switch round {
	case 0:
		c.Exec(t, "DELETE FROM shrinking WHERE g > 2000", "VACUUM shrinking", "TRUNCATE emptied", "DROP TABLE doomed",
			"ALTER TABLE wandering SET TABLESPACE space",
			"BEGIN; CREATE TABLE prepared AS SELECT g FROM generate_series(1, 1000) g; PREPARE TRANSACTION 'one'", "COMMIT PREPARED 'one'",
			"ALTER DATABASE moving SET TABLESPACE space")
	case 1:
		// It grows again over what was cut off.
		c.Exec(t, "INSERT INTO shrinking SELECT g, repeat('z', 500) FROM generate_series(20001, 25000) g", "DROP DATABASE dropped",
			"UPDATE wandering SET n = 0 WHERE id < 10",
			"BEGIN; CREATE TABLE never AS SELECT g FROM generate_series(1, 1000) g; PREPARE TRANSACTION 'two'", "ROLLBACK PREPARED 'two'",
			"BEGIN; DROP TABLE new0; PREPARE TRANSACTION 'three'", "COMMIT PREPARED 'three'")
		c.ExecIn(t, "moving", "UPDATE kept SET round = 1 WHERE id % 7 = 0")
	case 2:
		c.Exec(t, "VACUUM FULL large", "REINDEX TABLE wandering", "ALTER TABLE wandering SET TABLESPACE pg_default",
			"ALTER DATABASE moving SET TABLESPACE pg_default", "ALTER TABLE passing0 SET LOGGED")
	case 3:
		c.ExecIn(t, "moving", "DELETE FROM kept WHERE id > 4990", "VACUUM kept")
		c.Exec(t, "INSERT INTO emptied SELECT g FROM generate_series(1, 100) g",
			"BEGIN; INSERT INTO wandering SELECT g, g FROM generate_series(9001, 9100) g; PREPARE TRANSACTION 'kept'")
	}
}

// dumpAll dumps the databases that have something in them.
func dumpAll(t *testing.T, c *pgtest.Cluster) string {
	t.Helper()
	return c.Dump(t, "postgres") + c.Dump(t, "moving")
}

// combine lays a chain out as PostgreSQL does, with nothing but zstd and tar,
// and has the major's own pg_combinebackup put it together.
func (s *site) combine(t *testing.T, ids []string) string {
	t.Helper()
	var dirs []string
	for _, id := range ids {
		dir := pgtest.MkdirNobody(t, s.dir, "raw-"+id)
		parts, err := filepath.Glob(filepath.Join(s.dir, "repository", "*", "parts", id, "*"))
		if err != nil || len(parts) < 3 {
			t.Fatalf("backup %s has %d objects (%v)", id, len(parts), err)
		}
		for _, part := range parts {
			script := ""
			switch base := filepath.Base(part); {
			case strings.HasSuffix(base, ".tar.zst") && base != "configuration.tar.zst":
				script = `zstd -dc "$1" | tar -x -C "$2" --exclude=tablespace_map`
			case base == "backup_manifest.zst":
				script = `zstd -dc "$1" > "$2"/backup_manifest && chown 65534:65534 "$2"/backup_manifest`
			}
			if output, err := exec.Command("sh", "-c", script, "sh", part, dir).CombinedOutput(); err != nil {
				t.Fatalf("lay out %s: %v\n%s", part, err, output)
			}
		}
		dirs = append(dirs, dir)
	}
	output := filepath.Join(s.dir, "combined")
	pgtest.MustRun(t, s.cluster.Tool(t.Context(), t, "pg_combinebackup", append([]string{"--output", output, "--no-sync"}, dirs...)...))
	pgtest.MustRun(t, s.cluster.Tool(t.Context(), t, "pg_verifybackup", "--no-parse-wal", output))
	return output
}

// equalFiles: two directories have the same files of relations, label aside.
func equalFiles(t *testing.T, want, got string) {
	t.Helper()
	a, b := relationFiles(t, want), relationFiles(t, got)
	if len(a) < 500 {
		t.Errorf("%s has %d files only", want, len(a))
	}
	for name, content := range a {
		other, there := b[name]
		switch {
		case !there:
			t.Errorf("%s isn't there", name)
		case !bytes.Equal(content, other):
			t.Errorf("%s has %d bytes, want %d, and differs in block %d", name, len(other), len(content), firstDifference(content, other)/8192)
		}
	}
	for name := range b {
		if _, there := a[name]; !there {
			t.Errorf("%s is there and shouldn't be", name)
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// relationFiles reads what is below base, global and the tablespaces.
func relationFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	read := func(top, prefix string) {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || entry.Name() == "pg_control" || strings.HasPrefix(entry.Name(), ".walship") {
				return err
			}
			data, err := os.ReadFile(path)
			name, _ := filepath.Rel(top, path)
			files[prefix+"/"+name] = data
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, top := range []string{"base", "global"} {
		read(filepath.Join(dir, top), top)
	}
	spaces, err := os.ReadDir(filepath.Join(dir, "pg_tblspc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, space := range spaces {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, "pg_tblspc", space.Name()))
		if err != nil {
			t.Fatal(err)
		}
		read(real, "pg_tblspc/"+space.Name())
	}
	return files
}
