package repo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage/file"
)

// TestSweepLeftovers: what a killed write left in a cluster's folders goes after a
// day, and nothing else does.
func TestSweepLeftovers(t *testing.T) {
	dir := t.TempDir()
	store, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &Repository{Store: store}
	for _, key := range []string{infoKey, "7/wal/0000000100000000/000000010000000000000001.zst", "8/wal/0000000100000000/000000010000000000000001.zst"} {
		if _, err := store.Put(t.Context(), key, strings.NewReader("content")); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	for name, c := range map[string]struct {
		modified time.Time
		goes     bool
	}{
		"7/wal/0000000100000000/.walship-~1.tmp":              {old, true},
		"7/wal/0000000100000000/.walship-~2.tmp":              {time.Now(), false},
		"8/wal/0000000100000000/.walship-~3.tmp":              {old, false},
		"7/wal/0000000100000000/000000010000000000000001.zst": {old, false},
	} {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, ".tmp") {
			if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, c.modified, c.modified); err != nil {
			t.Fatal(err)
		}
		n, err := r.SweepLeftovers(t.Context(), 7)
		if _, gone := os.Lstat(path); err != nil || (n == 1) != c.goes || errors.Is(gone, fs.ErrNotExist) != c.goes {
			t.Errorf("%s: swept %d, %v; it is there: %v", name, n, err, gone == nil)
		}
	}
}
