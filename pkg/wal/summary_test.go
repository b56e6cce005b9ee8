package wal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// checkAll summarizes all segments of w, and checks that each survives being
// written into a context header.
func checkAll(t *testing.T, w *walBuilder) []Summary {
	t.Helper()
	var list []Summary
	for i, data := range w.segments() {
		s, err := Check(bytes.NewReader(data), w.name(i), testSegmentSize, testSystemID)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSummary(s.Fields())
		if err != nil {
			t.Fatal(err)
		}
		kept := s
		kept.Problem = ""
		if !reflect.DeepEqual(again, kept) {
			t.Fatalf("written and read again:\n%+v\nwas\n%+v", again, kept)
		}
		list = append(list, s)
	}
	return list
}

// TestSummaryModel holds the summaries of random WAL against what was written.
func TestSummaryModel(t *testing.T) {
	endings := map[Ending]int{}
	overwritten := 0
	for seed := range uint64(8) {
		w := randomWAL(rand.New(rand.NewPCG(seed, 2)), 5*testSegmentSize, 4)
		list := checkAll(t, w)
		for i, s := range list {
			from := w.start + LSN(i*testSegmentSize)
			compareSummary(t, fmt.Sprintf("seed %d, segment %d", seed, i), s, w, from)
			endings[s.Ending]++
			if s.Overwritten != 0 {
				overwritten++
			}
			if i == 0 || !list[i-1].Ending.Complete() {
				continue
			}
			if err := s.Follows(list[i-1]); err != nil {
				t.Errorf("seed %d: segment %d doesn't follow: %v", seed, i, err)
			}
		}
	}
	for _, ending := range []Ending{EndingSwitch, EndingCrossing, EndingOpen} {
		if endings[ending] == 0 {
			t.Errorf("no segment ended %s", ending)
		}
	}
}

// compareSummary computes what s must say from the records written.
func compareSummary(t *testing.T, what string, s Summary, w *walBuilder, from LSN) {
	t.Helper()
	to := from + testSegmentSize
	want := Summary{End: s.End, Ending: s.Ending, Problem: s.Problem, Head: s.Head, Tail: s.Tail, Overwritten: s.Overwritten,
		Transactions: Transactions{Known: true}}
	chain := sha256.New()
	for i, r := range w.records {
		if r.lsn < from || r.lsn >= to {
			continue
		}
		cut := i == len(w.records)-1 && !r.lost || i < len(w.records)-1 && w.records[i+1].lsn >= to
		if cut && s.Ending == EndingCrossing {
			want.Last = r.lsn
			if want.First == 0 {
				want.First, want.Prev = r.lsn, s.Prev
			}
			continue
		}
		if r.lost {
			continue
		}
		if want.First == 0 {
			want.First, want.Prev = r.lsn, r.prev
		}
		want.Records++
		want.Last = r.lsn
		chain.Write(append(r.data[:4:4], r.data[20:24]...))
		for _, at := range r.times {
			want.Commits++
			want.Stops++
			if want.Stops == 1 {
				want.MinTime, want.MaxTime = at, at
			}
			want.MinTime, want.MaxTime = min(want.MinTime, at), max(want.MaxTime, at)
			spanXIDs(&want.Transactions, r, want.Stops == 1)
		}
		if r.point != "" {
			want.RestorePointCount++
			want.RestorePoints = append(want.RestorePoints, RestorePoint{r.lsn, Timestamp(r.lsn - w.start), r.point})
		}
	}
	chain.Sum(want.Chain[:0])
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%s:\n%+v\nwant\n%+v", what, s, want)
	}
}

// spanXIDs widens a span of transaction ids by a record's; all of them are near
// to 0, which is in the middle of the circle.
func spanXIDs(t *Transactions, r builtRecord, first bool) {
	xid := int32(binary.LittleEndian.Uint32(r.data[4:]))
	least, most := min(int32(t.Least), xid), max(int32(t.Most), xid)
	if first {
		least, most = xid, xid
	}
	t.Least, t.Most = uint32(least), uint32(most)
}

// TestFollows refuses every segment but the one that comes next (rules 15
// and 20).
func TestFollows(t *testing.T) {
	build := func(seed byte) *walBuilder {
		w := newWAL(5 * testSegmentSize)
		w.fillTo(w.start + testSegmentSize - 200)
		w.raw(ResourceXLOG, infoNoop, 0, bytes.Repeat([]byte{seed}, 3000))
		w.fillTo(w.start + 2*testSegmentSize)
		w.noop(100)
		w.switchSegment()
		return w
	}
	one, two := checkAll(t, build(1)), checkAll(t, build(2))
	for i := 1; i < len(one); i++ {
		if err := one[i].Follows(one[i-1]); err != nil {
			t.Errorf("segment %d: %v", i, err)
		}
	}
	for name, test := range map[string]struct{ before, after Summary }{
		"the rest of another record": {one[0], two[1]},
		"not the next":               {one[0], one[2]},
		"itself":                     {one[0], one[0]},
		"backwards":                  {one[1], one[0]},
		"behind the end of WAL":      {Summary{Ending: EndingOpen, End: one[0].End}, one[1]},
	} {
		if err := test.after.Follows(test.before); err == nil {
			t.Errorf("%s: it follows", name)
		}
	}
}

// TestFollowsCutHeader joins records whose header itself is cut.
func TestFollowsCutHeader(t *testing.T) {
	for room := 8; room <= 64; room += 8 {
		for _, length := range []int{24, 26, 32, 60, 100, 9000} {
			if length <= room {
				continue
			}
			w := newWAL(5 * testSegmentSize)
			w.fillTo(w.start + testSegmentSize - LSN(room))
			w.noop(length)
			w.noop(100)
			w.switchSegment()
			list := checkAll(t, w)
			if err := list[1].Follows(list[0]); err != nil {
				t.Errorf("%d of %d bytes before the boundary: %v", room, length, err)
			}
			broken := list[1]
			broken.Head.CRC ^= 1 << 7
			if err := broken.Follows(list[0]); err == nil {
				t.Errorf("%d of %d bytes before the boundary: a wrong checksum went unseen", room, length)
			}
		}
	}
}

// TestFollowsLongRecord joins a record that three segments share.
func TestFollowsLongRecord(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	w.noop(100)
	w.noop(2*testSegmentSize + 1000)
	w.noop(100)
	list := checkAll(t, w)
	if len(list) != 3 || list[1].First != 0 || list[1].Ending != EndingCrossing {
		t.Fatalf("%+v", list)
	}
	for i := 1; i < len(list); i++ {
		if err := list[i].Follows(list[i-1]); err != nil {
			t.Errorf("segment %d: %v", i, err)
		}
	}
	wrong := list[2]
	wrong.Head.Remaining++
	if err := wrong.Follows(list[1]); err == nil {
		t.Error("a rest of another length follows")
	}
}

// TestOverwrittenContRecord reads on behind a record that a crash left
// unfinished, inside a segment and across the boundary (rule 18).
func TestOverwrittenContRecord(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	w.noop(100)
	w.abandon(2 * testBlockSize) // inside
	w.fillTo(w.start + testSegmentSize - 400)
	lost := w.abandon(2 * testBlockSize) // across
	w.noop(100)
	w.switchSegment()
	list := checkAll(t, w)
	if list[0].Ending != EndingCrossing || list[0].Last != lost || list[0].Overwritten != 0 {
		t.Errorf("before: %+v", list[0])
	}
	if list[1].Overwritten != lost || list[1].Head.Length != 0 {
		t.Errorf("behind: %+v", list[1])
	}
	if err := list[1].Follows(list[0]); err != nil {
		t.Error(err)
	}
	other := list[1]
	other.Overwritten += 8
	if err := other.Follows(list[0]); err == nil {
		t.Error("a segment that overwrites another record follows")
	}
	other = list[1]
	other.Prev += 8
	if err := other.Follows(list[0]); err == nil {
		t.Error("a segment behind another record follows")
	}
}

// TestSameWAL compares copies of a segment (rule 20).
func TestSameWAL(t *testing.T) {
	build := func(last byte, records int) Summary {
		w := newWAL(5 * testSegmentSize)
		for range records {
			w.noop(100)
		}
		w.raw(ResourceXLOG, infoNoop, 0, []byte{last})
		data := w.segment(t)
		data[len(data)-1] = last // behind the end
		s, err := Check(bytes.NewReader(data), w.name(0), testSegmentSize, 0)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := build(1, 10)
	w := newWAL(5 * testSegmentSize)
	for range 10 {
		w.noop(100)
	}
	w.raw(ResourceXLOG, infoNoop, 0, []byte{1})
	differs, err := Check(bytes.NewReader(w.segment(t)), w.name(0), testSegmentSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !s.SameWAL(differs) {
		t.Error("copies that differ behind the last record aren't the same")
	}
	if s.SameWAL(build(2, 10)) {
		t.Error("another last record is the same WAL")
	}
	if s.SameWAL(build(1, 11)) || build(1, 11).SameWAL(s) {
		t.Error("a prefix is the same WAL")
	}
}

// TestRestorePointBounds keeps a summary small, whatever it lists.
func TestRestorePointBounds(t *testing.T) {
	for name, test := range map[string]struct {
		point  string
		listed int
	}{
		"short":    {"a", MaxRestorePoints},
		"long":     {strings.Repeat("x", 63), MaxRestorePoints},
		"escaping": {strings.Repeat("\x01", 63), 28},
	} {
		w := newWAL(5 * testSegmentSize)
		for i := range 100 {
			w.restorePoint(test.point, Timestamp(i))
		}
		s := checkAll(t, w)[0]
		if s.RestorePointCount != 100 || len(s.RestorePoints) != test.listed {
			t.Errorf("%s: %d of %d restore points listed, want %d", name, len(s.RestorePoints), s.RestorePointCount, test.listed)
		}
		size := 0
		for _, field := range s.Fields() {
			size += len(field.Key) + len(field.Value) + 2
		}
		if size > 12<<10 {
			t.Errorf("%s: the summary has %d bytes", name, size)
		}
	}
}

func TestParseSummary(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	w.noop(100)
	w.commit(7, TimestampOf(time.Date(2026, 11, 20, 14, 25, 0, 123456000, time.UTC)))
	w.restorePoint("before\nit", 0)
	w.parameters(200, 8, 10, 0, 64, 0)
	w.noop(2 * testSegmentSize)
	fields := checkAll(t, w)[0].Fields()

	if s, err := ParseSummary([]Field{{"name", "x"}}); err != nil || s.Ending != 0 || s.Fields() != nil {
		t.Errorf("without a summary: %+v, %v", s, err)
	}
	if s, err := ParseSummary(append(fields, Field{"wal.later", "1"}, Field{"name", "x"})); err != nil || s.Ending == 0 {
		t.Errorf("with other fields: %+v, %v", s, err)
	}
	if _, err := ParseSummary(append(fields, fields[0])); err == nil {
		t.Error("a field that is there twice was accepted")
	}
	for i, field := range fields {
		rest := append(append([]Field(nil), fields[:i]...), fields[i+1:]...)
		_, err := ParseSummary(rest)
		optional := field.Key == "wal.tail" || field.Key == "wal.xids" || field.Key == "wal.demands" || strings.HasPrefix(field.Key, "wal.restore_point.")
		if (err == nil) != optional {
			t.Errorf("without %s: %v", field.Key, err)
		}
		for _, value := range []string{"", "x", field.Value + " ", " " + field.Value, "-1", strings.Repeat("9", 40)} {
			broken := append([]Field(nil), fields...)
			broken[i].Value = value
			if _, err := ParseSummary(broken); err == nil {
				t.Errorf("%s = %q was accepted", field.Key, value)
			} else if !strings.Contains(err.Error(), field.Key) {
				t.Errorf("%s = %q: %v", field.Key, value, err)
			}
		}
	}
}

// TestTablespaces lists where tablespaces are created, whole records and one
// that crosses a boundary.
func TestTablespaces(t *testing.T) {
	create := func(path string) []byte { return append([]byte{0xA4, 6, 0, 0}, path+"\x00"...) }
	w := newWAL(5 * testSegmentSize)
	first := w.record(ResourceTablespace, 0x00, 700, create("/srv/\"fast\"\n"))
	w.record(ResourceTablespace, 0x00, 700, create("")) // in place
	w.record(ResourceTablespace, 0x10, 700, []byte{0xA4, 6, 0, 0})
	w.fillTo(6*testSegmentSize - 32)
	crossing := w.record(ResourceTablespace, 0x00, 701, create("/srv/crosses"))
	w.fillTo(7*testSegmentSize - 32)
	w.record(ResourceTablespace, 0x00, 702, create("/srv/"+strings.Repeat("x", 200))) // too long to be joined
	for range 20 {
		w.record(ResourceTablespace, 0x00, 703, create("/srv/"+strings.Repeat("y", 200)))
	}
	w.noop(100)
	all := checkAll(t, w)
	for i, want := range []struct {
		listed int
		count  uint64
	}{{1, 1}, {0, 0}, {14, 20}} {
		s := all[i]
		if len(s.Tablespaces) != want.listed || s.TablespaceCount != want.count {
			t.Errorf("segment %d creates %d tablespaces and lists %d, want %d and %d", i, s.TablespaceCount, len(s.Tablespaces), want.count, want.listed)
		}
		if parsed, err := ParseSummary(s.Fields()); err != nil || !reflect.DeepEqual(parsed.Tablespaces, s.Tablespaces) || parsed.TablespaceCount != s.TablespaceCount {
			t.Errorf("segment %d is read back as %+v, %v", i, parsed.Tablespaces, err)
		}
	}
	total, err := all[0].Append(all[1])
	if err != nil {
		t.Fatal(err)
	}
	want := []CreatedTablespace{{first, "/srv/\"fast\"\n"}, {crossing, "/srv/crosses"}}
	if !reflect.DeepEqual(total.Tablespaces, want) || total.TablespaceCount != 2 {
		t.Errorf("two segments create %+v of %d, want %+v", total.Tablespaces, total.TablespaceCount, want)
	}
	if total, err = total.Append(all[2]); err != nil || total.TablespaceCount != 23 {
		t.Errorf("three segments create %d (%v), want 23", total.TablespaceCount, err)
	}
}

// TestDemands is rule 5: the greatest values count, wherever the record lies.
func TestDemands(t *testing.T) {
	w := newWAL(5 * testSegmentSize)
	w.parameters(200, 8, 10, 5, 64, 1)
	w.parameters(100, 16, 10, 0, 32, 2)
	w.fillTo(6*testSegmentSize - 32)
	w.parameters(300, 4, 10, 0, 64, 1) // crosses the boundary
	w.noop(100)
	w.fillTo(7 * testSegmentSize)
	w.parameters(10, 1, 1, 0, 10, 0)
	w.noop(2 * testSegmentSize)
	all := checkAll(t, w)
	for i, want := range []Demands{{200, 16, 10, 5, 64, false}, {}, {10, 1, 1, 0, 10, true}} {
		if got := all[i].Demands; got != want {
			t.Errorf("segment %d demands %+v, want %+v", i, got, want)
		}
		if parsed, err := ParseSummary(all[i].Fields()); err != nil || parsed.Demands != want {
			t.Errorf("segment %d is read back as %+v, %v", i, parsed.Demands, err)
		}
	}
	total := all[0]
	for i, want := range []Demands{{300, 16, 10, 5, 64, false}, {300, 16, 10, 5, 64, true}} {
		var err error
		if total, err = total.Append(all[i+1]); err != nil || total.Demands != want {
			t.Errorf("%d segments demand %+v, %v; want %+v", i+2, total.Demands, err, want)
		}
	}
	for _, text := range []string{"0/0/0/0/0", "1/2/3/4", "1/2/3/4/5/6", "1/2/3/4/05", "1/2/3/4/+5", "1/2/3/4/2147483648", "1/2/3/4/5/", "1/2/3/4/5/minimal/minimal"} {
		if d, err := parseDemands(text); err == nil {
			t.Errorf("%s was read as %+v", text, d)
		}
	}
}

func TestTimestamp(t *testing.T) {
	for text, at := range map[string]Timestamp{
		"2000-01-01T00:00:00.000000Z": 0,
		"2000-01-01T00:00:00.000001Z": 1,
		"1999-12-31T23:59:59.999999Z": -1,
		"2026-11-20T14:25:00.123456Z": 848499900123456,
		"9999-12-31T23:59:59.999999Z": 252455615999999999,
		"@252455616000000000":         252455616000000000,
		"@9223372036854775807":        1<<63 - 1,
		"@-9223372036854775808":       -1 << 63,
	} {
		if got := at.encode(); got != text {
			t.Errorf("%d is written %s, want %s", int64(at), got, text)
		}
		if got, err := parseTimestamp(text); err != nil || got != at {
			t.Errorf("%s is read %d, %v, want %d", text, int64(got), err, int64(at))
		}
	}
}
