//go:build integration

package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestFullDisk is fault 41, on a file system that is too small. What is known
// beforehand is refused with figures; where the disk fills in the middle, what
// is there can't start, and goes on once there is room.
func TestFullDisk(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	disk := work + "/disk"
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=40k,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	q := request(work)
	q.Directory = disk + "/data"
	run := func(size int64) error {
		p, err := MakePlan(context.Background(), Of(r), q)
		if err != nil {
			t.Fatal(err)
		}
		p.DataSize, p.WAL.Needed = size, 0
		_, err = Run(context.Background(), r, p, quiet)
		return err
	}
	const size = 50_000
	var refused *RefusedError
	if err := run(size); !errors.As(err, &refused) || !strings.Contains(err.Error(), fmt.Sprintf("has 40960 bytes free, but the restore needs %d", size)) {
		t.Errorf("more than there is room for: %v, want a refusal with figures", err)
	}
	if got := paths(t, disk); got != "." {
		t.Errorf("files were touched: %s", got)
	}
	if err := run(100); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a disk that fills: %v, want ENOSPC", err)
	}
	checkUnstartable(t, q.Directory)
	if err := syscall.Mount("none", disk, "tmpfs", syscall.MS_REMOUNT, "size=4m,mode=700"); err != nil {
		t.Fatal(err)
	}
	if err := run(size); err != nil {
		t.Errorf("with more room: %v", err)
	}
	if got := tree(t, q.Directory)["base/1/1259"]; got != strings.Repeat("page", 5000) {
		t.Errorf("base/1/1259 has %d bytes", len(got))
	}
}
