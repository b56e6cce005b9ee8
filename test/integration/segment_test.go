//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestSegmentSizes is fault 28: WAL segments of other sizes than the usual,
// on majors whose pg_verifybackup reads the WAL too.
func TestSegmentSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major     pgtest.Major
		mebibytes int
		target    string
	}{
		{17, 64, "lsn"},
		{18, 1, "time"},
	} {
		t.Run(fmt.Sprintf("%dMiB", c.mebibytes), func(t *testing.T) {
			t.Parallel()
			site := newSite(t, c.major, siteOptions{cluster: []pgtest.Option{
				pgtest.SegmentSize(c.mebibytes), pgtest.Set("wal_init_zero", "off")}})
			source := site.cluster
			source.Exec(t, schema...)
			site.backup(t, source)
			source.Exec(t, "UPDATE orders SET amount = amount + 1 WHERE id % 7 = 0")
			want := source.Dump(t, "postgres")
			flags := targets[c.target](t, source)
			dropOrders(t, source)
			last := source.Archive(t)

			show := site.walship(t, "wal", "show", "--json", last).Stdout
			if size := fmt.Sprintf(`"plain_size": %d`, c.mebibytes<<20); !strings.Contains(show, size) {
				t.Errorf("wal show has no %s:\n%s", size, show)
			}
			restored := site.restore(t, "restored", flags("")...)
			restored.Start(t)
			restored.WaitPaused(t)
			restored.Promote(t)
			if got := restored.Dump(t, "postgres"); got != want {
				t.Errorf("the restored database differs:\n%s", diff(t, want, got))
			}
			site.amcheck(t, restored)
		})
	}
}

// TestLargestSegment is fault 28, too: a segment of 1 GiB goes to an S3 server
// in parts and comes back, in bounded memory.
func TestLargestSegment(t *testing.T) {
	const (
		name   = "000000010000000000000001"
		size   = 1 << 30
		memory = 256 << 20
	)
	server := s3test.Start(t, s3test.VersityGW)
	site := newSite(t, 15, siteOptions{server: server, encrypted: true})
	// initdb makes the first segment whole; what stands behind its last
	// record may be anything.
	c := pgtest.New(t, 15, pgtest.SegmentSize(size>>20), pgtest.Env(site.env...))
	path := filepath.Join(c.DataDir, "pg_wal", name)
	fill(t, path, 512<<20, 128<<20)

	dest := filepath.Join(c.DataDir, "pg_wal", "RECOVERYXLOG")
	for _, args := range [][]string{{"wal", "push", path}, {"wal", "fetch", name, dest}} {
		most := peakMemory(t, site.commandOn(t, c, args...))
		t.Logf("walship %s %s: %d MiB", args[0], args[1], most>>20)
		if most == 0 || most > memory {
			t.Errorf("walship %s %s took %d MiB of memory, more than %d", args[0], args[1], most>>20, memory>>20)
		}
	}
	sameContent(t, path, dest)
}

// peakMemory runs a command, which has to succeed, and returns the most bytes
// that it had resident. The kernel's own account of an ended process starts
// with the memory of the process that started it, so the command is watched.
func peakMemory(t *testing.T, cmd *exec.Cmd) (most int64) {
	t.Helper()
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("run %v: %v\n%s", cmd.Args, err, said.String())
			}
			return most
		case <-tick.C:
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
			if err != nil {
				continue // it has ended
			}
			if _, line, found := strings.Cut(string(status), "\nVmHWM:"); found {
				var kilobytes int64
				if _, err := fmt.Sscan(line, &kilobytes); err != nil {
					t.Fatalf("read the memory of a process: %v", err)
				}
				most = max(most, kilobytes<<10)
			}
		}
	}
}

// fill overwrites a part of a file with what can't be compressed.
func fill(t *testing.T, path string, offset, length int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyN(io.NewOffsetWriter(file, offset), noise, length)
	if closeErr := file.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
}

// sameContent holds two large files against each other, a piece at a time.
func sameContent(t *testing.T, want, got string) {
	t.Helper()
	var files [2]*os.File
	var sizes [2]int64
	for i, path := range []string{want, got} {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		files[i], sizes[i] = file, info.Size()
	}
	if sizes[0] != sizes[1] {
		t.Fatalf("%s has %d bytes, want %d", got, sizes[1], sizes[0])
	}
	const piece = 1 << 20
	a, b := make([]byte, piece), make([]byte, piece)
	for offset := int64(0); offset < sizes[0]; offset += piece {
		n := min(piece, sizes[0]-offset)
		for i, buffer := range [][]byte{a[:n], b[:n]} {
			if _, err := io.ReadFull(files[i], buffer); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("%s differs from %s in the MiB at %d", got, want, offset)
		}
	}
}
