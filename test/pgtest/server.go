package pgtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a running postmaster, a child of the test process.
type server struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// program prepares a program of the major that needs no connection. A server
// outlives the context of the test and is stopped by its cleanup, so there is
// no context.
func (c *Cluster) program(name string, args ...string) *exec.Cmd {
	cmd := wrapped(context.Background(), c.Major, filepath.Join(c.Major.binDir(), name), args...)
	cmd.Dir = c.Dir
	cmd.Env = append(cmd.Env, "HOME="+c.Dir)
	cmd.Env = append(cmd.Env, c.env...)
	return cmd
}

// launch starts the postmaster and returns at once.
func (c *Cluster) launch(t testing.TB) {
	t.Helper()
	if c.Running() {
		t.Fatalf("start a server in %s: one runs already", c.DataDir)
	}
	output, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close() // the server has its own copy
	if c.logStart, err = output.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", c.DataDir, "-k", c.SocketDir, "-p", strconv.Itoa(c.Port), "-c", "listen_addresses=", "-c", "logging_collector=off"}
	for _, s := range c.settings {
		args = append(args, "-c", s)
	}
	cmd := c.program("postgres", args...)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a server in %s: %v", c.DataDir, err)
	}
	s := &server{cmd, make(chan struct{})}
	c.server = s
	go func() {
		_ = cmd.Wait() // its outcome is in cmd.ProcessState
		close(s.done)
	}()
}

// Start starts the server and returns when it takes connections: in recovery,
// too, once it is consistent.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	c.launch(t)
	var last error
	ready := poll(waitTimeout, func() bool {
		if c.server.ended() {
			return true
		}
		conn, err := c.tryConnect(t.Context(), "postgres")
		if err != nil {
			last = err
			return false
		}
		last = conn.Close(t.Context())
		return last == nil
	})
	switch {
	case c.server.ended():
		t.Fatalf("the server in %s ended instead of starting:\n%s", c.DataDir, c.Log(t))
	case !ready:
		t.Fatalf("the server in %s takes no connections after %v: %v\n%s", c.DataDir, waitTimeout, last, c.Log(t))
	}
}

// StartToEnd starts a server that is expected to end by itself, and returns
// what it printed and its exit code: 0 after an orderly shutdown, as
// recovery_target_action = shutdown asks for, another after a failure.
func (c *Cluster) StartToEnd(t testing.TB) (log string, code int) {
	t.Helper()
	c.launch(t)
	select {
	case <-c.server.done:
	case <-time.After(waitTimeout):
		t.Fatalf("the server in %s still runs after %v:\n%s", c.DataDir, waitTimeout, c.Log(t))
	}
	return c.Log(t), c.server.cmd.ProcessState.ExitCode()
}

// StartRecovery starts a server that is to recover, and returns true when it
// has paused at its target or takes writes, and false when it has ended instead.
func (c *Cluster) StartRecovery(t testing.TB) bool {
	t.Helper()
	c.launch(t)
	WaitFor(t, "recovery to pause or to end", func() bool {
		if c.server.ended() {
			return true
		}
		state, err := c.query(t.Context(), "postgres", "SELECT NOT pg_is_in_recovery() OR pg_get_wal_replay_pause_state() = 'paused'")
		return err == nil && state == "t"
	})
	return !c.server.ended()
}

// Running tells whether the server's process is there.
func (c *Cluster) Running() bool { return c.server != nil && !c.server.ended() }

// PID is the postmaster's process id.
func (c *Cluster) PID() int { return c.server.cmd.Process.Pid }

// Stop stops the server and returns when it has ended.
func (c *Cluster) Stop(t testing.TB, mode Mode) {
	t.Helper()
	if err := c.stop(mode); err != nil {
		t.Fatalf("%v\n%s", err, c.Log(t))
	}
}

// Restart stops the server in fast mode and starts it.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t, Fast)
	c.Start(t)
}

// Kill kills the postmaster and everything it has started, archive commands
// too, without warning (SIGKILL), and returns when all of them are gone.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	if !c.Running() {
		t.Fatalf("kill the server in %s: it doesn't run", c.DataDir)
	}
	if err := c.kill(); err != nil {
		t.Fatal(err)
	}
}

// Signal sends a signal to the processes that the server has started, directly
// or not, whose command line match accepts. It returns how many there were.
func (c *Cluster) Signal(signal syscall.Signal, match func(command string) bool) int {
	if !c.Running() {
		return 0
	}
	struck := 0
	for _, p := range descendants(c.PID()) {
		if _, alive := p.stat(); alive && match(p.command()) && syscall.Kill(p.pid, signal) == nil {
			struck++
		}
	}
	return struck
}

func (c *Cluster) stop(mode Mode) error {
	if !c.Running() {
		return nil
	}
	if err := c.server.cmd.Process.Signal(syscall.Signal(mode)); err != nil && !c.server.ended() {
		return fmt.Errorf("stop the server in %s: %w", c.DataDir, err)
	}
	select {
	case <-c.server.done:
		return nil
	case <-time.After(waitTimeout):
		return fmt.Errorf("stop the server in %s: it still runs after %v", c.DataDir, waitTimeout)
	}
}

func (c *Cluster) kill() error {
	children := descendants(c.PID())
	if err := c.server.cmd.Process.Kill(); err != nil && !c.server.ended() {
		return fmt.Errorf("kill the server in %s: %w", c.DataDir, err)
	}
	<-c.server.done
	for _, p := range children {
		p.kill()
	}
	if !poll(waitTimeout, func() bool {
		for _, p := range children {
			if _, alive := p.stat(); alive {
				return false
			}
		}
		return true
	}) {
		return fmt.Errorf("kill the server in %s: some of its processes still run", c.DataDir)
	}
	return nil
}

// cleanup stops the server at the end of the test, and shows what it printed if
// the test has failed.
func (c *Cluster) cleanup(t testing.TB) {
	if err := c.stop(Fast); err != nil {
		t.Error(err)
		if err := c.kill(); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() {
		return
	}
	log, err := os.ReadFile(c.log)
	if err != nil {
		return // it was never started
	}
	const most = 8000
	if len(log) > most {
		log = log[len(log)-most:]
	}
	t.Logf("PostgreSQL %d in %s printed:\n%s", c.Major, c.DataDir, log)
}

// Log returns what the server has printed since its latest start.
func (c *Cluster) Log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(log[c.logStart:])
}

// WaitLog waits until the server has printed text since its latest start.
func (c *Cluster) WaitLog(t testing.TB, text string) {
	t.Helper()
	if !poll(waitTimeout, func() bool { return strings.Contains(c.Log(t), text) }) {
		t.Fatalf("waited %v for the server to print %q:\n%s", waitTimeout, text, c.Log(t))
	}
}

// WaitPromoted waits until recovery has ended and the server takes writes.
func (c *Cluster) WaitPromoted(t testing.TB) {
	t.Helper()
	WaitFor(t, "the end of recovery", func() bool { return c.SQL(t, "SELECT pg_is_in_recovery()") == "f" })
}

// WaitPaused waits until recovery pauses, as it does at its target.
func (c *Cluster) WaitPaused(t testing.TB) {
	t.Helper()
	WaitFor(t, "recovery to pause", func() bool { return c.SQL(t, "SELECT pg_get_wal_replay_pause_state()") == "paused" })
}

// Promote ends recovery and returns when the server takes writes.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	if got := c.SQL(t, "SELECT pg_promote(wait_seconds => 60)"); got != "t" {
		t.Fatalf("promote the server in %s: pg_promote gave %s", c.DataDir, got)
	}
	c.WaitPromoted(t)
}

// SwitchWAL completes the current segment and returns its name. With nothing
// written since the last switch, it is the segment before.
func (c *Cluster) SwitchWAL(t testing.TB) string {
	t.Helper()
	return c.SQL(t, "SELECT pg_walfile_name(pg_switch_wal() - 1)")
}

// WaitArchived waits until the server's archive command has succeeded for a
// file of pg_wal: a segment, a history file, a backup history file.
func (c *Cluster) WaitArchived(t testing.TB, name string) {
	t.Helper()
	status := filepath.Join(c.DataDir, "pg_wal", "archive_status", name)
	archived := poll(waitTimeout, func() bool {
		// Once archived and removed or recycled, a file has neither mark.
		return exists(status+".done") || !exists(status+".ready") && !exists(filepath.Join(c.DataDir, "pg_wal", name))
	})
	if !archived {
		t.Fatalf("waited %v for %s to be archived:\n%s", waitTimeout, name, c.Log(t))
	}
}

// Archive completes the current segment, waits until it is archived, and
// returns its name.
func (c *Cluster) Archive(t testing.TB) string {
	t.Helper()
	name := c.SwitchWAL(t)
	c.WaitArchived(t, name)
	return name
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
