//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestIncrementalCost changes one in a hundred blocks of a cluster that has many
// small relations, too, and counts what an incremental backup reads: by walship's
// own account, and by the kernel's. PostgreSQL 17 tells by its WAL summaries what has
// changed; before, the WAL since the parent is read.
func TestIncrementalCost(t *testing.T) {
	const (
		rows, small = 60_000, 400
		segment     = 4 << 20
		most        = 0.05
	)
	for _, major := range []pgtest.Major{15, 17} {
		t.Run(major.String(), func(t *testing.T) {
			options := []pgtest.Option{pgtest.SegmentSize(segment >> 20), pgtest.Set("autovacuum", "off"), pgtest.Set("wal_keep_size", "64MB")}
			if major >= 17 {
				options = append(options, pgtest.Set("summarize_wal", "on"))
			}
			s := newSite(t, major, siteOptions{cluster: options})
			c := s.cluster
			archive := c.SQL(t, "SHOW archive_command")
			c.Configure(t, "archive_command", "true") // nobody needs this WAL
			// Two rows in a block, and space for a new version of one.
			c.Exec(t, "CREATE TABLE large (id int, n int, filler text) WITH (fillfactor = 70)", "ALTER TABLE large ALTER filler SET STORAGE PLAIN",
				fmt.Sprintf("INSERT INTO large SELECT g, 0, repeat('x', 2500) FROM generate_series(1, %d) g", rows),
				fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP EXECUTE 'CREATE TABLE small_' || i || ' AS SELECT 1 AS one'; END LOOP; END $$", small),
				"CREATE INDEX ON large (id)", "VACUUM FREEZE", "CHECKPOINT")
			c.Configure(t, "archive_command", archive)
			full := s.backup(t, c)
			c.Exec(t, fmt.Sprintf("UPDATE large SET n = n + 1 WHERE id %% 200 = 0 AND id <= %d", rows), "CHECKPOINT")

			record, read := s.countedIncremental(t)
			if record.Parent.Backup != full {
				t.Fatalf("the backup is based on %q, want %q", record.Parent.Backup, full)
			}
			if changed := c.SQL(t, "SELECT count(*) FROM large WHERE n = 1"); changed != fmt.Sprint(rows/200) {
				t.Errorf("%s rows were changed, want %d", changed, rows/200)
			}
			limit := int64(most * float64(record.DataSize))
			t.Logf("of %d MB, %d kB are stored as files, and %d kB were read in all", record.DataSize>>20, record.PlainSize>>10, read>>10)
			if record.DataSize < rows*4096 || record.PlainSize > limit {
				t.Errorf("of %d bytes, %d are stored as files, more than %d", record.DataSize, record.PlainSize, limit)
			}
			if major < 17 { // some segments, too
				limit += int64(wal.SegmentNumber(record.StartLSN, segment)-wal.SegmentNumber(record.Parent.StartLSN, segment)+1) * segment
			}
			if read < record.PlainSize/2 || read > limit {
				t.Errorf("%d bytes were read in all, more than %d", read, limit)
			}
		})
	}
}

// pushed is what the test needs of a backup's record.
type pushed struct {
	StartLSN  wal.LSN `json:"start_lsn"`
	PlainSize int64   `json:"plain_size"`
	DataSize  int64   `json:"data_size"`
	Parent    struct {
		Backup   string
		StartLSN wal.LSN `json:"backup_start_lsn"`
	}
}

// countedIncremental takes an incremental backup, and returns how many bytes the
// process has read, from wherever: a shell that has waited for it finds them in its
// own account.
func (s *site) countedIncremental(t *testing.T) (record pushed, read int64) {
	t.Helper()
	account := filepath.Join(s.dir, "account")
	cmd := s.command(t, "backup", "push", "--incremental", "--json")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append([]string{"sh", "-c", `"$@" && cat /proc/$$/io >"$0"`, account, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = shell
	if err := json.Unmarshal([]byte(pgtest.MustRun(t, cmd)), &record); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(account)
	if err != nil {
		t.Fatal(err)
	}
	if _, line, found := strings.Cut("\n"+string(text), "\nrchar:"); found {
		_, err = fmt.Sscan(line, &read)
	}
	if err != nil || read == 0 {
		t.Fatalf("the kernel doesn't count what is read (%v):\n%s", err, text)
	}
	return record, read
}
