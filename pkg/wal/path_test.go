//go:build integration

package wal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestPathGoesBack recovers a cluster along timeline 2 to a moment before that
// began: the history of timeline 3 then has switch points that go back. The
// segments that PostgreSQL restores along it are those that History names
// (rule 14, fault 31).
func TestPathGoesBack(t *testing.T) {
	dir := pgtest.WorkDir(t)
	archive := pgtest.MkdirNobody(t, dir, "archive")
	first := pgtest.New(t, 15, pgtest.SegmentSize(1),
		pgtest.Set("archive_mode", "on"),
		pgtest.Set("archive_command", "cp %p "+archive+"/%f"),
		pgtest.Set("restore_command", "cp "+archive+"/%f %p"))
	first.Start(t)
	first.Stop(t, pgtest.Fast)
	copyOf := func(name string, settings ...pgtest.Option) *pgtest.Cluster {
		data := filepath.Join(dir, name)
		pgtest.MustRun(t, pgtest.Command(t.Context(), t, 15, "cp", "-a", first.DataDir, data))
		c := pgtest.Open(t, 15, data, settings...)
		pgtest.WriteNobody(t, filepath.Join(data, "recovery.signal"), "")
		return c
	}
	second := copyOf("second", pgtest.Set("recovery_target_name", "early"), pgtest.Set("recovery_target_action", "promote"))
	third := copyOf("third", pgtest.Set("recovery_target_timeline", "3"))

	first.Start(t)
	first.Exec(t, "CREATE TABLE a AS SELECT generate_series(1, 30000)", "SELECT pg_create_restore_point('early')",
		"CREATE TABLE b AS SELECT generate_series(1, 60000)", "SELECT pg_switch_wal()")
	first.Stop(t, pgtest.Fast)
	pgtest.WriteNobody(t, filepath.Join(first.DataDir, "recovery.signal"), "")
	for _, c := range []*pgtest.Cluster{first, second} { // timelines 2 and 3
		c.Start(t)
		waitPromoted(t, c)
		c.Exec(t, "CREATE TABLE c AS SELECT generate_series(1, 60000)", "SELECT pg_switch_wal()")
		c.Stop(t, pgtest.Fast)
	}
	third.Start(t)
	waitPromoted(t, third)
	log := third.Log(t)
	third.Stop(t, pgtest.Fast)

	data, err := os.ReadFile(filepath.Join(archive, "00000003.history"))
	if err != nil {
		t.Fatal(err)
	}
	history, err := wal.ParseHistory(3, data)
	if err != nil {
		t.Fatal(err)
	}
	if e := history.Entries; len(e) != 2 || e[1].Switch >= e[0].Switch {
		t.Fatalf("the history doesn't go back: %q", data)
	}
	var restored []wal.FileName
	for _, m := range regexp.MustCompile(`restored log file "([0-9A-F]{24})" from archive`).FindAllStringSubmatch(log, -1) {
		name, err := wal.ParseFileName(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(restored, name) {
			restored = append(restored, name)
		}
	}
	if len(restored) < 4 {
		t.Fatalf("only %v were restored", restored)
	}
	seen := map[wal.TimelineID]bool{}
	for _, name := range restored {
		segno := name.SegmentNumber(wal.MinSegmentSize)
		if want := history.SegmentTimeline(segno, wal.MinSegmentSize); name.Timeline != want {
			t.Errorf("PostgreSQL restored %s, the path takes it from timeline %d", name, want)
		}
		seen[name.Timeline] = true
	}
	if !seen[1] || seen[2] || !seen[3] {
		t.Errorf("segments of timelines %v were restored", seen)
	}
}

func waitPromoted(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for c.SQL(t, "SELECT pg_is_in_recovery()") != "f" {
		if time.Now().After(deadline) {
			t.Fatalf("the server isn't promoted:\n%s", c.Log(t))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
