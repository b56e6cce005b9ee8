//go:build integration

package archive

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// The disk fills up while a segment is written to it: what was fetched ahead
// goes, and fetching ahead with it. Where little is free, nothing is fetched
// ahead at all. (fault 6)
func TestPrefetchFullDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		size string
		full bool // while a segment is fetched ahead
	}{
		{"small", "3m", false},
		{"full", "12m", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecovery(t, 8)
			if err := syscall.Mount("none", r.dir, "tmpfs", 0, "mode=700,size="+c.size); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				r.over.Store(true)
				r.running.Wait()
				if err := syscall.Unmount(r.dir, 0); err != nil {
					t.Error(err)
				}
			})
			filler := filepath.Join(r.dir, "filler")
			var filled atomic.Bool
			r.storage.fault(func(_ context.Context, name string) error {
				if c.full && name == numbered(1, 4) && !filled.Swap(true) {
					// It ends with the disk, as it should.
					_ = os.WriteFile(filler, make([]byte, 12<<20), 0o600)
				}
				return nil
			})
			for i := range 3 {
				r.gets(t, numbered(1, i+1), byte('a'+i))
			}
			if c.full {
				until(t, "a full disk", func() bool { return strings.Contains(r.log.String(), "the disk is full") })
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				until(t, "what was fetched ahead to go", func() bool {
					var disk syscall.Statfs_t
					if err := syscall.Statfs(r.dir, &disk); err != nil {
						t.Fatal(err)
					}
					return disk.Bavail*uint64(disk.Bsize) >= 11<<20 // all but the third segment
				})
			}
			for i := 3; i < 8; i++ {
				r.gets(t, numbered(1, i+1), byte('a'+i))
				// Once by the process that fetches ahead, and where that is only just
				// getting going again, once by the call.
				if got := r.storage.count(numbered(1, i+1)); got > 2 {
					t.Errorf("%s was read %d times", numbered(1, i+1), got)
				}
			}
			if got := r.storage.count(numbered(1, 9)); got > 0 {
				t.Errorf("the segment behind the last was asked for %d times", got)
			}
			if r.started.Load() != 1 {
				t.Errorf("%d processes were started", r.started.Load())
			}
		})
	}
}
