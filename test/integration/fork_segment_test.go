//go:build integration

package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/test/pgtest"
)

// TestForkWithoutSegment is rule 14: a clone was promoted and died before its
// first segment was full, so that the archive has its history file only, and the
// fork's segment in the original's name. PostgreSQL takes that and goes astray;
// the plan refuses it, and what lies before the fork is reached.
func TestForkWithoutSegment(t *testing.T) {
	t.Parallel()
	majors := []pgtest.Major{15}
	if full() {
		majors = pgtest.Majors()
	}
	for _, major := range majors {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			forkWithoutSegment(t, newSite(t, major, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}}))
		})
	}
}

func forkWithoutSegment(t *testing.T, s *site) {
	s.cluster.Exec(t, "CREATE TABLE t (id serial, name text)", "INSERT INTO t (name) VALUES ('one')")
	s.backup(t, s.cluster)
	xids := map[string]string{}
	for _, name := range []string{"two", "three", "astray"} {
		xids[name] = s.cluster.SQL(t, "INSERT INTO t (name) VALUES ($1) RETURNING pg_current_xact_id()", name)
	}
	s.cluster.Archive(t)
	clone := s.restore(t, "clone", "--replace", "--target-action", "promote", "--to-xid", xids["three"])
	clone.Start(t)
	clone.WaitPromoted(t)
	clone.WaitArchived(t, "00000002.history")
	fork := forkSegment(t, clone)
	clone.SQL(t, "INSERT INTO t (name) VALUES ('lost')")
	clone.Kill(t)
	own := fork
	own.Timeline = 2
	if files := s.files(t); !slices.Contains(files, fork.String()) || slices.Contains(files, own.String()) {
		t.Fatalf("the archive has %v; want %s, and not %s", files, fork, own)
	}

	restored := s.restore(t, "before", "--to-xid", xids["two"], "--timeline", "2", "--target-action", "promote")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != "one two" {
		t.Errorf("before the fork: rows %q, want one two", got)
	}
	restored.Stop(t, pgtest.Fast)

	result := s.try(t, "restore", "plan", "--to-latest")
	_, advice, _ := strings.Cut(result.Stderr, "which isn't on the way; ")
	advice, found := strings.CutSuffix(strings.TrimSpace(advice), " ends at the fork")
	if result.Code != 4 || !found || !strings.Contains(result.Stderr, own.String()+" isn't in the repository, but "+fork.String()+" is, which PostgreSQL takes in its place") {
		t.Fatalf("the latest: exit code %d\n%s", result.Code, result.Stderr)
	}
	restored = s.restore(t, "fork", append(strings.Fields(advice), "--target-action", "promote")...)
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != "one two three" {
		t.Errorf("%s: rows %q, want one two three", advice, got)
	}
	restored.Stop(t, pgtest.Fast)

	// What the plan refuses: PostgreSQL says nothing, and has the wrong rows.
	restored = s.restore(t, "astray", "--immediate", "--timeline", "2")
	write(t, filepath.Join(restored.DataDir, pgdata.AutoConfFileName), "restore_command = '"+s.binary+" --config "+s.config+" wal fetch %f %p'\n"+
		"recovery_target_timeline = '2'\narchive_mode = off\n")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != "one two three astray" {
		t.Errorf("PostgreSQL doesn't go astray, and has rows %q: the plan needn't refuse that", got)
	}
	restored.Stop(t, pgtest.Fast)
}
