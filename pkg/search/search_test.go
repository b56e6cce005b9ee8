package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// minutes is a time so long after noon.
func minutes(n int) time.Time { return noon.Add(time.Duration(n) * time.Minute) }

// long is so many segments with a commit a minute in each, whose xid is 1000
// and the minute. That of minute 300 was written with a clock 90 minutes ahead.
func long(t *testing.T, first uint64, count int) *site {
	s := newSite(t)
	v := newServer(first)
	for i := range count {
		at := minutes(i)
		if i == 300 {
			at = minutes(390)
		}
		v.commit(uint32(1000+i), at)
		if i == 310 {
			v.RestorePoint("here", at)
		}
		v.SwitchSegment()
		s.archive(t, v)
		v.forget()
	}
	return s
}

// TestTimeSpan reads whole only what the summaries don't exclude, and after
// the first search one roll-up in place of 256 headers.
func TestTimeSpan(t *testing.T) {
	s := long(t, 200, 600)
	query := Query{Facts: Transactions, FromTime: minutes(389), ToTime: minutes(391)}
	for i, want := range []struct{ heads, rollups, written int }{{600, 2, 2}, {600 - 512, 2, 0}} {
		s.store.reset()
		events, report := s.search(t, query)
		if got := xids(events); !slices.Equal(got, []uint32{1300, 1389, 1390, 1391}) {
			t.Errorf("search %d finds %d", i, got)
		}
		var names []string
		for _, n := range []uint64{500, 589, 590, 591} {
			names = append(names, wal.SegmentName(1, n, segmentSize).String())
		}
		if got := s.store.downloaded(); !slices.Equal(got, names) {
			t.Errorf("search %d downloads %q, want %q", i, got, names)
		}
		// One header more says the segment size.
		if s.store.heads != want.heads+1 || s.store.rollups != want.rollups || report.Written != want.written {
			t.Errorf("search %d reads %d headers and %d roll-ups, and writes %d; want %+v", i, s.store.heads, s.store.rollups, report.Written, want)
		}
		if report.Segments != 600 || report.Matching != 4 || report.Downloaded != 4 || len(report.Warnings) > 0 {
			t.Errorf("search %d reports %+v", i, report)
		}
	}
	s.store.reset()
	events, _ := s.search(t, Query{Facts: RestorePoints})
	if len(events) != 1 || events[0].Name != "here" || len(s.store.whole) != 1 {
		t.Errorf("restore points: %+v after %d downloads", events, len(s.store.whole))
	}
	s.store.reset()
	from := wal.LSN(400 * segmentSize)
	events, _ = s.search(t, Query{Facts: Transactions, FromLSN: from, ToLSN: from + 2*segmentSize - 1})
	if got := xids(events); !slices.Equal(got, []uint32{1200, 1201}) || len(s.store.whole) != 2 || s.store.heads > 3 {
		t.Errorf("a span of LSNs finds %d after %d downloads and %d headers", got, len(s.store.whole), s.store.heads)
	}
	s.store.reset()
	if events, _ = s.search(t, Query{Facts: Transactions, XID: 1555}); len(events) != 1 || !events[0].Time.Equal(minutes(555)) {
		t.Errorf("one transaction: %+v", events)
	}
	if s.store.most > DefaultConcurrency+1 || s.store.most < 2 {
		t.Errorf("%d segments were downloaded at once", s.store.most)
	}
	if s.store.open != 0 {
		t.Errorf("%d downloads are still open", s.store.open)
	}
}

// TestRollupOfNoUse: a roll-up that says what can't be is ignored, and said;
// without the right to write any, a search works as well.
func TestRollupOfNoUse(t *testing.T) {
	s := long(t, 256, 258)
	s.store.deny = true
	query := Query{Facts: Transactions, FromTime: minutes(100), ToTime: minutes(100)}
	events, report := s.search(t, query)
	if len(events) != 1 || report.Written != 0 || len(report.Warnings) > 0 {
		t.Errorf("without the right to write: %+v, %+v", events, report)
	}
	key := repo.RollupKey(cluster, 1, 1, segmentSize)
	if _, err := s.store.Store.Put(t.Context(), key, strings.NewReader("nonsense")); err != nil {
		t.Fatal(err)
	}
	events, report = s.search(t, query)
	if len(events) != 1 || report.Rollups != 0 || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], key) {
		t.Errorf("with nonsense for a roll-up: %+v, %+v", events, report)
	}
}

// TestSeams: a commit that a segment boundary cuts belongs to the segment
// where it starts, wherever the cut is (rule 18).
func TestSeams(t *testing.T) {
	for _, left := range []int{8, 16, 24, 32} {
		t.Run(fmt.Sprint(left), func(t *testing.T) {
			s := newSite(t)
			v := newServer(1)
			v.commit(10, minutes(0))
			v.SwitchSegment()
			v.commit(11, minutes(1))
			v.fill(left)
			if got := segmentSize - len(v.Data)%segmentSize; got != left {
				t.Fatalf("%d bytes are left", got)
			}
			lsn := v.commit(12, minutes(2))
			v.SwitchSegment()
			v.commit(13, minutes(3))
			v.SwitchSegment()
			s.archive(t, v)
			for _, query := range []Query{
				{FromTime: minutes(2), ToTime: minutes(2)},
				{FromLSN: lsn, ToLSN: lsn},
				{FromLSN: lsn - 8, ToLSN: lsn + 8},
				{XID: 12},
			} {
				query.Facts = Transactions
				events, report := s.search(t, query)
				if len(events) != 1 || events[0].LSN != lsn || events[0].XID != 12 || len(report.Warnings) > 0 {
					t.Errorf("%+v finds %+v, %q", query, events, report.Warnings)
				}
			}
		})
	}
}

// TestGap: WAL that is missing or damaged is said, and what is behind it is
// found.
func TestGap(t *testing.T) {
	s := newSite(t)
	v := newServer(1)
	for i := range 6 {
		v.commit(uint32(10+i), minutes(i))
		if i == 4 {
			lsn := v.commit(100, minutes(i))
			v.commit(101, minutes(i))
			v.Data[lsn-v.Start+20] ^= 1 // its checksum
		}
		v.SwitchSegment()
	}
	s.archive(t, v)
	if err := s.Store.Delete(t.Context(), s.FileKey(cluster, wal.SegmentName(1, 3, segmentSize))); err != nil {
		t.Fatal(err)
	}
	events, report := s.search(t, Query{Facts: Transactions})
	if got := xids(events); !slices.Equal(got, []uint32{10, 11, 13, 14, 15}) {
		t.Errorf("found are %d", got)
	}
	if len(report.Warnings) != 2 || !strings.Contains(report.Warnings[0], "000000010000000000000003") || !strings.Contains(report.Warnings[1], "000000010000000000000005") {
		t.Errorf("warned of %q", report.Warnings)
	}
}

// TestCorrupt: an object that is corrupt, in its context header or behind it, is
// said, and what is in the others is found, by a search for dropped tables, too.
func TestCorrupt(t *testing.T) {
	for _, facts := range []Facts{Transactions, Dropped} {
		s := newSite(t)
		v := newServer(1)
		for i := range 6 {
			v.commit(uint32(10+i), minutes(i))
			v.SwitchSegment()
		}
		s.archive(t, v)
		s.corrupt(t, 3, 100)
		s.corrupt(t, 5, -150)
		events, report := s.search(t, Query{Facts: facts})
		if got := xids(events); facts == Transactions && (slices.Contains(got, 12) || !slices.Equal(slices.DeleteFunc(got, func(xid uint32) bool { return xid == 14 }), []uint32{10, 11, 13, 15})) {
			t.Errorf("found are %d", got)
		}
		if len(report.Warnings) != 2 || !strings.Contains(report.Warnings[0], "000000010000000000000003: corrupt object") || !strings.Contains(report.Warnings[1], "000000010000000000000005: corrupt object") {
			t.Errorf("warned of %q", report.Warnings)
		}
	}
}

// TestTimelines: the path leads from a timeline to its child in the segment
// of the fork, which is the child's (rule 14).
func TestTimelines(t *testing.T) {
	s := newSite(t)
	v := newServer(1)
	v.commit(10, minutes(0))
	v.SwitchSegment()
	v.commit(11, minutes(1))
	fork := v.Position()
	child := newServer(uint64(v.Start)/segmentSize + 1)
	child.Timeline, child.Data, child.Prev = 2, bytes.Clone(v.Data[segmentSize:]), v.Prev
	v.commit(12, minutes(2))
	v.SwitchSegment()
	child.commit(22, minutes(2))
	child.SwitchSegment()
	s.archive(t, v)
	s.archive(t, child)
	history := wal.History{Timeline: 2, Entries: []wal.HistoryEntry{{Timeline: 1, Switch: fork, Reason: "test"}}}
	if _, err := s.Store.Put(t.Context(), repo.HistoryKey(cluster, 2), bytes.NewReader(history.Format())); err != nil {
		t.Fatal(err)
	}
	events, _ := s.search(t, Query{Facts: Transactions})
	if got := xids(events); !slices.Equal(got, []uint32{10, 11, 22}) || events[1].Timeline != 1 || events[2].Timeline != 2 {
		t.Errorf("along the newest path: %+v", events)
	}
	old, err := Path(t.Context(), s.Repository, cluster, 1)
	if err != nil {
		t.Fatal(err)
	}
	var found []Event
	if _, err := Run(t.Context(), s.Repository, Query{SystemID: cluster, History: old, Facts: Transactions}, Options{Log: quiet}, func(e Event) error {
		found = append(found, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := xids(found); !slices.Equal(got, []uint32{10, 11, 12}) {
		t.Errorf("along timeline 1: %d", got)
	}
}

// TestCheckpoints aren't in summaries, so all of the span is read.
func TestCheckpoints(t *testing.T) {
	s := newSite(t)
	v := newServer(1)
	for i := range 5 {
		if i%2 == 0 {
			v.checkpoint(minutes(i))
		}
		v.commit(uint32(10+i), minutes(i))
		v.SwitchSegment()
	}
	s.archive(t, v)
	events, _ := s.search(t, Query{Facts: Checkpoints, FromTime: minutes(1)})
	if len(events) != 2 || !events[0].Time.Equal(minutes(2)) || events[0].Redo != events[0].LSN || len(s.store.whole) != 5 {
		t.Errorf("found are %+v after %d downloads", events, len(s.store.whole))
	}
}

// TestEnds: an error of the caller or of the storage, and the end of the
// context, end a search and all that it began.
func TestEnds(t *testing.T) {
	s := long(t, 1, 20)
	history := wal.History{Timeline: 1}
	query := Query{SystemID: cluster, History: history, Facts: Transactions}
	stop := errors.New("stop")
	if _, err := Run(t.Context(), s.Repository, query, Options{Log: quiet}, func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error became %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, s.Repository, query, Options{Log: quiet}, func(Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the context's end became %v", err)
	}
	if s.store.open != 0 {
		t.Errorf("%d downloads are still open", s.store.open)
	}
	key := s.FileKey(cluster, wal.SegmentName(1, 10, segmentSize))
	body, _, err := s.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err == nil {
		err = s.Store.Delete(t.Context(), key)
	}
	if err == nil {
		_, err = s.Store.Put(t.Context(), key, bytes.NewReader(data[:len(data)-3]))
	}
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), s.Repository, query, Options{Log: quiet}, func(Event) error { return nil })
	if err != nil || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "00000001000000000000000A: ") || !strings.Contains(report.Warnings[0], "corrupt object") {
		t.Errorf("a segment that is cut short: %+v, %v", report, err)
	}
}
