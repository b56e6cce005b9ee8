package wal

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseHistory(t *testing.T) {
	data := "# a comment\n" +
		"1\t0/3000148\tno recovery target specified\n" +
		"\n   \t\n" +
		"  2\t1/A0000000\tbefore 2026-11-20 14:25:00+00\r\n" +
		"5 1/A0000000\n" +
		"  # indented\n"
	got, err := ParseHistory(7, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	want := History{7, []HistoryEntry{
		{1, 0x3000148, "no recovery target specified"},
		{2, 0x1A0000000, "before 2026-11-20 14:25:00+00"},
		{5, 0x1A0000000, ""},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if parent, ok := got.Parent(); !ok || parent != want.Entries[2] {
		t.Errorf("Parent() = %+v, %t", parent, ok)
	}
	again, err := ParseHistory(7, got.Format())
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for name, test := range map[string]struct{ data, want string }{
		"no number":      {"one\t0/3000148\tx\n", "line 1: \"one\" is not a timeline id"},
		"no position":    {"1\n", "line 1: parse LSN"},
		"bad position":   {"1\t0-3000148\n", "line 1: parse LSN"},
		"too large":      {"4294967296\t0/1\n", "is not a timeline id"},
		"negative":       {"-1\t0/1\n", "is not a timeline id"},
		"zero":           {"0\t0/1\n", "doesn't come after"},
		"same twice":     {"1\t0/1\n1\t0/2\n", "line 2: timeline 1 doesn't come after timeline 1"},
		"decreasing":     {"2\t0/1\n1\t0/2\n", "line 2: timeline 1 doesn't come after timeline 2"},
		"itself":         {"1\t0/1\n9\t0/2\n", "line 2: timeline 9 can't be an ancestor of timeline 9"},
		"from later":     {"10\t0/1\n", "line 1: timeline 10 can't be an ancestor of timeline 9"},
		"binary garbage": {"\x00\xff\xfe", "is not a timeline id"},
	} {
		_, err := ParseHistory(9, []byte(test.data))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "00000009.history") {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
	}
}

// TestPath holds positions and segments along forks (fault 31, rule 14).
func TestPath(t *testing.T) {
	const mib16 = 16 << 20
	straight := History{Timeline: 4, Entries: []HistoryEntry{
		{1, 0x3000148, ""}, {2, 0x5000000, ""}, {3, 0x5000000, ""},
	}}
	// Timeline 3 comes from a recovery along timeline 2 that ended before
	// timeline 2 began.
	back := History{Timeline: 3, Entries: []HistoryEntry{{1, 0x7000100, ""}, {2, 0x4000200, ""}}}
	alone := History{Timeline: 1}

	for _, test := range []struct {
		history History
		lsn     LSN
		owner   TimelineID // of the byte
		segment TimelineID // in whose name its segment is archived
	}{
		{alone, 0, 1, 1},
		{alone, 1 << 60, 1, 1},
		{straight, 0x2FFFFFF, 1, 1},
		{straight, 0x3000000, 1, 2},
		{straight, 0x3000147, 1, 2},
		{straight, 0x3000148, 2, 2},
		{straight, 0x4FFFFFF, 2, 2},
		{straight, 0x5000000, 4, 4},
		{back, 0x3FFFFFF, 1, 1},
		{back, 0x4000000, 1, 3},
		{back, 0x40001FF, 1, 3},
		{back, 0x4000200, 3, 3},
		{back, 0x7000200, 3, 3},
	} {
		if got := test.history.TimelineAt(test.lsn); got != test.owner {
			t.Errorf("history %d: byte %s belongs to timeline %d, want %d", test.history.Timeline, test.lsn, got, test.owner)
		}
		if got := test.history.SegmentTimeline(SegmentNumber(test.lsn, mib16), mib16); got != test.segment {
			t.Errorf("history %d: segment of %s is timeline %d's, want %d", test.history.Timeline, test.lsn, got, test.segment)
		}
		for tli := TimelineID(1); tli <= 5; tli++ {
			if got := test.history.Contains(tli, test.lsn); got != (tli == test.owner) {
				t.Errorf("history %d: Contains(%d, %s) = %t", test.history.Timeline, tli, test.lsn, got)
			}
		}
	}
	for tli, want := range map[TimelineID]LSN{1: 0, 2: 0x3000148, 3: 0x5000000, 4: 0x5000000} {
		if begin, ok := straight.Begin(tli); !ok || begin != want {
			t.Errorf("timeline %d begins at %s, %t, want %s", tli, begin, ok, want)
		}
	}
	if _, ok := straight.Begin(5); ok {
		t.Error("timeline 5 begins on a path that doesn't have it")
	}
	if _, ok := alone.Parent(); ok {
		t.Error("timeline 1 has a parent")
	}
}
