//go:build integration

package walzstd

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestRealWAL compresses WAL of each kind of index, of large values, of single rows
// and of page images, and has the zstd tool decompress it. It is the WAL of which least is gained:
// it becomes about as small as with the tool's level 1.
func TestRealWAL(t *testing.T) {
	for _, major := range []pgtest.Major{14, 15, 18} {
		t.Run(major.String(), func(t *testing.T) {
			c := pgtest.New(t, major, pgtest.Set("wal_keep_size", "1GB"), pgtest.Set("autovacuum", "off"))
			c.Start(t)
			c.Exec(t,
				"CREATE TABLE t (id serial PRIMARY KEY, n int, words text, box box, list int[], doc jsonb)",
				"CREATE INDEX ON t (n)", "CREATE INDEX ON t USING hash (words)", "CREATE INDEX ON t USING gist (box)",
				"CREATE INDEX ON t USING gin (list)", "CREATE INDEX ON t USING brin (id)", "CREATE INDEX ON t USING spgist (words)",
				`INSERT INTO t (n, words, box, list, doc) SELECT i * 7919 % 10007, md5(i::text), box(point(i, -i), point(i % 100, 3)),
					ARRAY[i, i % 7], jsonb_build_object('i', i, 'text', repeat(md5(i::text), 1 + i % 50)) FROM generate_series(1, 20000) i`,
				"CREATE TABLE noise AS SELECT i, (SELECT string_agg(md5(random()::text || i || j), '') FROM generate_series(1, 100) j) FROM generate_series(1, 3000) i",
				`DO $$ BEGIN FOR i IN 1..10000 LOOP
					UPDATE t SET n = n + 1 WHERE id = i; IF i % 10 = 0 THEN COMMIT; END IF;
				END LOOP; END $$`,
				"CHECKPOINT", "UPDATE t SET n = n + 1 WHERE id % 50 = 0", "DELETE FROM t WHERE id % 3 = 0", "VACUUM t")
			c.Stop(t, pgtest.Fast)
			names, err := filepath.Glob(filepath.Join(c.DataDir, "pg_wal", "0*"))
			if err != nil || len(names) < 5 {
				t.Fatalf("%d segments (%v), want at least 5", len(names), err)
			}
			sizes := map[Effort]int{}
			tools := 0
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, effort := range efforts {
					frame := encode(t, NewEncoder(io.Discard, effort, 2), data)
					if got := tool(t, frame, "-d"); !bytes.Equal(got, data) {
						t.Fatalf("%s, effort %d: the zstd tool makes other %d bytes of it", name, effort, len(got))
					}
					sizes[effort] += len(frame)
				}
				tools += len(tool(t, data, "-1"))
			}
			t.Logf("%d segments: %v bytes by effort, %d by zstd -1", len(names), sizes, tools)
			if sizes[Normal] > tools*105/100 {
				t.Errorf("%v bytes by effort, %d by zstd -1", sizes, tools)
			}
		})
	}
}

// tool runs the zstd tool.
func tool(t *testing.T, input []byte, arg string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command("zstd", "-q", "-c", arg)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("zstd %s: %v: %s", arg, err, stderr.Bytes())
	}
	return out.Bytes()
}
