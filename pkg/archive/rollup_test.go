package archive

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// summarized archives a segment of which only the header says anything: that
// it has two records, and follows the segment before it.
func (s *site) summarized(t *testing.T, n uint64, known bool) {
	t.Helper()
	name := wal.SegmentName(1, n, segmentSize)
	start, at := name.Start(segmentSize), wal.TimestampOf(time.Unix(1e9+int64(n), 0))
	h := repo.Header(cluster, name)
	if known {
		h.Fields = wal.Summary{
			Records: 2, First: start + 40, Prev: start - segmentSize + 80, Last: start + 80, End: start + segmentSize,
			Ending: wal.EndingSwitch, Commits: 1, Stops: 1, MinTime: at, MaxTime: at,
		}.Fields()
	}
	var sealed bytes.Buffer
	w, err := s.Sealer.Seal(&sealed, h)
	if err == nil {
		_, err = w.Write([]byte("wal"))
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		_, err = s.store.Put(t.Context(), s.FileKey(cluster, name), &sealed)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rolledUp lists the roll-ups by their first segment and length.
func (s *site) rolledUp(t *testing.T) (list []string) {
	t.Helper()
	keys, err := s.Rollups(t.Context(), cluster, 1, 0, segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		name, err := wal.ParseFileName(key[strings.LastIndex(key, "/")+1:][:24])
		if err != nil {
			t.Fatal(err)
		}
		length := repo.RollupSegments
		if strings.HasSuffix(key, "-16.zst") {
			length = repo.SmallRollupSegments
		}
		list = append(list, fmt.Sprintf("%d+%d", name.SegmentNumber(segmentSize), length))
	}
	slices.Sort(list)
	return list
}

// TestWriteRollups follows an archive as it grows: small roll-ups at its end,
// one large one when a block is whole, made from the small ones, and none where
// something is missing. No identity is there.
func TestWriteRollups(t *testing.T) {
	s := newSite(t, true)
	s.Opener.Identities = nil
	archive := func(from, through uint64) {
		for n := from; n <= through; n++ {
			s.summarized(t, n, n != 550)
		}
	}
	// The request that lists is none of Get.
	step := func(first, last uint64, written, gets int, want ...string) {
		t.Helper()
		s.store.gets = 0
		n, err := WriteRollups(t.Context(), s.Repository, cluster, 1, segmentSize, first, last)
		if err != nil || n != written || s.store.gets != gets {
			t.Errorf("segments %d to %d: %d roll-ups, %d requests, %v; want %d, %d", first, last, n, s.store.gets, err, written, gets)
		}
		slices.Sort(want)
		if got := s.rolledUp(t); !slices.Equal(got, want) {
			t.Errorf("segments %d to %d: there are %v, want %v", first, last, got, want)
		}
	}
	archive(257, 300)
	step(1, 300, 1, 16, "272+16") // 256 is missing
	step(1, 300, 0, 0, "272+16")
	archive(256, 256)
	archive(301, 510)
	step(290, 510, 14, 14*16, "256+16", "272+16", "288+16", "304+16", "320+16", "336+16", "352+16", "368+16", "384+16", "400+16",
		"416+16", "432+16", "448+16", "464+16", "480+16")
	archive(511, 511)
	archive(512, 575)
	all := append(s.rolledUp(t), "256+256", "512+16", "528+16", "560+16")
	step(505, 575, 4, 15+16+4*16, all...) // 550 says nothing, which makes 544+16 impossible

	block, err := s.Rollup(t.Context(), cluster, 1, 1, segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	if total, err := block.Total(); err != nil || total.Commits != repo.RollupSegments || total.MaxTime != wal.TimestampOf(time.Unix(1e9+511, 0)) {
		t.Errorf("the large one says %+v, %v", total, err)
	}
}

// TestWriteRollupsFails: what can't be read or written is said.
func TestWriteRollupsFails(t *testing.T) {
	s := newSite(t, false)
	for n := uint64(16); n < 32; n++ {
		s.summarized(t, n, true)
	}
	s.store.get = func(string) error { return storage.ErrDenied }
	if n, err := WriteRollups(t.Context(), s.Repository, cluster, 1, segmentSize, 16, 31); n != 0 || !errors.Is(err, storage.ErrDenied) {
		t.Errorf("%d roll-ups, %v; want the storage's refusal", n, err)
	}
}
