//go:build integration

package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// summarized is what the server's own WAL summaries say of a main fork.
type summarized struct {
	limit  uint32 // blocks from here on aren't all named
	limits bool
	blocks map[uint32]bool
}

// TestChangesAgainstSummaries holds the changes that are read from WAL against
// the summaries that the server itself makes for incremental backups.
func TestChangesAgainstSummaries(t *testing.T) {
	for _, major := range []pgtest.Major{17, 18} {
		t.Run(major.String(), func(t *testing.T) {
			c := pgtest.New(t, major, pgtest.SegmentSize(1),
				pgtest.Set("summarize_wal", "on"), pgtest.Set("wal_keep_size", "2GB"),
				pgtest.Set("max_prepared_transactions", "10"))
			c.Start(t)
			s := &site{Cluster: c, segmentSize: 1 << 20}
			c.Exec(t, "CHECKPOINT") // behind what initdb did
			start := redo(t, c)
			s.work(t, "one")
			c.Exec(t, "CHECKPOINT")
			s.work(t, "two")
			c.Exec(t, "DROP TABLE one", "DROP DATABASE one_copy", "DELETE FROM two WHERE id > 3000", "VACUUM two",
				"BEGIN; CREATE TABLE undone AS SELECT generate_series(1, 1000); ROLLBACK", "CHECKPOINT")
			end := redo(t, c)
			pgtest.WaitFor(t, "summaries up to the checkpoint", func() bool {
				return c.SQL(t, "SELECT coalesce(max(end_lsn), '0/0') >= $1 FROM pg_available_wal_summaries()", end.String()) == "t"
			})
			want := summaries(t, c, start, end)
			read, summarized := s.changes(t, start, end), s.summarized(t, start, end)
			checkChanges(t, want, read)
			checkChanges(t, summaries(t, c, start, end), summarized)
			checkTouched(t, c, start, end, read, summarized)
		})
	}
}

// redo is where the last checkpoint's redo starts: there a summary ends, and the
// next one starts.
func redo(t *testing.T, c *pgtest.Cluster) wal.LSN {
	t.Helper()
	l, err := wal.ParseLSN(c.SQL(t, "SELECT redo_lsn FROM pg_control_checkpoint()"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// summaries reads the server's summaries from one LSN up to another. Relation 0
// stands for all of a database.
func summaries(t *testing.T, c *pgtest.Cluster, start, end wal.LSN) map[wal.RelFile]*summarized {
	t.Helper()
	all := map[wal.RelFile]*summarized{}
	rows := c.SQL(t, `SELECT reltablespace, reldatabase, relfilenode, relblocknumber, is_limit_block
		FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
		WHERE s.start_lsn >= $1 AND s.end_lsn <= $2 AND relforknumber = 0`, start.String(), end.String())
	for line := range strings.Lines(rows) {
		var n [4]uint32
		var limit string
		if _, err := fmt.Sscan(strings.ReplaceAll(strings.TrimSpace(line), "|", " "), &n[0], &n[1], &n[2], &n[3], &limit); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		f := wal.RelFile{Tablespace: n[0], Database: n[1], Number: n[2]}
		if all[f] == nil {
			all[f] = &summarized{blocks: map[uint32]bool{}}
		}
		switch s := all[f]; {
		case limit == "t" && (!s.limits || n[3] < s.limit):
			s.limits, s.limit = true, n[3]
		case limit == "f":
			s.blocks[n[3]] = true
		}
	}
	if len(all) < 100 {
		t.Fatalf("the summaries have %d relations only", len(all))
	}
	return all
}

// changes reads the changes of the WAL in pg_wal from one LSN up to another.
func (s *site) changes(t *testing.T, from, to wal.LSN) *wal.Changes {
	t.Helper()
	var sources []io.Reader
	for n := wal.SegmentNumber(from, s.segmentSize); n <= wal.SegmentNumber(to, s.segmentSize); n++ {
		data, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", wal.SegmentName(1, n, s.segmentSize).String()))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, bytes.NewReader(data))
	}
	reader, err := wal.NewReader(io.MultiReader(sources...))
	if err != nil {
		t.Fatal(err)
	}
	c := wal.NewChanges()
	for {
		record, err := reader.Next()
		var invalid *wal.InvalidError
		if errors.As(err, &invalid) && invalid.LSN >= to {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		if record.LSN >= to {
			return c
		}
		if record.LSN < from {
			continue
		}
		if err := c.Add(record); err != nil {
			t.Fatal(err)
		}
	}
}

// summarized reads the server's summary files themselves.
func (s *site) summarized(t *testing.T, from, to wal.LSN) *wal.Changes {
	t.Helper()
	dir := filepath.Join(s.DataDir, "pg_wal", "summaries")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, at := wal.NewChanges(), from
	for _, entry := range entries { // in the order of names, and so of LSNs
		summary, ok := wal.ParseServerSummary(entry.Name())
		if !ok || summary.Start < from || summary.End > to {
			continue
		}
		if summary.Start != at || summary.Timeline != 1 {
			t.Errorf("%s doesn't follow %s", entry.Name(), at)
		}
		at = summary.End
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddServerSummary(bytes.NewReader(data)); err != nil {
			t.Errorf("%s: %v", entry.Name(), err)
		}
		for _, at := range []int{3, 20, len(data) / 2, len(data) - 1} {
			bad := bytes.Clone(data)
			bad[at] ^= 4
			if err := wal.NewChanges().AddServerSummary(bytes.NewReader(bad)); err == nil {
				t.Errorf("%s is read although byte %d is another", entry.Name(), at)
			}
			if err := wal.NewChanges().AddServerSummary(bytes.NewReader(data[:at])); err == nil {
				t.Errorf("%s is read although it is cut at %d", entry.Name(), at)
			}
		}
	}
	if at != to {
		t.Errorf("the summaries end at %s, want %s", at, to)
	}
	return c
}

// checkChanges: the same blocks, and where the server has a limit, all from it
// on.
func checkChanges(t *testing.T, want map[wal.RelFile]*summarized, got *wal.Changes) {
	t.Helper()
	const most = 131072
	equal, limited, databases := 0, 0, 0
	for f, s := range want {
		blocks, whole := got.Blocks(nil, f, 0, most)
		if f.Number == 0 { // a database
			databases++
			if !whole {
				t.Errorf("database %d isn't whole", f.Database)
			}
			continue
		}
		if database := want[wal.RelFile{Tablespace: f.Tablespace, Database: f.Database}]; database != nil {
			continue
		}
		if whole != (s.limits && s.limit < most) {
			t.Errorf("%s is whole: %v, the server's limit is %d (%v)", f, whole, s.limit, s.limits)
		}
		if whole {
			limited++
			continue
		}
		equal++
		for _, block := range blocks {
			if !s.blocks[block] {
				t.Errorf("%s: the server doesn't know of block %d", f, block)
			}
			delete(s.blocks, block)
		}
		for block := range s.blocks {
			t.Errorf("%s: block %s is missing", f, strconv.Itoa(int(block)))
		}
	}
	if equal < 20 || limited < 20 || databases < 2 {
		t.Errorf("compared %d relations, %d with limits, %d databases: too few", equal, limited, databases)
	}
}

// checkTouched: of the relations that are there now, those that the server's
// summaries name count as touched, and no others.
func checkTouched(t *testing.T, c *pgtest.Cluster, start, end wal.LSN, all ...*wal.Changes) {
	t.Helper()
	rows := c.SQL(t, `SELECT d.oid, pg_relation_filenode(c.oid), EXISTS (
			SELECT FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) b
			WHERE s.start_lsn >= $1 AND s.end_lsn <= $2 AND b.reltablespace = 1663 AND b.reldatabase = d.oid
			AND b.relfilenode = pg_relation_filenode(c.oid))
		FROM pg_class c, pg_database d
		WHERE d.datname = current_database() AND c.relkind IN ('r', 'i', 't') AND NOT c.relisshared AND c.relpersistence = 'p'
			AND c.reltablespace = 0`, start.String(), end.String())
	counts := map[bool]int{}
	for line := range strings.Lines(rows) {
		f := wal.RelFile{Tablespace: 1663}
		var named string
		if _, err := fmt.Sscan(strings.ReplaceAll(strings.TrimSpace(line), "|", " "), &f.Database, &f.Number, &named); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want := named == "t"
		counts[want]++
		for i, changes := range all {
			if got := changes.Touches(f); got != want {
				t.Errorf("%d: %s is touched: %v, want %v", i, f, got, want)
			}
		}
	}
	if counts[true] < 20 || counts[false] < 20 {
		t.Errorf("%d relations are touched, and %d aren't: too few", counts[true], counts[false])
	}
}
