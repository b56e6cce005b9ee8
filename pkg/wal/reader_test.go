package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// readAll reads every record, and returns how that ended.
func readAll(t *testing.T, src io.Reader) ([]builtRecord, *Reader, error) {
	t.Helper()
	r, err := NewReader(src)
	if err != nil {
		t.Fatal(err)
	}
	var list []builtRecord
	for {
		record, err := r.Next()
		if err != nil {
			if _, again := r.Next(); !errors.Is(again, err) {
				t.Errorf("Next returned %v and then %v", err, again)
			}
			return list, r, err
		}
		list = append(list, builtRecord{lsn: record.LSN, prev: record.Prev, data: bytes.Clone(record.Data)})
	}
}

// equalRecords compares records read with those written at or behind from,
// leaving out the lost ones.
func equalRecords(t *testing.T, got, written []builtRecord, from, to LSN) {
	t.Helper()
	var want []builtRecord
	for _, r := range written {
		if !r.lost && r.lsn >= from && r.lsn < to {
			want = append(want, r)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d records read, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].lsn != want[i].lsn || got[i].prev != want[i].prev || !bytes.Equal(got[i].data, want[i].data) {
			t.Fatalf("record %d is at %s behind %s, want %s behind %s, or differs",
				i, got[i].lsn, got[i].prev, want[i].lsn, want[i].prev)
		}
	}
}

const endOfWAL = LSN(1<<64 - 1)

// randomWAL writes records of random sizes over some segments.
func randomWAL(random *rand.Rand, start LSN, segments int) *walBuilder {
	w := newWAL(start)
	for len(w.data) < segments*testSegmentSize {
		switch n := random.IntN(1000); {
		case n < 2:
			w.noop(24 + random.IntN(3*testSegmentSize/2))
		case n < 20:
			w.noop(24 + random.IntN(20*testBlockSize))
		case n < 22:
			w.switchSegment()
		case n < 25 && testBlockSize-len(w.data)%testBlockSize >= 8 && len(w.data)%testBlockSize != 0:
			w.abandon(2*testBlockSize + random.IntN(100))
		case n == 25:
			w.restorePoint(fmt.Sprintf("point %d", w.position()), Timestamp(len(w.data)))
		case n < 300:
			w.commit(random.Uint32N(2000)-1000, Timestamp(random.Int64N(1e15)))
		default:
			w.noop(24 + random.IntN(400))
		}
	}
	return w
}

// TestReaderModel reads random WAL as a whole and from each segment on.
func TestReaderModel(t *testing.T) {
	for seed := range uint64(6) {
		w := randomWAL(rand.New(rand.NewPCG(seed, 1)), LSN(5*testSegmentSize), 4)
		data := padded(w.data)
		for offset := 0; offset < len(data); offset += testSegmentSize {
			from := w.start + LSN(offset)
			got, _, err := readAll(t, bytes.NewReader(data[offset:]))
			if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) && err != io.EOF {
				t.Fatalf("seed %d, from %s: %v", seed, from, err)
			}
			equalRecords(t, got, w.records, from, endOfWAL)
		}
	}
}

// TestReaderSources reads the same WAL in pieces of all kinds.
func TestReaderSources(t *testing.T) {
	w := randomWAL(rand.New(rand.NewPCG(99, 1)), LSN(5*testSegmentSize), 2)
	data := padded(w.data)
	for name, src := range map[string]io.Reader{
		"bytes one by one": iotest.OneByteReader(bytes.NewReader(data)),
		"halves":           iotest.HalfReader(bytes.NewReader(data)),
		"error with data":  iotest.DataErrReader(bytes.NewReader(data)),
		"segment by segment": io.MultiReader(bytes.NewReader(data[:testSegmentSize]),
			bytes.NewReader(data[testSegmentSize:])),
	} {
		t.Run(name, func(t *testing.T) {
			got, _, _ := readAll(t, src)
			equalRecords(t, got, w.records, 0, endOfWAL)
		})
	}
	t.Run("failing", func(t *testing.T) {
		broken := errors.New("broken")
		half := bytes.NewReader(data[:testSegmentSize+100])
		got, _, err := readAll(t, io.MultiReader(half, iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want the source's error", err)
		}
		if len(got) == 0 {
			t.Error("no record was read before the error")
		}
	})
	t.Run("cut in a page", func(t *testing.T) {
		_, _, err := readAll(t, bytes.NewReader(data[:testSegmentSize+100]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want an unexpected end", err)
		}
	})
	t.Run("cut in the header", func(t *testing.T) {
		if _, err := NewReader(bytes.NewReader(data[:39])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want an unexpected end", err)
		}
		if _, err := NewReader(bytes.NewReader(nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want an unexpected end", err)
		}
	})
	t.Run("not at a segment's start", func(t *testing.T) {
		if _, err := NewReader(bytes.NewReader(data[testBlockSize:])); err == nil {
			t.Error("a page in the middle was accepted as a segment's start")
		}
	})
}

// TestReaderLongRecord reads a record that fills whole segments.
func TestReaderLongRecord(t *testing.T) {
	w := newWAL(testSegmentSize)
	w.noop(100)
	long := w.noop(3 * testSegmentSize)
	w.noop(100)
	segments := w.segments()

	got, _, _ := readAll(t, bytes.NewReader(padded(w.data)))
	equalRecords(t, got, w.records, 0, endOfWAL)

	got, r, err := readAll(t, bytes.NewReader(segments[0]))
	lsn, tail := r.Tail()
	if !errors.Is(err, ErrUnfinished) || len(got) != 1 || lsn != long || tail.Remaining != 3*testSegmentSize {
		t.Errorf("the first segment: %d records, tail at %s of %d, %v", len(got), lsn, tail.Remaining, err)
	}
	got, r, err = readAll(t, bytes.NewReader(segments[1]))
	lsn, tail = r.Tail()
	if head := r.Head(); !errors.Is(err, ErrUnfinished) || len(got) != 0 || lsn != 0 || tail.Length != 0 ||
		head.Length >= head.Remaining || head.Length < testSegmentSize-128*ShortHeaderSize-LongHeaderSize {
		t.Errorf("the second segment: %d records, head %+v, %v", len(got), r.Head(), err)
	}
	got, r, _ = readAll(t, bytes.NewReader(segments[3]))
	if head := r.Head(); len(got) != 1 || head.Length != head.Remaining {
		t.Errorf("the last segment: %d records, head %+v", len(got), head)
	}
}

// TestReaderEnds holds where valid WAL ends, and why.
func TestReaderEnds(t *testing.T) {
	const start = LSN(7 * testSegmentSize)
	pages := func(data []byte, page int) []byte { return data[page*testBlockSize:] }
	for name, test := range map[string]struct {
		build   func(w *walBuilder)
		break_  func(data []byte)
		problem string
		damaged bool
	}{
		"zeros": {
			build: func(w *walBuilder) { w.noop(100) }, problem: "nothing is written there",
		},
		"zero page": {
			build: func(w *walBuilder) { w.fillTo(start + testBlockSize) }, problem: "magic 0x0000 is not that of a WAL page",
		},
		"flipped bit": {
			build:   func(w *walBuilder) { w.noop(100); w.noop(100) },
			break_:  func(data []byte) { data[LongHeaderSize+104+50] ^= 1 },
			problem: "the record's checksum is wrong", damaged: true,
		},
		"flipped bit in the first record": {
			build:   func(w *walBuilder) { w.noop(100) },
			break_:  func(data []byte) { data[LongHeaderSize+50] ^= 1 },
			problem: "the record's checksum is wrong",
		},
		"old page": {
			build:   func(w *walBuilder) { w.fillTo(start + 4*testBlockSize) },
			break_:  func(data []byte) { pages(data, 2)[10] ^= 1 },
			problem: "the page is an old one",
		},
		"page of another version": {
			build:   func(w *walBuilder) { w.fillTo(start + 4*testBlockSize) },
			break_:  func(data []byte) { pages(data, 2)[0] = 0x0D },
			problem: "the page is of another version of PostgreSQL",
		},
		"unknown flags": {
			build:   func(w *walBuilder) { w.fillTo(start + 4*testBlockSize) },
			break_:  func(data []byte) { pages(data, 2)[2] |= 0x10 },
			problem: "unknown flags 0x0010",
		},
		"long header in the middle": {
			build: func(w *walBuilder) { w.fillTo(start + 4*testBlockSize) },
			break_: func(data []byte) {
				copy(pages(data, 2)[24:], data[24:40])
				pages(data, 2)[2] |= 2
			},
			problem: "the page's header is of the wrong form",
		},
		"continuation of nothing": {
			build:   func(w *walBuilder) { w.fillTo(start + 4*testBlockSize) },
			break_:  func(data []byte) { pages(data, 2)[2] |= 1 },
			problem: "the page continues a record that didn't begin",
		},
		"not continued": {
			build:   func(w *walBuilder) { w.noop(100); w.noop(2 * testBlockSize) },
			break_:  func(data []byte) { pages(data, 1)[2] &^= 1 },
			problem: "the record isn't continued on the next page", damaged: true,
		},
		"continued by another": {
			build:   func(w *walBuilder) { w.noop(100); w.noop(2 * testBlockSize) },
			break_:  func(data []byte) { pages(data, 1)[16]++ },
			problem: "the record is continued by one of another length", damaged: true,
		},
		"wrong link": {
			build:   func(w *walBuilder) { w.noop(100); w.prev--; w.noop(100) },
			problem: "the record's link to its predecessor is wrong",
		},
		"link forward": {
			build:   func(w *walBuilder) { w.prev = start + LongHeaderSize; w.noop(100) },
			problem: "the record's link to its predecessor points forward",
		},
		"short length": {
			build:   func(w *walBuilder) { w.noop(100); w.noop(100) },
			break_:  func(data []byte) { data[LongHeaderSize+104] = 23 },
			problem: "a record can't have 23 bytes",
		},
		"huge length": {
			build:   func(w *walBuilder) { w.noop(100); w.noop(100) },
			break_:  func(data []byte) { data[LongHeaderSize+104+3] = 0xFF },
			problem: "a record can't have 4278190180 bytes",
		},
		"cut header with a short length": {
			build: func(w *walBuilder) {
				w.fillTo(start + testBlockSize - 8)
				w.noop(100)
			},
			break_:  func(data []byte) { data[testBlockSize-8] = 23 },
			problem: "a record can't have 23 bytes",
		},
		"cut header with a wrong link": {
			build: func(w *walBuilder) {
				w.fillTo(start + testBlockSize - 8)
				w.prev -= 8
				w.noop(100)
			},
			problem: "the record's link to its predecessor is wrong",
		},
		"unknown resource manager": {
			build:   func(w *walBuilder) { w.noop(100); w.raw(22, 0, 0, nil) },
			problem: "the record is of an unknown resource manager",
		},
		"custom resource manager before 15": {
			build:   func(w *walBuilder) { w.magic = 0xD10D; w.noop(100); w.raw(128, 0, 0, nil) },
			problem: "the record is of an unknown resource manager",
		},
		"custom resource manager": {
			build: func(w *walBuilder) { w.noop(100); w.raw(128, 0, 0, nil) }, problem: "nothing is written there",
		},
		"older timeline": {
			build: func(w *walBuilder) {
				w.timeline = 3
				w.fillTo(start + testBlockSize)
				w.timeline = 2
				w.noop(100)
			},
			problem: "the page goes back to timeline 2 from timeline 3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWAL(start)
			test.build(w)
			data := w.segment(t)
			if test.break_ != nil {
				test.break_(data)
			}
			_, _, err := readAll(t, bytes.NewReader(data))
			var invalid *InvalidError
			if !errors.As(err, &invalid) || !bytes.Contains([]byte(invalid.Problem), []byte(test.problem)) {
				t.Fatalf("got %v, want %q", err, test.problem)
			}
			if invalid.Damaged != test.damaged {
				t.Errorf("damaged is %t", invalid.Damaged)
			}
		})
	}
}

// TestReaderAcrossSegments refuses a segment that doesn't follow.
func TestReaderAcrossSegments(t *testing.T) {
	build := func() *walBuilder {
		w := newWAL(testSegmentSize)
		w.fillTo(w.start + testSegmentSize)
		return w
	}
	foreign := build()
	foreign.systemID++
	foreign.noop(100)
	older := build()
	older.timeline = 2
	for name, second := range map[string][]byte{
		"another cluster": foreign.segments()[1],
		"the same again":  older.segments()[0],
	} {
		_, _, err := readAll(t, io.MultiReader(bytes.NewReader(build().segments()[0]), bytes.NewReader(second)))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.LSN != 2*testSegmentSize {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestReaderAllocations reads without allocating per record.
func TestReaderAllocations(t *testing.T) {
	w := newWAL(testSegmentSize)
	for range 3000 {
		w.noop(100)
		w.commit(1, 1)
	}
	data := padded(w.data)
	fixed := testing.AllocsPerRun(5, func() {
		if _, err := NewReader(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	})
	var contents Contents
	all := testing.AllocsPerRun(5, func() {
		r, err := NewReader(bytes.NewReader(data))
		for err == nil {
			var record *Record
			if record, err = r.Next(); err == nil {
				if record.Resource == ResourceTransaction {
					err = record.Decode(&contents)
				}
			}
		}
	})
	if all > fixed+20 {
		t.Errorf("6,000 records cost %.0f allocations, opening the reader alone %.0f", all, fixed)
	}
}
