//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestBackupMemory takes backups of a cluster with few files and with ten times
// as many, and of one with a file that is larger than the memory it may take.
func TestBackupMemory(t *testing.T) {
	few, most := 4_000, int64(256<<20)
	if full() {
		few = 20_000
	}
	s := newSite(t, 15, siteOptions{encrypted: true, server: s3test.Start(t, s3test.VersityGW)})
	c := s.cluster
	peak := func() int64 {
		cmd := s.command(t, "backup", "push")
		pgtest.MustRun(t, cmd)
		return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	}
	large := filepath.Join(c.DataDir, "large")
	write(t, large, "")
	if err := os.Truncate(large, most+most/4); err != nil {
		t.Fatal(err)
	}
	fill := func(from, to int) {
		dir := pgtest.MkdirNobody(t, c.DataDir, fmt.Sprintf("files-%d", from))
		for i := from; i < to; i++ {
			pgtest.WriteNobody(t, filepath.Join(dir, fmt.Sprintf("a-file-of-no-use-to-anybody-%d", i)), "content")
		}
	}
	fill(0, few)
	before := peak()
	fill(few, 10*few)
	after := peak()
	t.Logf("%d MiB with %d files, %d MiB with %d", before>>20, few, after>>20, 10*few)
	// What grows are the names of the one directory that has most of the files,
	// and, up to what an upload takes, the manifest.
	const upload = 48 << 20
	allowed := before + upload + int64(9*few)*256
	if after > most || after > allowed {
		t.Errorf("a backup took %d MiB with %d files and %d MiB with %d; it may take %d MiB",
			before>>20, few, after>>20, 10*few, min(most, allowed)>>20)
	}
}
