package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestRecoveryOver(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // where a postmaster works
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	over := func(what, run string, want bool) {
		t.Helper()
		if got := RecoveryOver(dir, run); got != want {
			t.Errorf("%s: over %v, want %v", what, got, want)
		}
	}
	if run := RecoveryRun(dir); run != "" {
		t.Errorf("without a server there is the run %q", run)
	}
	pid := func(number int, started string) string {
		return fmt.Sprintf("%d\n%s\n%s\n5432\n/tmp\n", number, dir, started)
	}
	write("recovery.signal", "")
	write("postmaster.pid", pid(os.Getpid(), "1795000000"))
	run := RecoveryRun(dir)
	over("in recovery", run, false)
	remove("recovery.signal")
	over("promoted", run, true)
	write("standby.signal", "")
	over("a standby", run, false)
	write("postmaster.pid", pid(os.Getpid(), "1795000001"))
	over("started anew", run, true)
	over("the new run", RecoveryRun(dir), false)
	write("postmaster.pid", pid(1<<22+1, "1795000000")) // beyond the kernel's largest
	over("dead", RecoveryRun(dir), true)
	remove("postmaster.pid")
	over("stopped", run, true)
	write("postmaster.pid", "17")
	if run := RecoveryRun(dir); run != "" {
		t.Errorf("an unfinished file is the run %q", run)
	}
}

func TestAheadKey(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	seen := map[string]int{}
	for i, c := range []struct {
		systemID              uint64
		run, folder, settings string
	}{
		{1, "10 20", one, "x"}, {2, "10 20", one, "x"}, {1, "10 21", one, "x"}, {1, "10 20", other, "x"}, {1, "10 20", one, "y"},
	} {
		key, err := AheadKey(c.systemID, c.run, c.folder, c.settings)
		if err != nil || key == "" {
			t.Fatalf("key %q, %v", key, err)
		}
		if before, is := seen[key]; is {
			t.Errorf("cases %d and %d have the same key", before, i)
		}
		seen[key] = i
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	key, err := AheadKey(1, "10 20", link, "x")
	if i, is := seen[key]; err != nil || !is || i != 0 {
		t.Errorf("by another path the folder has another key (%v)", err)
	}
	if _, err := AheadKey(1, "10 20", filepath.Join(one, "missing"), "x"); err == nil {
		t.Error("a missing folder has a key")
	}
}
