package backup

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSweepStreams: what a process holds stays, and so does what is new or
// isn't a stream's.
func TestSweepStreams(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[streams]")
	old := time.Now().Add(-2 * unlockedAge)
	for _, name := range []string{"wal-killed", "wal-held", "wal-new", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "000000010000000000000001"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "wal-new" {
			if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	held, err := lockFolder(filepath.Join(dir, "wal-held"))
	if err != nil {
		t.Fatal(err)
	}
	sweep := func(want ...string) {
		t.Helper()
		if err := sweepStreams(dir); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%v are left (%v), want %v", entries, err, want)
		}
		for i, entry := range entries {
			if entry.Name() != want[i] {
				t.Errorf("%v are left, want %v", entries, want)
			}
		}
	}
	sweep("other", "wal-held", "wal-new")
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	sweep("other", "wal-new")
	if err := sweepStreams(filepath.Join(dir, "none")); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}
