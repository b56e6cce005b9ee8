package repo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

const rollupSegmentSize = 1 << 20

// rollupOf is a block of which each segment has one commit and ends with a
// switch.
func rollupOf(block uint64) *Rollup {
	x := &Rollup{SystemID: 7, Timeline: 3, SegmentSize: rollupSegmentSize, Block: block}
	for i := range uint64(RollupSegments) {
		start := wal.LSN((block*RollupSegments + i) * rollupSegmentSize)
		at := wal.TimestampOf(time.Date(2026, 11, 20, 0, int(i), 0, 0, time.UTC))
		s := wal.Summary{
			Records: 2, First: start + 40, Prev: start - rollupSegmentSize + 80, Last: start + 80, End: start + rollupSegmentSize,
			Ending: wal.EndingSwitch, Commits: 1, Stops: 1, MinTime: at, MaxTime: at,
		}
		if i == 9 {
			s.RestorePoints, s.RestorePointCount = []wal.RestorePoint{{LSN: start + 60, Time: at, Name: "a\nsegment=b\nend=sha256:c"}}, 1
		}
		x.Segments = append(x.Segments, s)
	}
	return x
}

func TestRollup(t *testing.T) {
	r, x := newRepository(t), rollupOf(4)
	if _, err := r.Rollup(t.Context(), 7, 3, 4, rollupSegmentSize); !errors.Is(err, storage.ErrNotExist) {
		t.Fatalf("there is none: %v", err)
	}
	for range 2 { // the second time it is there
		if err := r.WriteRollup(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Rollup(t.Context(), 7, 3, 4, rollupSegmentSize)
	if err != nil {
		t.Fatal(err)
	}
	for i := range x.Segments {
		if !got.Segments[i].SameWAL(x.Segments[i]) || got.Segments[i].MaxTime != x.Segments[i].MaxTime || len(got.Segments[i].RestorePoints) != len(x.Segments[i].RestorePoints) {
			t.Fatalf("segment %d: %+v, want %+v", i, got.Segments[i], x.Segments[i])
		}
	}
	total, err := got.Total()
	if err != nil || total.Commits != RollupSegments || total.MinTime != x.Segments[0].MinTime || total.MaxTime != x.Segments[RollupSegments-1].MaxTime {
		t.Errorf("in total %+v, %v", total, err)
	}
	const key = "7/summaries/000000030000000000000400-1048576.zst"
	if RollupKey(7, 3, 4, rollupSegmentSize) != key {
		t.Errorf("the key is %s, want %s", RollupKey(7, 3, 4, rollupSegmentSize), key)
	}
}

// TestSmallRollup is one of 16 segments, which lies beside the large one of the
// same place.
func TestSmallRollup(t *testing.T) {
	r, large := newRepository(t), rollupOf(4)
	small := *large
	small.Length, small.Block = SmallRollupSegments, 4*RollupSegments/SmallRollupSegments
	small.Segments = large.Segments[:SmallRollupSegments]
	for _, x := range []*Rollup{large, &small} {
		if err := r.WriteRollup(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		got := *x
		got.Segments = nil
		if err := r.ReadRollup(t.Context(), &got); err != nil || len(got.Segments) != len(x.Segments) {
			t.Errorf("%s: %d segments, %v; want %d", x.Key(), len(got.Segments), err, len(x.Segments))
		}
	}
	small.Length, small.Block = 32, 4*RollupSegments/32
	if err := r.WriteRollup(t.Context(), &small); !errors.Is(err, ErrRollup) {
		t.Errorf("one of 32 segments: %v", err)
	}
}

// TestRollupRefused: what can't be is neither written nor read.
func TestRollupRefused(t *testing.T) {
	for name, spoil := range map[string]func(x *Rollup){
		"a segment is missing":         func(x *Rollup) { x.Segments = x.Segments[:255] },
		"a segment without a summary":  func(x *Rollup) { x.Segments[3] = wal.Summary{} },
		"an end outside":               func(x *Rollup) { x.Segments[3].End += rollupSegmentSize },
		"a record outside":             func(x *Rollup) { x.Segments[3].First = 40 },
		"a gap in the chain":           func(x *Rollup) { x.Segments[3].Prev++ },
		"times that don't agree":       func(x *Rollup) { x.Segments[3].MaxTime = x.Segments[3].MinTime - 1 },
		"counts that don't agree":      func(x *Rollup) { x.Segments[3].Commits = 3 },
		"a restore point outside":      func(x *Rollup) { x.Segments[9].RestorePoints[0].LSN = 40 },
		"an impossible segment size":   func(x *Rollup) { x.SegmentSize = 5 },
		"WAL that ends in the middle":  func(x *Rollup) { x.Segments[3].Ending, x.Segments[3].End = wal.EndingOpen, x.Segments[3].Last },
		"the block of other positions": func(x *Rollup) { x.Block++ },
	} {
		r, x := newRepository(t), rollupOf(4)
		spoil(x)
		if err := r.WriteRollup(t.Context(), x); !errors.Is(err, ErrRollup) {
			t.Errorf("%s: writing it: %v", name, err)
		}
		stored, err := x.encode(r.Info.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Store.Put(t.Context(), x.Key(), bytes.NewReader(stored)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Rollup(t.Context(), 7, 3, x.Block, x.SegmentSize); !errors.Is(err, ErrRollup) {
			t.Errorf("%s: reading it: %v", name, err)
		}
	}
}

// TestRollupDamaged: one that was cut, changed or moved is of no use.
func TestRollupDamaged(t *testing.T) {
	r, x := newRepository(t), rollupOf(4)
	stored, err := x.encode(r.Info.ID)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := x.encode(strings.Repeat("0", 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := rollupOf(5).encode(r.Info.ID)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := compress.DecodeFrame(stored, maxRollup)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(plain, []byte("wal.commits=1\n"), []byte("wal.commits=0\n"), 1)
	var repacked bytes.Buffer
	w, err := compress.NewWriter(&repacked, compress.Fastest)
	if err == nil {
		_, err = w.Write(changed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil || bytes.Equal(plain, changed) {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cut": stored[:len(stored)-1], "empty": {}, "of another repository": foreign, "of another block": other, "changed": repacked.Bytes(),
	} {
		y := &Rollup{SystemID: 7, Timeline: 3, SegmentSize: rollupSegmentSize, Block: 4}
		if err := y.decode(data, r.Info.ID); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

func FuzzRollup(f *testing.F) {
	x := rollupOf(4)
	const id = "00112233445566778899aabbccddeeff"
	f.Add([]byte(x.head(id)))
	var text bytes.Buffer
	text.WriteString(x.head(id) + rollupSegment + x.name(0).String() + "\n")
	for _, field := range x.Segments[0].Fields() {
		text.WriteString(field.Key + "=" + field.Value + "\n")
	}
	f.Add(text.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		y := &Rollup{SystemID: 7, Timeline: 3, SegmentSize: rollupSegmentSize, Block: 4}
		segments, ok := strings.CutPrefix(string(data), y.head(id))
		if ok && y.decodeSegments(segments) == nil && len(y.Segments) > RollupSegments {
			t.Errorf("%d segments", len(y.Segments))
		}
	})
}
