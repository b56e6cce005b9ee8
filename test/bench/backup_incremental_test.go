//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// The rows that what an incremental backup reads is held against.
const (
	clusterFiles  = "the cluster's files"
	changedBlocks = "the blocks that were changed"
)

// fullOf says beside which table of full backups a table of incremental ones
// stands.
var fullOf = map[int]int{incrementalTime: saveTime, incrementalRead: saveRead, incrementalStored: saveStored, incrementalRestore: restoreTime}

// addFull puts the row of the full backup of the same rounds before each row of
// incremental ones.
func (r *saved) addFull() {
	for m, full := range fullOf {
		var rows []Row
		for i, row := range r.rows[m] {
			if len(row.Values) > 0 {
				rows = append(rows, Row{Name: row.Name + ", full", Values: r.rows[full][i].Values}, row)
			}
		}
		r.rows[m] = rows
	}
	r.rows[incrementalRead] = append([]Row{r.files, r.changed}, r.rows[incrementalRead]...)
}

// measureIncremental changes 1 % of the cluster's blocks, takes an incremental
// backup on top of the full one that was just taken, and restores the two.
func (b *backupBench) measureIncremental(ctx context.Context, t *testing.T, s setting, r *saved, saver saver, do saving, record func(int, float64)) {
	t.Helper()
	changed, blocks := b.source.change(t)
	before := s.place.storedBackup(t, s.prefix)
	waitQuiet(ctx, t)
	settle()
	took, peak, read := b.call(ctx, t, s, do.incremental)
	waitQuiet(ctx, t)
	if b.sampled {
		record(incrementalMemory, mebibytes(peak.most))
	} else {
		record(incrementalTime, took.took.Seconds())
		record(incrementalRead, mebibytes(read))
		record(incrementalStored, mebibytes(s.place.storedBackup(t, s.prefix)-before))
		if !saver.peer {
			r.files.Values = append(r.files.Values, mebibytes(b.source.size(t)))
			r.changed.Values = append(r.changed.Values, mebibytes(changed*blockSize))
		}
	}
	progress("%d of %d blocks were changed, and %.1f MiB read", changed, blocks, mebibytes(read))
	if took, _ := b.restore(ctx, t, s, do); !b.sampled {
		record(incrementalRestore, took.took.Seconds())
	}
}

const (
	blockSize = 8192
	// touched is how many blocks one row's update changes: the one that has
	// its old version, the one that gets the new one, and the index's.
	touched = 3
)

// change updates rows of pgbench_accounts, evenly spread over all of it, so many
// that 1 % of the cluster's blocks change; has all of that written and archived;
// and returns how many blocks changed, by their LSNs, and how many there are.
func (s *sample) change(t *testing.T) (changed, blocks int64) {
	t.Helper()
	c := s.cluster
	since, err := wal.ParseLSN(c.SQL(t, "SELECT pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	_, blocks = s.blocks(t, since)
	var rows int64
	if _, err := fmt.Sscan(c.SQL(t, "SELECT max(aid) FROM pgbench_accounts"), &rows); err != nil {
		t.Fatal(err)
	}
	step := rows / (blocks / 100 / touched)
	s.changes++ // other rows each time
	c.Exec(t, fmt.Sprintf("UPDATE pgbench_accounts SET abalance = abalance + 1 FROM generate_series(%d, %d, %d) g WHERE aid = g",
		1+s.changes*61%step, rows, step), "CHECKPOINT")
	c.Archive(t)
	changed, blocks = s.blocks(t, since)
	if part := float64(changed) / float64(blocks); part < 0.007 || part > 0.014 {
		t.Fatalf("%d of %d blocks were changed, and that isn't 1 %%", changed, blocks)
	}
	return changed, blocks
}

var mainFork = regexp.MustCompile(`/[0-9]+(\.[0-9]+)?$`)

// blocks counts the blocks of main forks that were changed since an LSN, and all.
func (s *sample) blocks(t *testing.T, since wal.LSN) (changed, all int64) {
	t.Helper()
	s.walk(t, func(path string, size int64) {
		if !mainFork.MatchString(path) {
			return
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var lsn [8]byte
		for offset := int64(0); offset+blockSize <= size; offset += blockSize {
			if _, err := file.ReadAt(lsn[:], offset); err != nil {
				t.Fatal(err)
			}
			all++
			// Two numbers of four bytes, the higher one first.
			if at := uint64(binary.NativeEndian.Uint32(lsn[:]))<<32 | uint64(binary.NativeEndian.Uint32(lsn[4:])); at >= uint64(since) {
				changed++
			}
		}
	})
	return changed, all
}

// size adds up the files of the cluster, without WAL.
func (s *sample) size(t *testing.T) (bytes int64) {
	t.Helper()
	s.walk(t, func(_ string, size int64) { bytes += size })
	return bytes
}

// walk calls visit for each file of the cluster but WAL.
func (s *sample) walk(t *testing.T, visit func(path string, size int64)) {
	t.Helper()
	for _, dir := range s.directories() {
		err := walkFiles(dir, func(path string, size int64) {
			if !strings.HasPrefix(path, filepath.Join(s.cluster.DataDir, "pg_wal")) {
				visit(path, size)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// counted has a shell say in the end what it and its children have read: the
// kernel's account of a process has that of those that it has waited for.
func counted(command, file string) string { return command + " && cat /proc/$$/io >" + file }

// readBytes reads from that account how many bytes were read, of whatever kind.
func readBytes(t *testing.T, file string) int64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "rchar:"); found {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("the kernel doesn't count what is read:\n%s", text)
	return 0
}
