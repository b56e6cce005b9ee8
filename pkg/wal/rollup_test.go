package wal

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// TestAppendModel rolls random WAL up, record by record that a boundary cuts.
func TestAppendModel(t *testing.T) {
	crossed := 0
	for seed := range uint64(8) {
		w := randomWAL(rand.New(rand.NewPCG(seed, 3)), 5*testSegmentSize, 4)
		list := checkAll(t, w)
		whole, segments := list[0], 1
		for _, next := range list[1:] {
			if !whole.Ending.Complete() {
				break
			}
			var err error
			if whole, err = whole.Append(next); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			segments++
		}
		want := Summary{Transactions: Transactions{Known: true}}
		end := w.start + LSN(segments*testSegmentSize)
		for i, r := range w.records {
			last := i == len(w.records)-1 || w.records[i+1].lsn >= end
			if r.lost || r.lsn >= end || last && whole.Ending == EndingCrossing {
				continue
			}
			want.Records++
			if r.lsn/testSegmentSize != (r.lsn+LSN(len(r.data))-1)/testSegmentSize {
				crossed++
			}
			for _, at := range r.times {
				want.stop(ActionCommit, at)
				spanXIDs(&want.Transactions, r, want.Stops == 1)
			}
			if r.point != "" {
				want.list(RestorePoint{r.lsn, Timestamp(r.lsn - w.start), r.point})
			}
		}
		got := Summary{
			Records: whole.Records, Commits: whole.Commits, Stops: whole.Stops, MinTime: whole.MinTime, MaxTime: whole.MaxTime,
			RestorePoints: whole.RestorePoints, RestorePointCount: whole.RestorePointCount, Transactions: whole.Transactions,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d:\n%+v\nwant\n%+v", seed, got, want)
		}
		if whole.First != list[0].First || whole.End != list[segments-1].End || whole.Ending != list[segments-1].Ending ||
			whole.Tail != list[segments-1].Tail || whole.Head != list[0].Head {
			t.Errorf("seed %d: the roll-up's ends aren't those of its parts: %+v", seed, whole)
		}
		again, err := ParseSummary(whole.Fields())
		whole.Problem = ""
		if err != nil || !reflect.DeepEqual(again, whole) {
			t.Errorf("seed %d: written and read again:\n%+v, %v\nwas\n%+v", seed, again, err, whole)
		}
	}
	if crossed == 0 {
		t.Error("no record crossed a boundary")
	}
}

// TestAppendCrossing counts the record that a boundary cuts, wherever it is
// cut (rule 18).
func TestAppendCrossing(t *testing.T) {
	const at = Timestamp(848499900123456)
	for room := LSN(8); room <= 96; room += 8 {
		for name, write := range map[string]func(w *walBuilder) LSN{
			"commit": func(w *walBuilder) LSN { return w.commit(7, at) },
			"commit with an origin": func(w *walBuilder) LSN {
				return w.raw(ResourceTransaction, 0x00, 7, wire(uint8(253), uint16(1), uint8(252), uint32(6), uint8(254), uint32(8), uint64(at)))
			},
			"restore point": func(w *walBuilder) LSN { return w.restorePoint(strings.Repeat("x", 63), at) },
			"block": func(w *walBuilder) LSN {
				return w.raw(10, 0, 7, wire(uint8(0), uint8(0x20), uint16(200), make([]byte, 216)))
			},
		} {
			w := newWAL(5 * testSegmentSize)
			w.fillTo(w.start + testSegmentSize - room)
			lsn := write(w)
			w.noop(100)
			w.switchSegment()
			list := checkAll(t, w)
			if list[0].Ending != EndingCrossing {
				continue // it fits
			}
			got, err := list[0].Append(list[1])
			if err != nil {
				t.Errorf("%s, %d bytes before the boundary: %v", name, room, err)
				continue
			}
			want := Summary{Records: uint64(len(w.records))}
			switch {
			case name == "restore point":
				want.list(RestorePoint{lsn, at, strings.Repeat("x", 63)})
			case name != "block":
				want.stop(ActionCommit, at)
			}
			if got.Records != want.Records || got.Commits != want.Commits || got.MaxTime != want.MaxTime ||
				!reflect.DeepEqual(got.RestorePoints, want.RestorePoints) || got.Tail.Length != 0 {
				t.Errorf("%s, %d bytes before the boundary: %+v", name, room, got)
			}
		}
	}
}

// TestAppendLongRecord joins a record of three segments, and checks it whole.
func TestAppendLongRecord(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	w.noop(100)
	w.noop(5*testSegmentSize/2 + 1000)
	w.noop(2 * testSegmentSize)
	w.noop(100)
	w.switchSegment()
	list := checkAll(t, w)
	whole := list[0]
	for _, next := range list[1:] {
		var err error
		if whole, err = whole.Append(next); err != nil {
			t.Fatal(err)
		}
	}
	if whole.Records != uint64(len(w.records)) || whole.Ending != EndingSwitch {
		t.Errorf("%+v", whole)
	}
	rest := list[1]
	for _, next := range list[2:] {
		var err error
		if rest, err = rest.Append(next); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := list[0].Append(rest); err != nil {
		t.Error(err)
	}
	bad := list[1]
	bad.Head.CRC ^= 1
	if one, err := list[0].Append(bad); err != nil {
		t.Errorf("a record of which the end isn't known: %v", err)
	} else if _, err := one.Append(list[2]); err == nil {
		t.Error("a wrong checksum of the middle went unseen")
	}
}

// TestAppendBounds lists no restore point behind one that there was no room
// for.
func TestAppendBounds(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	for i := range 5 {
		for range 30 - i {
			w.restorePoint("x", 1)
		}
		w.switchSegment()
	}
	list := checkAll(t, w)
	whole := list[0]
	for _, next := range list[1:] {
		var err error
		if whole, err = whole.Append(next); err != nil {
			t.Fatal(err)
		}
	}
	if whole.RestorePointCount != 30+29+28+27+26 || len(whole.RestorePoints) != MaxRestorePoints {
		t.Errorf("%d of %d restore points listed", len(whole.RestorePoints), whole.RestorePointCount)
	}
	for i, point := range whole.RestorePoints[1:] {
		if point.LSN <= whole.RestorePoints[i].LSN {
			t.Errorf("%s is listed behind %s", point.LSN, whole.RestorePoints[i].LSN)
		}
	}
	if _, err := list[0].Append(list[2]); err == nil {
		t.Error("a segment that isn't the next was appended")
	}
}
