package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

const segmentBlocks = 131072

// changesOf reads the changes of all records of a builder.
func changesOf(t *testing.T, w *walBuilder) *Changes {
	t.Helper()
	r, err := NewReader(bytes.NewReader(padded(w.data)))
	if err != nil {
		t.Fatal(err)
	}
	c := NewChanges()
	for {
		record, err := r.Next()
		var end *InvalidError
		if err == io.EOF || errors.As(err, &end) && end.LSN >= w.position() {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Add(record); err != nil {
			t.Fatal(err)
		}
	}
}

// touch writes a record that names a block, with data of a byte.
func (w *walBuilder) touch(f RelFile, fork Fork, block uint32) {
	header := []byte{0, 0x20 | uint8(fork), 1, 0}
	header = appendRelFile(header, f)
	header = binary.LittleEndian.AppendUint32(header, block)
	w.raw(10, 0, 700, append(header, 0xAA)) // Heap
}

func appendRelFile(data []byte, f RelFile) []byte {
	for _, n := range []uint32{f.Tablespace, f.Database, f.Number} {
		data = binary.LittleEndian.AppendUint32(data, n)
	}
	return data
}

func TestChangesBlocks(t *testing.T) {
	a, b := RelFile{1663, 5, 16384}, RelFile{1663, 5, 16385}
	w := newWAL(1 << 20)
	for _, block := range []uint32{7, 0, 5000, 7, segmentBlocks - 1, segmentBlocks, segmentBlocks + 64} {
		w.touch(a, ForkMain, block)
		w.touch(b, ForkVisibilityMap, block)
		w.touch(b, ForkFreeSpaceMap, block)
	}
	w.touch(b, ForkMain, 1)
	c := changesOf(t, w)
	for _, test := range []struct {
		file       RelFile
		first, end uint32
		want       []uint32
	}{
		{a, 0, segmentBlocks, []uint32{0, 7, 5000, segmentBlocks - 1}},
		{a, segmentBlocks, 2 * segmentBlocks, []uint32{0, 64}},
		{a, 2 * segmentBlocks, 3 * segmentBlocks, nil},
		{a, 1, 5001, []uint32{6, 4999}},
		{b, 0, segmentBlocks, []uint32{1}},
		{RelFile{1663, 6, 16384}, 0, segmentBlocks, nil},
	} {
		got, whole := c.Blocks(nil, test.file, test.first, test.end)
		if whole || !slices.Equal(got, test.want) {
			t.Errorf("%s from %d: %v (whole %v), want %v", test.file, test.first, got, whole, test.want)
		}
	}
}

// TestChangesRandom holds the blocks against a plain set.
func TestChangesRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(25, 1))
	files := []RelFile{{1663, 5, 16384}, {1663, 5, 16385}, {16400, 5, 16384}}
	w, want := newWAL(1<<20), map[RelFile]map[uint32]bool{}
	for range 5000 {
		f, block := files[random.IntN(len(files))], random.Uint32N(3*segmentBlocks)
		if random.IntN(2) == 0 {
			block = random.Uint32N(200)
		}
		if want[f] == nil {
			want[f] = map[uint32]bool{}
		}
		want[f][block] = true
		w.touch(f, ForkMain, block)
	}
	c := changesOf(t, w)
	for _, f := range files {
		got := map[uint32]bool{}
		for first := uint32(0); first < 4*segmentBlocks; first += segmentBlocks {
			blocks, whole := c.Blocks(nil, f, first, first+segmentBlocks)
			if whole || !slices.IsSorted(blocks) {
				t.Errorf("%s: whole %v, sorted %v", f, whole, slices.IsSorted(blocks))
			}
			for _, block := range blocks {
				got[first+block] = true
			}
		}
		if len(got) != len(want[f]) {
			t.Errorf("%s: %d blocks, want %d", f, len(got), len(want[f]))
		}
		for block := range want[f] {
			if !got[block] {
				t.Errorf("%s: block %d is missing", f, block)
			}
		}
	}
}

// TestChangesFiles: what happens to whole files makes the rest of them whole.
func TestChangesFiles(t *testing.T) {
	file := RelFile{1663, 5, 16384}
	other := RelFile{1663, 5, 16999}
	number := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	ended := func(info uint8, flags uint32, more ...byte) func(*walBuilder) {
		return func(w *walBuilder) {
			main := append(binary.LittleEndian.AppendUint64(nil, 1), number(flags|1<<2)...) // XACT_XINFO_HAS_RELFILELOCATORS
			main = appendRelFile(append(main, number(1)...), file)
			w.record(ResourceTransaction, info|0x80, 701, append(main, more...))
		}
	}
	smgr := func(info uint8, main []byte) func(*walBuilder) {
		return func(w *walBuilder) { w.record(ResourceStorage, info, 701, main) }
	}
	created := func(fork uint32) []byte { return append(appendRelFile(nil, file), number(fork)...) }
	truncated := func(blocks, parts uint32) []byte {
		return append(appendRelFile(number(blocks), file), number(parts)...)
	}
	database := func(info uint8, numbers ...uint32) func(*walBuilder) {
		return func(w *walBuilder) {
			var main []byte
			for _, n := range numbers {
				main = append(main, number(n)...)
			}
			w.record(ResourceDatabase, info, 701, main)
		}
	}
	for name, test := range map[string]struct {
		write func(*walBuilder)
		whole []bool // of the file's three segments
		other bool   // another file of the database is whole
	}{
		"nothing":              {func(*walBuilder) {}, []bool{false, false, false}, false},
		"commit that drops":    {ended(0x00, 0), []bool{true, true, true}, false},
		"abort that drops":     {ended(0x20, 0), []bool{true, true, true}, false},
		"commit prepared":      {ended(0x30, 1<<4, number(700)...), []bool{true, true, true}, false},
		"abort prepared":       {ended(0x40, 1<<4, number(700)...), []bool{true, true, true}, false},
		"created":              {smgr(0x10, created(0)), []bool{true, true, true}, false},
		"another fork created": {smgr(0x10, created(3)), []bool{false, false, false}, false},
		"cut to nothing":       {smgr(0x20, truncated(0, 7)), []bool{true, true, true}, false},
		"cut in the second":    {smgr(0x20, truncated(segmentBlocks+5, 1)), []bool{false, true, true}, false},
		"cut between":          {smgr(0x20, truncated(segmentBlocks, 1)), []bool{false, true, true}, false},
		"other forks cut":      {smgr(0x20, truncated(0, 6)), []bool{false, false, false}, false},
		"database copied":      {database(0x00, 5, 1663, 1, 1663), []bool{true, true, true}, true},
		"database logged":      {database(0x10, 5, 1663), []bool{true, true, true}, true},
		"database dropped":     {database(0x20, 5, 2, 1700, 1663), []bool{true, true, true}, true},
		"another database":     {database(0x20, 6, 1, 1663), []bool{false, false, false}, false},
		"another place":        {database(0x20, 5, 1, 1700), []bool{false, false, false}, false},
		"map named":            {func(w *walBuilder) { w.touch(file, ForkVisibilityMap, 0) }, []bool{false, false, false}, false},
	} {
		alone := newWAL(1 << 20)
		alone.touch(RelFile{1663, 7, 16384}, ForkMain, 0)
		test.write(alone)
		untouched := []string{"nothing", "another database", "another place"}
		if got, want := changesOf(t, alone).Touches(file), !slices.Contains(untouched, name); got != want {
			t.Errorf("%s: the relation is touched: %v, want %v", name, got, want)
		}
		w := newWAL(1 << 20)
		w.touch(file, ForkMain, 3)
		test.write(w)
		w.touch(file, ForkMain, 2)
		c := changesOf(t, w)
		for i, want := range test.whole {
			first := uint32(i) * segmentBlocks
			if _, got := c.Blocks(nil, file, first, first+segmentBlocks); got != want {
				t.Errorf("%s: segment %d is whole: %v, want %v", name, i, got, want)
			}
		}
		if _, got := c.Blocks(nil, other, 0, segmentBlocks); got != test.other {
			t.Errorf("%s: another file is whole: %v, want %v", name, got, test.other)
		}
	}
}

func TestChangesMinimal(t *testing.T) {
	for level, want := range map[uint32]bool{0: true, 1: false, 2: false} {
		w := newWAL(1 << 20)
		w.parameters(100, 8, 10, 0, 64, level)
		w.parameters(100, 8, 10, 0, 64, 1)
		if got := changesOf(t, w).Minimal; got != want {
			t.Errorf("wal_level %d was minimal: %v, want %v", level, got, want)
		}
	}
}

// TestServerSummary: both forms of a chunk, and relation 0 for a database.
func TestServerSummary(t *testing.T) {
	name := "0000000200000001000000280000000200000100.summary"
	if s, ok := ParseServerSummary(name); !ok || s != (ServerSummary{2, 1<<32 | 0x28, 2<<32 | 0x100}) || s.String() != name {
		t.Errorf("%s is %v (%v)", name, s, ok)
	}
	for _, other := range []string{"", "temp.summary", name[1:], name[:44] + "x", "00000002000000010000002800000002000001zz.summary", "000000020000000100000028000000020000010a.summary"} {
		if s, ok := ParseServerSummary(other); ok {
			t.Errorf("%s is %v", other, s)
		}
	}
	entry := func(tablespace, database, relation, fork, limit uint32, sizes ...uint16) []byte {
		return le(tablespace, database, relation, fork, limit, uint32(len(sizes)), sizes)
	}
	bits := make([]uint16, 4096)
	bits[0], bits[4095] = 1|1<<15, 1<<3
	var data []byte
	for _, part := range [][]byte{
		le(uint32(0x652b137b)),
		entry(1663, 5, 0, 0, 0), // all of a database
		entry(1663, 6, 7, 0, noBlock, 2, 4096), le([]uint16{9, 65535}), le(bits),
		entry(1663, 6, 8, 0, segmentBlocks+5, 1), le([]uint16{3}),
		entry(1663, 6, 8, 2, 0, 1), le([]uint16{4}), // another fork
		entry(1663, 6, 9, 2, noBlock, 1), le([]uint16{0}), // nothing but that
		make([]byte, 24),
	} {
		data = append(data, part...)
	}
	data = append(data, le(crc32.Checksum(data, castagnoli))...)
	c := NewChanges()
	if err := c.AddServerSummary(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file  RelFile
		first uint32
		want  []uint32
		whole bool
	}{
		{RelFile{1663, 5, 99}, 0, nil, true},
		{RelFile{1663, 6, 7}, 0, []uint32{9, 65535, 65536, 65536 + 15, 131072 - 16 + 3}, false},
		{RelFile{1663, 6, 7}, segmentBlocks, nil, false},
		{RelFile{1663, 6, 8}, 0, []uint32{3}, false},
		{RelFile{1663, 6, 8}, segmentBlocks, nil, true},
	} {
		got, whole := c.Blocks(nil, test.file, test.first, test.first+segmentBlocks)
		if whole != test.whole || !slices.Equal(got, test.want) {
			t.Errorf("%s from %d: %v (whole %v), want %v (%v)", test.file, test.first, got, whole, test.want, test.whole)
		}
	}
	for file, want := range map[RelFile]bool{
		{1663, 5, 99}: true, {1663, 6, 7}: true, {1663, 6, 8}: true, {1663, 6, 9}: true, {1663, 6, 10}: false,
	} {
		if got := c.Touches(file); got != want {
			t.Errorf("%s is touched: %v, want %v", file, got, want)
		}
	}
	for n := range data {
		if err := NewChanges().AddServerSummary(bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("cut at %d of %d it is taken for whole", n, len(data))
		}
	}
	many := append(le(uint32(0x652b137b)), le(uint32(1), uint32(2), uint32(3), uint32(0), uint32(0), uint32(1<<31))...)
	if err := NewChanges().AddServerSummary(bytes.NewReader(many)); err == nil {
		t.Error("a relation with 2 billion chunks is taken")
	}
}
