package pgdata

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestIncrementalNames(t *testing.T) {
	for name, incremental := range map[string]string{
		"base/5/16384":                      "base/5/INCREMENTAL.16384",
		"base/5/16384.3":                    "base/5/INCREMENTAL.16384.3",
		"global/1262":                       "global/INCREMENTAL.1262",
		"pg_tblspc/16400/PG_15_2022/5/2619": "pg_tblspc/16400/PG_15_2022/5/INCREMENTAL.2619",
	} {
		if got := IncrementalName(name); got != incremental {
			t.Errorf("the changed blocks of %s are in %s, want %s", name, got, incremental)
		}
		if got, ok := CutIncremental(incremental); !ok || got != name {
			t.Errorf("%s has the changed blocks of %q (%v), want %s", incremental, got, ok, name)
		}
		if got, ok := CutIncremental(name); ok {
			t.Errorf("%s has the changed blocks of %s", name, got)
		}
	}
	for _, name := range []string{"INCREMENTAL.notes", "base/5/INCREMENTAL.PG_VERSION", "pg_xact/INCREMENTAL.0000", "base/5/INCREMENTAL.INCREMENTAL.5"} {
		if got, ok := CutIncremental(name); ok {
			t.Errorf("%s has the changed blocks of %s", name, got)
		}
	}
}

// TestIncrementalLayout holds the header against the layout written down by
// hand.
func TestIncrementalLayout(t *testing.T) {
	none := Incremental{Length: 7}
	want := []byte{0x0d, 0x1f, 0xae, 0xd3, 0, 0, 0, 0, 7, 0, 0, 0}
	if got := none.AppendHeader(nil); !bytes.Equal(got, want) || none.Size() != 12 || none.FileBlocks() != 7 {
		t.Errorf("without blocks it is % x of %d bytes for %d blocks", got, none.Size(), none.FileBlocks())
	}
	two := Incremental{Length: 7, Blocks: []uint32{3, 9}}
	want = append([]byte{0x0d, 0x1f, 0xae, 0xd3, 2, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0}, make([]byte, 8192-20)...)
	if got := two.AppendHeader([]byte("x")); !bytes.Equal(got[1:], want) || two.Size() != 3*8192 || two.FileBlocks() != 10 {
		t.Errorf("with two blocks it is % x… of %d bytes for %d blocks", got[:24], two.Size(), two.FileBlocks())
	}
	for n, header := range map[int]int64{2045: 8192, 2046: 16384, SegmentBlocks: 65 * 8192} {
		if got := (Incremental{Blocks: make([]uint32, n)}).HeaderSize(); got != header {
			t.Errorf("the header of %d blocks has %d bytes, want %d", n, got, header)
		}
	}
}

func TestReadIncrementalRefuses(t *testing.T) {
	valid := Incremental{Length: 7, Blocks: []uint32{3, 9}}.AppendHeader(nil)
	for name, c := range map[string]struct {
		at    int
		value uint32
		want  string
	}{
		"magic":          {0, 0xd3ae1f0c, "magic number"},
		"too many":       {4, SegmentBlocks + 1, "a segment has 131072"},
		"too long":       {8, SegmentBlocks + 1, "a segment has 131072"},
		"out of order":   {12, 9, "out of order"},
		"out of segment": {16, SegmentBlocks, "out of order"},
		"not padded":     {8188, 1, "zeros"},
	} {
		data := slices.Clone(valid)
		binary.LittleEndian.PutUint32(data[c.at:], c.value)
		if _, err := ReadIncremental(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 11, 12, 100, len(valid) - 1} {
		if _, err := ReadIncremental(bytes.NewReader(valid[:n])); err == nil || !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// FuzzIncremental: what is accepted is what would be written.
func FuzzIncremental(f *testing.F) {
	f.Add(Incremental{}.AppendHeader(nil))
	f.Add(Incremental{Length: 5}.AppendHeader(nil))
	f.Add(Incremental{Length: 7, Blocks: []uint32{3, 9}}.AppendHeader(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		src := bytes.NewReader(data)
		i, err := ReadIncremental(src)
		if err != nil {
			return
		}
		read := data[:len(data)-src.Len()]
		if again := i.AppendHeader(nil); !bytes.Equal(again, read) || i.HeaderSize() != int64(len(read)) {
			t.Errorf("read % x, wrote % x", read, again)
		}
	})
}
