package restore

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// TestSyncFailed is fault 9: a file whose fsync failed doesn't stay, because a
// restore that goes on would read it from memory and find it right.
func TestSyncFailed(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.WriteFile("1259", []byte("rows"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, other, err := os.Pipe() // which takes no fsync
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := (unsynced{root, "1259", pipe}).sync(); err == nil {
		t.Error("no error")
	}
	if _, err := root.Stat("1259"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there (%v)", err)
	}
	if err := root.WriteFile("1259", []byte("rows"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syncFile(root, "1259"); err != nil {
		t.Error(err)
	}
	if _, err := root.Stat("1259"); err != nil {
		t.Errorf("a file that is durable: %v", err)
	}
}
