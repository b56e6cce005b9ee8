//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestBackupMemory takes backups of a cluster with few files and with ten times
// as many, and of one with a file that is larger than the memory it may take.
// The names are as long as names can be, so that whatever is kept of each file
// shows.
func TestBackupMemory(t *testing.T) {
	few, most := 4_000, int64(256<<20)
	if full() {
		few = 20_000
	}
	s := newSite(t, 15, siteOptions{encrypted: true, server: s3test.Start(t, s3test.VersityGW)})
	c := s.cluster
	peak := func() int64 { return peakMemory(t, s.command(t, "backup", "push")) }
	for _, name := range []string{"large", "larger"} { // one for each worker
		large := filepath.Join(c.DataDir, name)
		write(t, large, "")
		if err := os.Truncate(large, most+most/4); err != nil {
			t.Fatal(err)
		}
	}
	dir := pgtest.MkdirNobody(t, c.DataDir, "files")
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			pgtest.WriteNobody(t, filepath.Join(dir, fmt.Sprintf("%s%0250d", "file-", i)), "content")
		}
	}
	fill(0, few)
	before := peak()
	fill(few, 10*few)
	after := peak()
	t.Logf("%d MiB with %d files, %d MiB with %d", before>>20, few, after>>20, 10*few)
	// The names of a directory are held up to a bound that few files don't
	// reach. Beside that, one measurement isn't like the other.
	const bound = 16 << 20
	if after > most || after > before+bound {
		t.Errorf("a backup took %d MiB with %d files and %d MiB with %d; it may take %d MiB",
			before>>20, few, after>>20, 10*few, min(most, before+bound)>>20)
	}
}
