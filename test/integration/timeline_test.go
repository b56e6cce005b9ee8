//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestPromotedStandby is faults 26, 31 and 32 and rules 13 and 14: a standby
// is promoted while its primary goes on, both archive into one repository, and
// a clone of the standby is promoted once more.
func TestPromotedStandby(t *testing.T) {
	t.Parallel()
	const major = pgtest.Major(17)
	site := newSite(t, major, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	primary := site.cluster
	insert := func(c *pgtest.Cluster, name string) { c.SQL(t, "INSERT INTO t (name) VALUES ($1)", name) }
	primary.Exec(t, "CREATE TABLE t (id serial, name text)")
	insert(primary, "one")
	first := site.backup(t, primary)

	// The standby has streamed more than what is archived when the primary
	// crashes.
	standby := makeStandby(t, site, "standby", primary, "")
	insert(primary, "streamed")
	pgtest.WaitFor(t, "the standby", func() bool { return standby.SQL(t, rows) == "one streamed" })
	primary.Kill(t)
	standby.Promote(t)
	standby.WaitArchived(t, "00000002.history")
	fork := forkSegment(t, standby)
	partial := fork.String() + ".partial"
	standby.WaitArchived(t, partial)

	if files := site.files(t); !slices.Contains(files, partial) || !slices.Contains(files, "00000002.history") {
		t.Errorf("%s and 00000002.history aren't both in the list %v", partial, files)
	}
	fetched := filepath.Join(site.dir, "fetched")
	fetch := func(name string) int {
		return site.try(t, "wal", "fetch", "--postgres-data-directory", standby.DataDir, name, fetched).Code
	}
	if code := fetch(fork.String()); code != 1 {
		t.Errorf("fetch of %s, which is there as a partial segment only: exit code %d, want 1", fork, code)
	}
	if _, err := os.Lstat(fetched); err == nil {
		t.Error("a fetch that found nothing left a file")
	}
	if code := fetch(partial); code != 0 {
		t.Errorf("fetch of %s: exit code %d", partial, code)
	}

	insert(standby, "two")
	second := site.backup(t, standby)
	insert(standby, "two-more")
	standby.Archive(t)
	child := fork
	child.Timeline = 2
	if code := fetch(child.String()); code != 0 {
		t.Fatalf("fetch of %s: exit code %d", child, code)
	}
	if got := firstTimeline(t, fetched); got != 1 {
		t.Errorf("the first page of %s is of timeline %d, want its parent's", child, got)
	}

	// The old primary comes back and archives the segment of the fork under
	// its own timeline's name.
	primary.Start(t)
	insert(primary, "astray")
	astray := site.backup(t, primary)
	primary.Archive(t)
	if code := fetch(fork.String()); code != 0 {
		t.Errorf("fetch of %s, which the old primary has archived: exit code %d", fork, code)
	}
	historyTwice(t, site, standby)
	standby.Stop(t, pgtest.Fast)

	clone := site.restore(t, "clone", "--timeline", "2", "--replace", "--target-action", "promote")
	clone.Start(t)
	clone.WaitPromoted(t)
	insert(clone, "three")
	clone.Archive(t)
	clone.Stop(t, pgtest.Fast)

	for _, c := range []struct{ name, flags, want string }{
		{"latest", "", "one streamed two two-more three"},
		{"latest-of-first", "--backup " + first, "one streamed two two-more three"},
		{"second", "--timeline 2", "one streamed two two-more"},
		{"first", "--timeline 1", "one streamed astray"},
		{"first-of-first", "--timeline 1 --backup " + first, "one streamed astray"},
	} {
		restored := site.restore(t, c.name, strings.Fields(c.flags)...)
		restored.Start(t)
		restored.WaitPromoted(t)
		if got := restored.SQL(t, rows); got != c.want {
			t.Errorf("%s: rows %q, want %q", c.name, got, c.want)
		}
		restored.Stop(t, pgtest.Fast)
	}
	for _, c := range []struct{ flags, message string }{
		{"--backup " + astray, "backup " + astray + " ended at"},
		{"--backup " + second + " --timeline 1", "backup " + second + " is of timeline 2, which isn't on the way to timeline 1"},
		{"--timeline 4", "timeline 4 has no history file"},
	} {
		never := filepath.Join(site.dir, "never")
		result := site.try(t, append([]string{"restore", "run", "--target-directory", never}, strings.Fields(c.flags)...)...)
		if _, err := os.Lstat(never); result.Code != 4 || !strings.Contains(result.Stderr, c.message) || err == nil {
			t.Errorf("restore run %s: exit code %d, directory made: %v; it printed no %q:\n%s", c.flags, result.Code, err == nil, c.message, result.Stderr)
		}
	}
}

// makeStandby restores a standby that streams from a server and archives into
// the same repository once it is promoted. Settings are further lines of its
// postgresql.auto.conf.
func makeStandby(t *testing.T, s *site, name string, source *pgtest.Cluster, settings string) *pgtest.Cluster {
	t.Helper()
	standby := s.restore(t, name, "--replace")
	if err := os.Rename(filepath.Join(standby.DataDir, "recovery.signal"), filepath.Join(standby.DataDir, "standby.signal")); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(standby.DataDir, "postgresql.auto.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	conninfo := "user=postgres host=" + source.SocketDir + " port=" + source.SQL(t, "SHOW port")
	write(t, conf, string(text)+"primary_conninfo = '"+conninfo+"'\n"+settings)
	standby.Start(t)
	return standby
}

// forkSegment names the segment in which a promoted server left timeline 1.
func forkSegment(t *testing.T, promoted *pgtest.Cluster) wal.FileName {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(promoted.DataDir, "pg_wal", "00000002.history"))
	if err != nil {
		t.Fatal(err)
	}
	history, err := wal.ParseHistory(2, data)
	if err != nil || len(history.Entries) != 1 {
		t.Fatalf("parse history: %v, %v", history, err)
	}
	const size = 1 << 20
	return wal.SegmentName(1, wal.SegmentNumber(history.Entries[0].Switch, size), size)
}

// firstTimeline is the timeline in the header of a segment's first page.
func firstTimeline(t *testing.T, path string) wal.TimelineID {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	header, err := wal.ReadLongHeader(file)
	if err != nil {
		t.Fatal(err)
	}
	return header.Timeline
}

// historyTwice is fault 26: an identical history file is welcome again, one
// with other content is a conflict and changes nothing.
func historyTwice(t *testing.T, s *site, promoted *pgtest.Cluster) {
	t.Helper()
	name := "00000002.history"
	data, err := os.ReadFile(filepath.Join(promoted.DataDir, "pg_wal", name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(pgtest.MkdirNobody(t, s.dir, "history"), name)
	push := func() pgtest.Result {
		return s.try(t, "wal", "push", "--postgres-data-directory", promoted.DataDir, path)
	}
	write(t, path, string(data))
	if result := push(); result.Code != 0 {
		t.Errorf("push of the same history file: exit code %d\n%s", result.Code, result.Stderr)
	}
	write(t, path, string(data)+"# another server's\n")
	if result := push(); result.Code != 20 || !strings.Contains(result.Stderr, "another server chose timeline 2") {
		t.Errorf("push of another history file: exit code %d, want 20\n%s", result.Code, result.Stderr)
	}
	s.walship(t, "wal", "fetch", "--postgres-data-directory", promoted.DataDir, name, path)
	if got, err := os.ReadFile(path); err != nil || string(got) != string(data) {
		t.Errorf("the archived history file has changed: %q (%v)", got, err)
	}
}
