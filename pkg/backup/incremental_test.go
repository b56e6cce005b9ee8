package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// TestDecide is rule 25, as far as the file and the parent decide. What WAL
// decides is in pkg/wal.
func TestDecide(t *testing.T) {
	changes := wal.NewChanges()
	b := &base{changes: changes, files: map[relationFile]struct{}{}}
	for _, name := range []string{"base/5/16384", "base/5/16384.2", "base/5/16384_fsm", "base/5/16384_vm", "base/5/16384_init", "global/1262",
		"pg_tblspc/16400/PG_15_202209061/5/16390", "base/5/16384.32767", "base/5/t3_16384", "pg_xact/0000"} {
		if file, ok := followed(name); ok {
			b.files[file] = struct{}{}
		}
	}
	for _, test := range []struct {
		name   string
		size   int64
		blocks int64 // of the file; -1: it is stored whole
	}{
		{"base/5/16384", 3 * 8192, 3},
		{"base/5/16384", 131072 * 8192, 131072},
		{"base/5/16384.2", 8192, 1},
		{"global/1262", 8192, 1},
		{"pg_tblspc/16400/PG_15_202209061/5/16390", 8192, 1},
		{"base/5/16384", 0, -1},
		{"base/5/16384", 8191, -1},
		{"base/5/16384", 131073 * 8192, -1},
		{"base/5/16384.1", 8192, -1},     // the parent doesn't have it
		{"base/6/16384", 8192, -1},       // nor this
		{"base/5/16384.32767", 8192, -1}, // where block numbers end
		{"base/5/16384_fsm", 3 * 8192, 3},
		{"base/5/16384_vm", 2 * 8192, 2},
		{"base/5/16384_vm", 0, -1},
		{"base/5/16385_vm", 8192, -1}, // the parent doesn't have it
		{"base/5/16384_init", 8192, -1},
		{"base/5/t3_16384", 8192, -1},
		{"pg_xact/0000", 8192, -1},
		{"PG_VERSION", 3, -1},
	} {
		got := b.decide(test.name, test.size)
		switch {
		case got == nil && test.blocks >= 0:
			t.Errorf("%s of %d bytes is stored whole", test.name, test.size)
		case got != nil && (int64(got.Length) != test.blocks || len(got.Blocks) != 0):
			t.Errorf("%s of %d bytes is stored as %+v, want length %d", test.name, test.size, got, test.blocks)
		}
	}
}

// summarized makes changes by a WAL summary: of relation 16384 these blocks, and
// relation 16385 cut to one block.
func summarized(t *testing.T, blocks []uint16) *wal.Changes {
	t.Helper()
	le := binary.LittleEndian
	entry := func(relation, limit uint32, blocks []uint16) []byte {
		var data []byte
		for _, n := range []uint32{1663, 5, relation, 0, limit, 1} {
			data = le.AppendUint32(data, n)
		}
		data = le.AppendUint16(data, uint16(len(blocks)))
		for _, n := range blocks {
			data = le.AppendUint16(data, n)
		}
		return data
	}
	data := le.AppendUint32(nil, 0x652b137b)
	data = append(data, entry(16384, 1<<32-1, blocks)...)
	data = append(data, entry(16385, 1, []uint16{0})...)
	data = append(data, make([]byte, 24)...)
	data = le.AppendUint32(data, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	changes := wal.NewChanges()
	if err := changes.AddServerSummary(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return changes
}

// TestDecideBlocks: the changed blocks that the file has are stored, and all of
// it where they are nearly all or aren't known.
func TestDecideBlocks(t *testing.T) {
	b := &base{changes: summarized(t, []uint16{7, 3, 9, 12, 20}), files: map[relationFile]struct{}{}}
	for _, name := range []string{"base/5/16384", "base/5/16384_vm", "base/5/16384_fsm", "base/5/16385", "base/5/16386_vm", "base/5/16386_fsm"} {
		file, _ := followed(name)
		b.files[file] = struct{}{}
	}
	for _, fork := range []string{"_vm", "_fsm"} {
		if got := b.decide("base/5/16384"+fork, 8192); got != nil {
			t.Errorf("the %s of a relation that was touched: %+v", fork, got)
		}
		if got := b.decide("base/5/16386"+fork, 8192); got == nil || len(got.Blocks) > 0 || got.Length != 1 {
			t.Errorf("the %s of one that wasn't: %+v", fork, got)
		}
	}
	for size, want := range map[int64][]uint32{30: {3, 7, 9, 12, 20}, 20: {3, 7, 9, 12}, 9: {3, 7}, 3: {}} {
		if got := b.decide("base/5/16384", size*8192); got == nil || !slices.Equal(got.Blocks, want) || int64(got.Length) != size {
			t.Errorf("of %d blocks: %+v, want %v", size, got, want)
		}
	}
	if got := b.decide("base/5/16385", 8192); got != nil {
		t.Errorf("a file that was cut: %+v", got)
	}
	b.changes = summarized(t, []uint16{0, 1, 2, 3, 4, 5, 6, 7, 8})
	if got := b.decide("base/5/16384", 9*8192); got != nil {
		t.Errorf("a file of which all has changed: %+v", got)
	}
	if got := b.decide("base/5/16384", 10*8192); got == nil || len(got.Blocks) != 9 {
		t.Errorf("a file of which nine in ten blocks have changed: %+v", got)
	}
}

func TestStretches(t *testing.T) {
	got := stretches([]uint32{0, 1, 2, 5, 7, 8})
	if want := []stretch{{0, 3}, {5, 6}, {7, 9}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := stretches(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}

// commitParent puts the record of an earlier backup into the repository.
func (s *site) commitParent(t *testing.T, id string, change func(*repo.Backup)) {
	t.Helper()
	key := func(name string) repo.Object { return repo.Object{Key: "7710411533005170106/parts/" + id + "/" + name} }
	b := &repo.Backup{
		ID: id, SystemID: testSystemID, ServerVersion: 150018, Timeline: 1, StartLSN: 0x500028, StopLSN: 0x500200,
		SegmentSize: testSegment, Parts: []repo.Object{key("000001.tar.zst")}, Manifest: key("backup_manifest.zst"),
	}
	if change != nil {
		change(b)
	}
	for _, o := range append([]repo.Object{b.Manifest}, b.Parts...) {
		if _, err := s.repository.Store.Put(t.Context(), o.Key, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.repository.CommitBackup(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// TestIncrementalBecomesFull: what can't be incremental is full, and says why;
// a parent that was named is never replaced.
func TestIncrementalBecomesFull(t *testing.T) {
	const early, late = "20261119T142500Z", "20261120T002500Z"
	for name, test := range map[string]struct {
		prepare func(t *testing.T, s *site)
		says    string
		chosen  bool // the parent itself is right
	}{
		"no backup": {func(*testing.T, *site) {}, "no such backup", false},
		"degraded": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) { b.Degraded = []string{"a bad page"} })
		}, "is degraded", false},
		"of another major": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) { b.ServerVersion = 140001 })
		}, "is of PostgreSQL 14", false},
		"of other checksums": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) { b.DataChecksums = true })
		}, "page checksums, which were switched", false},
		"of another timeline": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) { b.Timeline = 2 })
		}, "isn't on the way", false},
		"not ended yet": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) { b.StopLSN = testRedo + 1 })
		}, "isn't on the way", false},
		"of a chain with a gap": {func(t *testing.T, s *site) {
			s.commitParent(t, early, func(b *repo.Backup) {
				b.Parent = &repo.Parent{ID: "20261118T142500Z", Timeline: 1, StartLSN: 0x400028, StopLSN: 0x400200}
			})
		}, "backup 20261118T142500Z, which isn't in the repository", false},
		"without a part": {func(t *testing.T, s *site) {
			s.commitParent(t, early, nil)
			if err := s.repository.Store.Delete(t.Context(), "7710411533005170106/parts/"+early+"/000001.tar.zst"); err != nil {
				t.Fatal(err)
			}
		}, "000001.tar.zst isn't in the repository any more", false},
		"without its content": {func(t *testing.T, s *site) { s.commitParent(t, early, nil) }, "what the parent has can't be read", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.archiveWAL(t, 6, 7)
			test.prepare(t, s)
			s.options.Incremental = true
			var log bytes.Buffer
			deps := Deps{Repository: s.repository, Server: s.server, Log: slog.New(slog.NewTextHandler(&log, nil)), Version: "test", Host: "db1"}
			b, err := Push(t.Context(), deps, s.options)
			if err != nil {
				t.Fatal(err)
			}
			if b.Parent != nil || b.DataSize != 0 || !strings.Contains(log.String(), "taking a full backup") || !strings.Contains(log.String(), test.says) {
				t.Errorf("the backup is based on %v, and the log says\n%s", b.Parent, log.String())
			}
			r := s.restore(t, b)
			if label := r.entries["backup_label"]; label != testLabel {
				t.Errorf("the label is %q", label)
			}
			s.options.Parent = early
			if _, err := s.push(t.Context()); !test.chosen && (err == nil || !strings.Contains(err.Error(), "can't be the parent")) {
				t.Errorf("with the parent named: %v", err)
			}
		})
	}
	t.Run("a later one is better", func(t *testing.T) {
		s := newSite(t)
		s.archiveWAL(t, 6, 7)
		s.commitParent(t, early, nil)
		s.commitParent(t, late, func(b *repo.Backup) { b.StartLSN, b.StopLSN = 0x600028, 0x600300 })
		r, err := prepare(Deps{Repository: s.repository, Server: s.server, Log: discard()}, s.options, s.server.facts)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		r.options.Incremental = true
		r.control = pgdata.ControlFile{BlockSize: 8192, RelSegSize: 131072}
		r.record.Timeline, r.record.StartLSN = 1, testRedo
		if err := r.chooseParent(t.Context()); err != nil || r.base == nil || r.base.parent.ID != late {
			t.Errorf("chose %+v (%v), want %s", r.record.Parent, err, late)
		}
		r.control.BlockSize = 16384
		if err := r.chooseParent(t.Context()); err != nil || r.base != nil {
			t.Errorf("with larger blocks: chose %+v (%v)", r.record.Parent, err)
		}
	})
}

// TestReadWAL: WAL that isn't there or isn't WAL is an error, never "nothing
// has changed".
func TestReadWAL(t *testing.T) {
	s := newSite(t)
	r := &run{repository: s.repository, log: discard(), history: wal.History{Timeline: 1}, base: &base{parent: &repo.Backup{ID: "x", StartLSN: 0x500028}}}
	r.record = repo.Backup{SystemID: testSystemID, DataDirectory: s.dir, StartLSN: testRedo, SegmentSize: testSegment, Timeline: 1}
	if changes, err := r.readChanges(t.Context()); err == nil {
		t.Errorf("without WAL: %v", changes)
	}
	s.archiveWAL(t, 5, 6)
	if changes, err := r.readChanges(t.Context()); err == nil {
		t.Errorf("with something else for WAL: %v", changes)
	}
}

// TestOpenWAL: what the server used anew is read from the repository, and what
// isn't archived yet from the server.
func TestOpenWAL(t *testing.T) {
	s := newSite(t)
	s.archiveWAL(t, 5, 6)
	writeTree(t, s.dir, map[string]string{"pg_wal/000000010000000000000006": "own", "pg_wal/000000010000000000000007": "own"})
	r := &run{repository: s.repository, record: repo.Backup{SystemID: testSystemID, DataDirectory: s.dir}}
	for _, test := range []struct {
		number        uint64
		first, second string
	}{{5, "wal", "wal"}, {6, "own", "wal"}, {7, "own", "own"}, {8, "", ""}} {
		name := wal.SegmentName(1, test.number, testSegment)
		if got := readAll(t, r.openSegment, name); got != test.first {
			t.Errorf("%s: read %q, want %q", name, got, test.first)
		}
		if got := readAll(t, r.openArchivedFirst, name); got != test.second {
			t.Errorf("%s: read %q the second time, want %q", name, got, test.second)
		}
	}
}

// readAll reads a segment; "" when there is none.
func readAll(t *testing.T, open func(context.Context, wal.FileName) (io.ReadCloser, error), name wal.FileName) string {
	t.Helper()
	src, err := open(t.Context(), name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, storage.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(src)
	if err := errors.Join(err, src.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}
