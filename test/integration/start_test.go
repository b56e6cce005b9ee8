//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/test/pgtest"
)

// TestRestoreStart boots what it restores: to a target, where the server pauses,
// is promoted or shuts down, and to a target that the server doesn't reach.
func TestRestoreStart(t *testing.T) {
	t.Parallel()
	for _, major := range []pgtest.Major{14, 15, 18} {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			testRestoreStart(t, newSite(t, major, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}}))
		})
	}
}

func testRestoreStart(t *testing.T, s *site) {
	s.cluster.Exec(t, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
	s.backup(t, s.cluster)
	xid := s.cluster.SQL(t, "INSERT INTO t VALUES (2) RETURNING pg_current_xact_id()")
	dropped := s.transact(t, []string{"DROP TABLE t"})
	s.cluster.Archive(t)
	for _, c := range []struct {
		name, state, stopped string
		args                 []string
	}{
		{"pause", restore.StatePaused, "recovery stopping after commit of transaction " + xid, []string{"--to-xid", xid}},
		{"promote", restore.StatePromoted, "recovery stopping before commit of transaction " + dropped, []string{"--before-xid", dropped, "--target-action", "promote"}},
		{"shutdown", restore.StateShutDown, "recovery stopping after commit of transaction " + xid, []string{"--to-xid", xid, "--target-action", "shutdown"}},
		{"latest", restore.StatePromoted, "", nil},
	} {
		got := s.restoreStarted(t, c.name, c.args...)
		if got.State != c.state || !strings.HasPrefix(got.Stopped, c.stopped) || c.stopped == "" && got.Stopped != "" || !got.AsPromised || len(got.Differences) > 0 {
			t.Errorf("%s: %+v", c.name, got)
		}
		if got.Promised == "" || got.Replayed != got.Promised {
			t.Errorf("%s: %+v: no LSN was compared", c.name, got)
		}
		if c.state == restore.StateShutDown {
			continue
		}
		last := map[string]string{"pause": xid, "promote": xid, "latest": dropped}[c.name]
		if got.LastIn == nil || fmt.Sprint(got.LastIn.XID) != last || !got.LastIn.Time.Equal(got.LastEnding) {
			t.Errorf("%s: %+v: transaction %s is the last in", c.name, got, last)
		}
		want := map[string]string{"pause": "t t t", "promote": "t t f", "latest": "f t f"}[c.name]
		if text := s.askStarted(t, got, "SELECT to_regclass('public.t') IS NOT NULL, current_setting('listen_addresses') = '', pg_is_in_recovery()"); text != want {
			t.Errorf("%s: the server says %q, want %q", c.name, text, want)
		}
	}
	if s.cluster.Major != 15 {
		return
	}
	s.estimated(t)
	// A server that doesn't start: its own words are shown, and it is gone.
	s.cluster.AppendConf(t, "shared_preload_libraries = 'no_such_library'")
	s.backup(t, s.cluster)
	s.cluster.Archive(t)
	result := s.try(t, "restore", "run", "--start", "--target-directory", filepath.Join(s.dir, "never"))
	if result.Code != 1 || !strings.Contains(result.Stderr, "no_such_library") || !strings.Contains(result.Stderr, "hint: the directory is restored") {
		t.Errorf("a server that can't start: exit code %d\n%s", result.Code, result.Stderr)
	}
}

// estimated plans behind a restore on this host: that has measured how fast files
// come and WAL is replayed, and the plan itself how fast a download is.
func (s *site) estimated(t *testing.T) {
	t.Helper()
	var plan restore.Plan
	if err := json.Unmarshal([]byte(s.walship(t, "restore", "plan", "--json").Stdout), &plan); err != nil {
		t.Fatal(err)
	}
	e := plan.Estimate
	if e.Files == nil || e.Files.MeasuredBy != restore.ByRestore || e.Replay == nil || e.Replay.MeasuredBy != restore.ByRestore || e.Replay.Bytes != plan.WAL.ReplaySize ||
		e.Download == nil || e.Download.MeasuredBy != restore.ByProbe || e.Download.Bytes != plan.DownloadSize || e.Download.Sample > 8<<20 {
		t.Errorf("behind a restore the estimate is of files %+v, download %+v, replay %+v", e.Files, e.Download, e.Replay)
	}
	if text := s.walship(t, "restore", "plan", "--no-probe").Stdout; strings.Contains(text, "download, in one stream") || !strings.Contains(text, "in the restore of 20") {
		t.Errorf("without a probe the plan says\n%s", text)
	}
}

// TestRestoreStartMismatch: between the plan and the server's recovery more WAL is
// archived. The recovery goes on behind where the plan says that it ends, which is
// said, with exit code 3.
func TestRestoreStartMismatch(t *testing.T) {
	t.Parallel()
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	s.cluster.Exec(t, "CREATE TABLE t (id int)")
	s.backup(t, s.cluster)
	s.cluster.Exec(t, "INSERT INTO t VALUES (1)")
	s.cluster.Archive(t)
	s.cluster.Exec(t, "INSERT INTO t VALUES (2)")
	late, err := filepath.Glob(filepath.Join(s.dir, "repository", "*", "wal", "*", s.cluster.Archive(t)+".*"))
	if err != nil || len(late) != 1 {
		t.Fatalf("the last segment is %v, %v", late, err)
	}
	kept := filepath.Join(s.dir, "late")
	if err := os.Rename(late[0], kept); err != nil {
		t.Fatal(err)
	}
	programs := pgtest.MkdirNobody(t, s.dir, "programs")
	write(t, filepath.Join(programs, "postgres"), fmt.Sprintf("#!/bin/sh\ntest ! -e %[1]s || mv %[1]s %[2]s\nexec /usr/lib/postgresql/15/bin/postgres \"$@\"\n", kept, late[0]))
	if err := os.Chmod(filepath.Join(programs, "postgres"), 0o700); err != nil {
		t.Fatal(err)
	}
	result := s.try(t, "restore", "run", "--json", "--start", "--postgres-bin-directory", programs, "--target-directory", filepath.Join(s.dir, "more"))
	var out struct {
		Plan    restore.Plan
		Started restore.Started
	}
	if err := json.Unmarshal([]byte(result.Stdout), &out); err != nil {
		t.Fatalf("%v\n%s", err, result.Stderr)
	}
	t.Cleanup(func() { _ = syscall.Kill(out.Started.PID, syscall.SIGQUIT) })
	want := fmt.Sprintf("recovery ended at %s, the plan said %s", out.Started.Replayed, out.Plan.EndsAt)
	if result.Code != 3 || out.Started.AsPromised || !strings.Contains(result.Stderr, want) {
		t.Errorf("exit code %d, %+v\n%s; want 3 and %q", result.Code, out.Started, result.Stderr, want)
	}
	if got := s.askStarted(t, out.Started, "SELECT count(*) FROM public.t"); got != "2" {
		t.Errorf("%s rows: the server hasn't gone on", got)
	}
}

// restoreStarted restores into a new directory and starts it. The server is
// killed in the end.
func (s *site) restoreStarted(t *testing.T, name string, args ...string) restore.Started {
	t.Helper()
	result := s.walship(t, append([]string{"restore", "run", "--json", "--start", "--target-directory", filepath.Join(s.dir, name)}, args...)...)
	var out struct{ Started restore.Started }
	if err := json.Unmarshal([]byte(result.Stdout), &out); err != nil {
		t.Fatal(err)
	}
	if out.Started.PID != 0 {
		t.Cleanup(func() { _ = syscall.Kill(out.Started.PID, syscall.SIGQUIT) }) // it may have ended
	}
	return out.Started
}

// askStarted asks a started server, and returns the columns of the first row.
func (s *site) askStarted(t *testing.T, started restore.Started, query string) string {
	t.Helper()
	conn, err := postgres.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", started.Socket, started.Port, started.User))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rows, err := conn.Exec(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.Join(rows[0], []byte(" ")))
}

// TestRestoreStartTooLow: a server whose settings are too low for the WAL pauses
// before its target. That isn't taken for the target. walship raises what it
// finds in the WAL, so here something else lowers it again.
func TestRestoreStartTooLow(t *testing.T) {
	t.Parallel()
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1), pgtest.Set("max_connections", "20")}})
	s.backup(t, s.cluster)
	s.cluster.AppendConf(t, "max_connections = 30")
	s.cluster.Restart(t)
	s.cluster.Exec(t, "CREATE TABLE t (id int)")
	s.cluster.Archive(t)
	programs := pgtest.MkdirNobody(t, s.dir, "programs")
	write(t, filepath.Join(programs, "postgres"), "#!/bin/sh\nexec /usr/lib/postgresql/15/bin/postgres \"$@\" -c max_connections=20\n")
	if err := os.Chmod(filepath.Join(programs, "postgres"), 0o700); err != nil {
		t.Fatal(err)
	}
	result := s.try(t, "restore", "run", "--start", "--postgres-bin-directory", programs, "--target-directory", filepath.Join(s.dir, "low"))
	for _, want := range []string{"recovery has paused before the target", "max_connections = 20 is a lower setting", "hint: the directory is restored"} {
		if result.Code != 1 || !strings.Contains(result.Stderr, want) {
			t.Errorf("exit code %d, and %q is to be said:\n%s", result.Code, want, result.Stderr)
		}
	}
}

// TestRestoreStandby: a restored standby follows its primary, by streaming.
func TestRestoreStandby(t *testing.T) {
	t.Parallel()
	for _, major := range []pgtest.Major{14, 15, 18} {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			testRestoreStandby(t, newSite(t, major, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}}))
		})
	}
}

func testRestoreStandby(t *testing.T, s *site) {
	s.cluster.Exec(t, "CREATE TABLE t (id int)")
	s.cluster.Configure(t, "primary_conninfo", "host="+s.cluster.SocketDir+" user=postgres application_name=restored")
	s.cluster.Configure(t, "synchronous_standby_names", "restored")
	s.backup(t, s.cluster)
	s.cluster.Archive(t)
	standby := s.restoreStarted(t, "standby", "--standby")
	if standby.State != restore.StateStandby || !standby.AsPromised || standby.LastIn != nil {
		t.Errorf("the standby is %+v", standby)
	}
	pgtest.WaitFor(t, "the standby to stream", func() bool {
		return s.cluster.SQL(t, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'restored' AND state = 'streaming'") == "1"
	})
	s.cluster.Exec(t, "INSERT INTO t VALUES (1)") // waits for the standby, which is synchronous
	pgtest.WaitFor(t, "the row on the standby", func() bool { return s.askStarted(t, standby, "SELECT count(*) FROM public.t") == "1" })
	if got := s.askStarted(t, standby, "SELECT pg_is_in_recovery()::text || current_setting('archive_mode') || current_setting('recovery_target_timeline')"); got != "trueonlatest" {
		t.Errorf("the standby is %q", got)
	}
	if result := s.try(t, "restore", "run", "--standby", "--immediate", "--target-directory", filepath.Join(s.dir, "other")); result.Code != 2 {
		t.Errorf("a standby with a target: exit code %d, want 2", result.Code)
	}
	s.cluster.Configure(t, "synchronous_standby_names", "")
}
