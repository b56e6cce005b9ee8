package archive

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/pkg/wal/waltest"
)

// TestPartialCopies is fault 32: servers hand over different amounts of the
// segment in which a timeline ended. What the repository has is a success; what it
// hasn't, or may not have, is kept beside it; and another branch is a conflict.
func TestPartialCopies(t *testing.T) {
	name := parse(t, first)
	one, two, three, other := []byte("one"), []byte("two, longer"), []byte("three"), []byte("not one")
	const beside, conflict = "beside", "conflict"
	for what, c := range map[string]struct {
		there, here    [][]byte
		sealed, opened string // what becomes of it without an identity, and with one; "" where it is there
	}{
		"less":               {[][]byte{one, two, three}, [][]byte{one, two}, beside, ""},
		"more":               {[][]byte{one}, [][]byte{one, two}, beside, beside},
		"as much":            {[][]byte{one, two}, [][]byte{one, two}, "", ""},
		"nothing":            {[][]byte{one, two}, nil, "", ""},
		"nothing before":     {nil, [][]byte{one}, beside, beside},
		"all of it":          {[][]byte{one}, [][]byte{one, two, nil}, beside, beside},
		"less of another":    {[][]byte{other, two, three}, [][]byte{one, two}, beside, conflict}, // it can't be known
		"more of another":    {[][]byte{other}, [][]byte{one, two}, conflict, conflict},
		"as much of another": {[][]byte{one, three}, [][]byte{one, []byte("eerht")}, conflict, conflict},
	} {
		for _, readable := range []bool{false, true} {
			s := newSite(t, true)
			there, _ := filled(name, 0, c.there...)
			if _, err := s.push(t, s.write(t, first+".partial", there)); err != nil {
				t.Fatal(err)
			}
			want := c.opened
			if !readable {
				s.Opener.Identities, want = nil, c.sealed
			}
			here, last := filled(name, 0, c.here...)
			path := s.write(t, first, here) // a standby's, or one that a promotion renamed
			if what == "all of it" {
				path = s.write(t, first+".partial", here)
			}
			for i := range 2 {
				var log bytes.Buffer
				pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Standby: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
				isBeside := pushed.Name.Offset > 0
				if (want == conflict) != errors.Is(err, ErrConflict) || want != conflict && (err != nil || isBeside != (want == beside)) {
					t.Errorf("%s, readable %t: %+v, %v; want %q", what, readable, pushed, err, want)
				}
				if err == nil && pushed.Already != (want == "" || i > 0) {
					t.Errorf("%s, readable %t: the push %d says %+v", what, readable, i, pushed)
				}
				if isBeside != strings.Contains(log.String(), "kept beside") {
					t.Errorf("%s, readable %t: %+v, the log is %s", what, readable, pushed, log.String())
				}
			}
			if want == beside && readable {
				s.checkBeside(t, name, last, there, here)
			}
		}
	}
}

// TestPartialCopiesOfHead: a copy may have the end of a record alone, which began
// in the segment before.
func TestPartialCopiesOfHead(t *testing.T) {
	name := parse(t, first)
	start := name.Start(segmentSize)
	copyOf := func(fill byte, padding string, more bool) []byte {
		w := waltest.Writer{SystemID: cluster, SegmentSize: segmentSize, Timeline: name.Timeline, Start: start - segmentSize}
		for w.Position() < start-400 {
			w.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 100)) // XLOG_NOOP
		}
		w.Record(wal.ResourceXLOG, 0x20, 0, bytes.Repeat([]byte{fill}, 1000))
		if more {
			w.Record(wal.ResourceXLOG, 0x20, 0, []byte("more"))
		}
		return append(w.Data[segmentSize:], bytes.Repeat([]byte(padding), 2*segmentSize-len(w.Data))...)
	}
	head, more := copyOf(1, "\x00", false), copyOf(1, "\x00", true)
	for what, c := range map[string]struct {
		there, here    []byte
		beside, refuse bool
	}{
		"more":            {there: head, here: more, beside: true},
		"less":            {there: more, here: head},
		"as much":         {there: head, here: copyOf(1, "x", false)},
		"more of another": {there: copyOf(2, "\x00", false), here: more, refuse: true},
		"less of another": {there: copyOf(2, "\x00", true), here: head, refuse: true},
	} {
		s := newSite(t, true)
		if _, err := s.push(t, s.write(t, first+".partial", c.there)); err != nil {
			t.Fatal(err)
		}
		pushed, err := Push(t.Context(), s.Repository, s.write(t, first, c.here), PushOptions{SystemID: cluster, Standby: true, Log: slog.New(slog.DiscardHandler)})
		if errors.Is(err, ErrConflict) != c.refuse || !c.refuse && (err != nil || (pushed.Name.Offset > 0) != c.beside || pushed.Already == c.beside) {
			t.Errorf("%s: %+v, %v", what, pushed, err)
		}
	}
}

// checkBeside looks for both copies of a partial segment.
func (s *site) checkBeside(t *testing.T, name wal.FileName, last wal.LSN, there, here []byte) {
	t.Helper()
	summary, err := wal.Check(bytes.NewReader(here), wal.FileName{Kind: wal.KindPartial, Timeline: name.Timeline, Log: name.Log, Seg: name.Seg}, segmentSize, cluster)
	if err != nil || summary.Last != last {
		t.Fatalf("the copy's last record is at %s, want %s; %v", summary.Last, last, err)
	}
	name.Kind = wal.KindPartial
	end := uint32(summary.End - name.Start(segmentSize))
	for content, offset := range map[string]uint32{string(there): 0, string(here): end} {
		name.Offset = offset
		path, err := s.fetch(t, name.String(), FetchOptions{})
		if err != nil {
			t.Errorf("fetch %s: %v", name, err)
			continue
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s isn't the copy that was archived (%v)", name, err)
		}
	}
	// A copy whose WAL ends elsewhere isn't taken under that name.
	name.Offset = end - 8
	if _, err := s.push(t, s.write(t, name.String(), here)); !errors.Is(err, ErrRefused) {
		t.Errorf("push %s: %v", name, err)
	}
}
