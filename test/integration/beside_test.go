//go:build integration

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestPushBeside has people push segments by hand beside the archiver, which
// finds one of them ready later than those behind it: all pushes succeed, and
// each segment is stored once.
func TestPushBeside(t *testing.T) {
	t.Parallel()
	const most, late = 24, 3
	site := newSite(t, 15, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	names := site.backlog(t, "row", most)
	ready := filepath.Join(c.DataDir, "pg_wal", "archive_status", names[late]+".ready")
	if err := os.Rename(ready, filepath.Join(site.dir, "ready")); err != nil {
		t.Fatal(err)
	}

	var cmds []*exec.Cmd
	var said [4]strings.Builder
	for i, at := range []int{0, 0, 7, most - 1} {
		cmds = append(cmds, site.commandOn(t, c, "wal", "push", "pg_wal/"+names[at]))
		cmds[i].Stderr = &said[i]
	}
	var running sync.WaitGroup
	for _, cmd := range cmds {
		running.Go(func() { _ = cmd.Run() }) // ProcessState says how it ended
	}
	site.drain(t, append(names[:late:late], names[late+1:]...))
	running.Wait()
	for i, cmd := range cmds {
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%v: exit code %d: %s", cmd.Args[len(cmd.Args)-1], code, said[i].String())
		}
	}
	if err := os.Rename(filepath.Join(site.dir, "ready"), ready); err != nil {
		t.Fatal(err)
	}
	names = append(names, segments(t, c, "last", 1)...) // which wakes the archiver
	for _, name := range names {
		c.WaitArchived(t, name)
	}
	site.once(t, names)
	if strings.Contains(c.Log(t), "failed with exit code 20") || strings.Contains(c.Log(t), "failed with exit code 10") {
		t.Errorf("a push of the archiver failed:\n%s", c.Log(t))
	}
}

// TestFullStateFolder is fault 6: where nothing can be remembered for want of
// space, a backlog is archived all the same, and nothing is left half written.
func TestFullStateFolder(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	names := site.backlog(t, "row", 8)
	state := filepath.Join(site.dir, "state")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	pgtest.MkdirNobody(t, state)
	if err := syscall.Mount("none", state, "tmpfs", 0, "size=16k,uid=65534,gid=65534,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(state, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the state folder isn't full: %v", err)
	}
	site.drain(t, names)
	site.once(t, names)
	if strings.Contains(c.Log(t), "failed with exit code 10") {
		t.Errorf("a push failed:\n%s", c.Log(t))
	}
	err := filepath.WalkDir(state, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && path != filler {
			if info, err := entry.Info(); err != nil || info.Size() > 0 {
				t.Errorf("%s was left (%v)", path, err)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
