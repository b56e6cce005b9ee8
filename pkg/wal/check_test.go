package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const checkStart = LSN(3 * testSegmentSize)

// TestCheckRefuses holds that a segment is what its name says (fault 29,
// rules 13 and 21).
func TestCheckRefuses(t *testing.T) {
	put32 := func(data []byte, offset int, n uint32) { binary.LittleEndian.PutUint32(data[offset:], n) }
	for name, test := range map[string]struct {
		timeline TimelineID
		build    func(w *walBuilder)
		damage   func(data []byte) []byte
		name     FileName
		systemID uint64
		want     string
	}{
		"another address": {
			name: SegmentName(1, 4, testSegmentSize),
			want: "the segment belongs to address 0/300000, its name to 0/400000",
		},
		"another cluster": {
			systemID: 42,
			want:     "the segment belongs to another cluster: system identifier 7312345678901234567, not 42",
		},
		"a later timeline": {
			timeline: 2,
			want:     "the segment belongs to timeline 2, its name to timeline 1",
		},
		"another segment size": {
			damage: func(data []byte) []byte { put32(data, 8, 4<<20); put32(data, 32, 4<<20); return data },
			want:   "the file has 1048576 bytes, its header says 4194304",
		},
		"impossible segment size": {
			damage: func(data []byte) []byte { put32(data, 32, 12345); return data },
			want:   "impossible segment size 12345",
		},
		"impossible page size": {
			damage: func(data []byte) []byte { put32(data, 36, 8000); return data },
			want:   "impossible page size 8000",
		},
		"a name that no such segment has": {
			name: FileName{Kind: KindSegment, Timeline: 1, Seg: 0x1003},
			want: "segments of 1048576 bytes have no such name",
		},
		"no WAL": {
			damage: func(data []byte) []byte { return bytes.Repeat([]byte("text"), len(data)/4) },
			want:   "magic 0x6574 is not that of a WAL page",
		},
		"zeros": {
			damage: func(data []byte) []byte { return make([]byte, len(data)) },
			want:   "magic 0x0000 is not that of a WAL page",
		},
		"an older version": {
			damage: func(data []byte) []byte { data[0] = 0x01; return data },
			want:   "magic 0xd101 isn't that of PostgreSQL 13 to 18",
		},
		"another byte order": {
			damage: func(data []byte) []byte { data[0], data[1] = data[1], data[0]; return data },
			want:   "WAL of a big-endian machine isn't supported",
		},
		"a short header": {
			damage: func(data []byte) []byte { data[2] &^= 2; return data },
			want:   "it isn't that of a segment's first page",
		},
		"an address inside a segment": {
			damage: func(data []byte) []byte { put32(data, 8, uint32(checkStart)+testBlockSize); return data },
			want:   "address 0/302000 isn't the start of a segment",
		},
		"cut in the header": {
			damage: func(data []byte) []byte { return data[:39] },
			want:   "the file ends after 39 of 1048576 bytes",
		},
		"empty": {
			damage: func(data []byte) []byte { return nil },
			want:   "the file ends after 0 of 1048576 bytes",
		},
		"cut at a page": {
			damage: func(data []byte) []byte { return data[:len(data)-testBlockSize] },
			want:   "the file ends after 1040384 of 1048576 bytes",
		},
		"cut in a page, all of it WAL": {
			build:  func(w *walBuilder) { w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) []byte { return data[:len(data)-100] },
			want:   "the file ends after 1048476 of 1048576 bytes",
		},
		"cut at a page, all of it WAL": {
			build:  func(w *walBuilder) { w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) []byte { return data[:len(data)-testBlockSize] },
			want:   "the file ends after 1040384 of 1048576 bytes",
		},
		"too long": {
			damage: func(data []byte) []byte { return append(data, 0) },
			want:   "the file has more than its 1048576 bytes",
		},
		"a timeline that decreases": {
			timeline: 2,
			build: func(w *walBuilder) {
				w.fillTo(checkStart + testBlockSize)
				w.timeline = 1
				w.noop(100)
			},
			name: SegmentName(2, 3, testSegmentSize),
			want: "the page goes back to timeline 1 from timeline 2",
		},
		"a timeline beyond the name's": {
			build: func(w *walBuilder) {
				w.fillTo(checkStart + testBlockSize)
				w.timeline = 3
				w.noop(100)
			},
			name: SegmentName(2, 3, testSegmentSize),
			want: "the page is of timeline 3, the segment of timeline 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWAL(checkStart)
			if test.timeline != 0 {
				w.timeline = test.timeline
			}
			w.noop(100)
			if test.build != nil {
				test.build(w)
			}
			data := w.segment(t)
			if test.damage != nil {
				data = test.damage(data)
			}
			name, systemID := SegmentName(1, 3, testSegmentSize), uint64(testSystemID)
			if test.name.Kind != 0 {
				name = test.name
			}
			if test.systemID != 0 {
				systemID = test.systemID
			}
			_, err := Check(bytes.NewReader(data), name, testSegmentSize, systemID)
			if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want a mismatch with %q", err, test.want)
			}
			if !strings.HasPrefix(err.Error(), "check "+name.String()+": ") {
				t.Errorf("%q doesn't say which file", err)
			}
		})
	}
}

// TestCheckPartialOverOldPages: the file of a partial segment may have been an
// ancestor's of the same place, which PostgreSQL recycles behind a fork
// (RemoveNonParentXlogFiles in src/backend/access/transam/xlog.c).
func TestCheckPartialOverOldPages(t *testing.T) {
	old := newWAL(checkStart)
	old.fillTo(checkStart + testSegmentSize)
	for name, build := range map[string]func(w *walBuilder){
		"in a page":     func(w *walBuilder) { w.noop(9000) },
		"at a page":     func(w *walBuilder) { w.fillTo(checkStart + 2*testBlockSize) },
		"in a record":   func(w *walBuilder) { w.noop(100); w.noop(20000); w.data = w.data[:2*testBlockSize] },
		"in the record": func(w *walBuilder) { w.noop(20000); w.data = w.data[:2*testBlockSize] },
	} {
		w := newWAL(checkStart)
		w.timeline = 2
		build(w)
		written := w.data
		for len(written)%testBlockSize != 0 {
			written = append(written, 0)
		}
		data := append(written, old.data[len(written):]...)
		partial := SegmentName(2, 3, testSegmentSize)
		partial.Kind = KindPartial
		s, err := Check(bytes.NewReader(data), partial, testSegmentSize, testSystemID)
		if err != nil || s.Ending != EndingOpen {
			t.Errorf("WAL that ends %s: it ends %s, %v", name, s.Ending, err)
		}
		partial.Kind = KindSegment
		if _, err := Check(bytes.NewReader(data), partial, testSegmentSize, testSystemID); name == "in a record" && !errors.Is(err, ErrMismatch) {
			t.Errorf("a whole segment: %v", err)
		}
	}
}

func TestCheckSize(t *testing.T) {
	for _, size := range []int64{-1, 0, 100, testSegmentSize - 1, 3 * testSegmentSize, 2 << 30} {
		_, err := Check(bytes.NewReader(nil), SegmentName(1, 3, testSegmentSize), size, 0)
		if !errors.Is(err, ErrMismatch) {
			t.Errorf("%d bytes: got %v, want a mismatch", size, err)
		}
	}
}

func TestCheckKinds(t *testing.T) {
	w := newWAL(checkStart)
	w.noop(100)
	data := w.segment(t)
	segment := SegmentName(1, 3, testSegmentSize)
	for kind, accepted := range map[Kind]bool{
		KindSegment: true, KindPartial: true, KindBackupHistory: false, KindTimelineHistory: false,
	} {
		name := segment
		name.Kind = kind
		if _, err := Check(bytes.NewReader(data), name, testSegmentSize, 0); (err == nil) != accepted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckReadError passes the source's error on: it says nothing about the
// segment.
func TestCheckReadError(t *testing.T) {
	w := newWAL(checkStart)
	w.fillTo(checkStart + testSegmentSize/2)
	data := w.segment(t)
	broken := errors.New("broken")
	for _, n := range []int{0, 20, 100, testSegmentSize / 4, testSegmentSize - 1, testSegmentSize} {
		src := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken))
		_, err := Check(src, w.name(0), testSegmentSize, 0)
		if !errors.Is(err, broken) || errors.Is(err, ErrMismatch) {
			t.Errorf("broken after %d bytes: got %v", n, err)
		}
	}
}

// TestCheckAccepts holds what isn't a mismatch: pages of an ancestor, old
// content behind the last record, damage inside.
func TestCheckAccepts(t *testing.T) {
	old := newWAL(checkStart - 2*testSegmentSize)
	old.fillTo(old.start + testSegmentSize)
	for name, test := range map[string]struct {
		build  func(w *walBuilder)
		damage func(data []byte)
		ending Ending
		end    LSN
	}{
		"nothing yet": {
			build:  func(w *walBuilder) { w.page(0) },
			ending: EndingOpen, end: checkStart + LongHeaderSize,
		},
		"zeros behind": {
			build:  func(w *walBuilder) { w.noop(100) },
			ending: EndingOpen, end: checkStart + LongHeaderSize + 104,
		},
		"an old file behind": {
			build: func(w *walBuilder) { w.fillTo(checkStart + 2*testBlockSize) },
			damage: func(data []byte) {
				copy(data[2*testBlockSize:], old.data[2*testBlockSize:])
			},
			ending: EndingOpen, end: checkStart + 2*testBlockSize,
		},
		"an old file behind, in the page": {
			build: func(w *walBuilder) { w.noop(100); w.noop(100) },
			damage: func(data []byte) {
				copy(data[LongHeaderSize+208:], old.data[LongHeaderSize+208:])
			},
			ending: EndingOpen, end: checkStart + LongHeaderSize + 208,
		},
		"a record cut by a crash": {
			build: func(w *walBuilder) {
				w.noop(100)
				w.emit(w.position(), ResourceXLOG, infoNoop, 0, make([]byte, 3*testBlockSize), testBlockSize-LongHeaderSize-104)
			},
			ending: EndingOpen, end: checkStart + LongHeaderSize + 104,
		},
		"damage": {
			build:  func(w *walBuilder) { w.noop(100); w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) { data[LongHeaderSize+104+50] ^= 1 },
			ending: EndingDamaged, end: checkStart + LongHeaderSize + 104,
		},
		"damage in a record's header": {
			build:  func(w *walBuilder) { w.noop(100); w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) { data[LongHeaderSize+104+9] ^= 1 },
			ending: EndingDamaged, end: checkStart + LongHeaderSize + 104,
		},
		"damage in the first record": {
			build:  func(w *walBuilder) { w.noop(100); w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) { data[LongHeaderSize+50] ^= 1 },
			ending: EndingDamaged, end: checkStart + LongHeaderSize,
		},
		"a page that is zero": {
			build:  func(w *walBuilder) { w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) { clear(data[3*testBlockSize : 4*testBlockSize]) },
			ending: EndingDamaged, end: checkStart + 3*testBlockSize,
		},
		"a record whose rest is missing": {
			build:  func(w *walBuilder) { w.noop(100); w.noop(2 * testBlockSize); w.fillTo(checkStart + testSegmentSize) },
			damage: func(data []byte) { clear(data[testBlockSize : 2*testBlockSize]) },
			ending: EndingDamaged, end: checkStart + LongHeaderSize + 104,
		},
		"a parent's pages": {
			build: func(w *walBuilder) {
				w.timeline = 2
				w.fillTo(checkStart + 3*testBlockSize)
				w.timeline = 4
				w.fillTo(checkStart + 5*testBlockSize)
				w.timeline = 5
				w.fillTo(checkStart + testSegmentSize)
			},
			ending: EndingFull, end: checkStart + testSegmentSize,
		},
		"a switch": {
			build:  func(w *walBuilder) { w.noop(100); w.switchSegment() },
			ending: EndingSwitch, end: checkStart + testSegmentSize,
		},
		"a switch, and an old file behind": {
			build:  func(w *walBuilder) { w.noop(100); w.switchSegment() },
			damage: func(data []byte) { copy(data[testBlockSize:], old.data[testBlockSize:]) },
			ending: EndingSwitch, end: checkStart + testSegmentSize,
		},
		"a switch at the end": {
			build: func(w *walBuilder) {
				w.fillTo(checkStart + testSegmentSize - 24)
				w.raw(ResourceXLOG, 0x40, 0, nil)
			},
			ending: EndingSwitch, end: checkStart + testSegmentSize,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWAL(checkStart)
			test.build(w)
			data := w.segment(t)
			if test.damage != nil {
				test.damage(data)
			}
			s, err := Check(bytes.NewReader(data), SegmentName(6, 3, testSegmentSize), testSegmentSize, testSystemID)
			if err != nil {
				t.Fatal(err)
			}
			if s.Ending != test.ending || s.End != test.end {
				t.Errorf("it ends %s at %s (%s), want %s at %s", s.Ending, s.End, s.Problem, test.ending, test.end)
			}
			if complete := s.Ending.Complete(); complete != (s.Problem == "") {
				t.Errorf("complete is %t, the problem %q", complete, s.Problem)
			}
		})
	}
}
