//go:build integration

package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/test/pgtest"
)

// TestRestoreStart boots what it restores: to a target, where the server pauses,
// is promoted or shuts down, and to a target that the server doesn't reach.
func TestRestoreStart(t *testing.T) {
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	s.cluster.Exec(t, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
	s.backup(t, s.cluster)
	xid := s.cluster.SQL(t, "INSERT INTO t VALUES (2) RETURNING pg_current_xact_id()")
	s.cluster.Exec(t, "DROP TABLE t")
	s.cluster.Archive(t)
	for _, c := range []struct {
		name, state, stopped string
		args                 []string
	}{
		{"pause", restore.StatePaused, "recovery stopping after commit of transaction " + xid, []string{"--to-xid", xid}},
		{"promote", restore.StatePromoted, "recovery stopping after commit of transaction " + xid, []string{"--to-xid", xid, "--target-action", "promote"}},
		{"shutdown", restore.StateShutDown, "recovery stopping after commit of transaction " + xid, []string{"--to-xid", xid, "--target-action", "shutdown"}},
		{"latest", restore.StatePromoted, "", nil},
	} {
		target := filepath.Join(s.dir, c.name)
		result := s.walship(t, append([]string{"restore", "run", "--json", "--start", "--target-directory", target}, c.args...)...)
		var out struct{ Started restore.Started }
		if err := json.Unmarshal([]byte(result.Stdout), &out); err != nil {
			t.Fatal(err)
		}
		got := out.Started
		if got.State != c.state || !strings.HasPrefix(got.Stopped, c.stopped) || c.stopped == "" && got.Stopped != "" || !got.AsPromised {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.state == restore.StateShutDown {
			continue
		}
		if got.Promised == "" || got.LastEnding.IsZero() {
			t.Errorf("%s: %+v: nothing was compared", c.name, got)
		}
		psql := s.cluster.Tool(t.Context(), t, "psql", "-XAtq", "-h", got.Socket, "-U", got.User, "-c",
			"SELECT to_regclass('t') IS NOT NULL, current_setting('listen_addresses') = '', pg_is_in_recovery()")
		want := map[string]string{"pause": "t|t|t\n", "promote": "t|t|f\n", "latest": "f|t|f\n"}[c.name]
		if text := pgtest.MustRun(t, psql); text != want {
			t.Errorf("%s: the server says %q, want %q", c.name, text, want)
		}
		if err := syscall.Kill(got.PID, syscall.SIGQUIT); err != nil {
			t.Errorf("%s: stop the server: %v", c.name, err)
		}
	}
	// A server that doesn't start: its own words are shown, and it is gone.
	s.cluster.AppendConf(t, "shared_preload_libraries = 'no_such_library'")
	s.backup(t, s.cluster)
	s.cluster.Archive(t)
	result := s.try(t, "restore", "run", "--start", "--target-directory", filepath.Join(s.dir, "never"))
	if result.Code != 1 || !strings.Contains(result.Stderr, "no_such_library") || !strings.Contains(result.Stderr, "hint: the directory is restored") {
		t.Errorf("a server that can't start: exit code %d\n%s", result.Code, result.Stderr)
	}
}

// TestRestoreStandby: a restored standby follows its primary, by streaming.
func TestRestoreStandby(t *testing.T) {
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	s.cluster.Exec(t, "CREATE TABLE t (id int)")
	s.cluster.Configure(t, "primary_conninfo", "host="+s.cluster.SocketDir+" user=postgres application_name=restored")
	s.cluster.Configure(t, "synchronous_standby_names", "restored")
	s.backup(t, s.cluster)
	s.cluster.Archive(t)
	standby := s.restore(t, "standby", "--standby")
	standby.Start(t)
	pgtest.WaitFor(t, "the standby to stream", func() bool {
		return s.cluster.SQL(t, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'restored' AND state = 'streaming'") == "1"
	})
	s.cluster.Exec(t, "INSERT INTO t VALUES (1)") // waits for the standby, which is synchronous
	pgtest.WaitFor(t, "the row on the standby", func() bool { return standby.SQL(t, "SELECT count(*) FROM t") == "1" })
	if got := standby.SQL(t, "SELECT pg_is_in_recovery()::text || current_setting('archive_mode') || current_setting('recovery_target_timeline')"); got != "trueonlatest" {
		t.Errorf("the standby is %q", got)
	}
	if result := s.try(t, "restore", "run", "--standby", "--immediate", "--target-directory", filepath.Join(s.dir, "other")); result.Code != 2 {
		t.Errorf("a standby with a target: exit code %d, want 2", result.Code)
	}
	s.cluster.Configure(t, "synchronous_standby_names", "")
}
