package search

import (
	"context"
	"fmt"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// list notes which segments of the path are archived: those of the query's
// span, whose numbers it returns in order, and those before it that may be
// needed for names.
func (s *searcher) list(ctx context.Context) ([]uint64, error) {
	s.archived = make(map[uint64]bool)
	if err := s.findSegmentSize(ctx); err != nil {
		return nil, err
	}
	first, last := uint64(0), ^uint64(0)
	if s.query.FromLSN != 0 {
		first = wal.SegmentNumber(s.query.FromLSN, s.segmentSize)
	}
	if s.query.ToLSN != 0 {
		last = wal.SegmentNumber(s.query.ToLSN, s.segmentSize)
	}
	from := first
	if s.query.Facts == Dropped {
		from -= min(from, maxLookBack/s.segmentSize)
	}
	through := last
	if through != ^uint64(0) {
		through += wal.MaxSegmentSize / s.segmentSize // where the last record may end
	}
	var numbers []uint64
	for _, timeline := range timelines(s.query.History) {
		for file, err := range s.repository.ListWAL(ctx, s.query.SystemID, wal.SegmentName(timeline, from, s.segmentSize)) {
			if err != nil {
				return nil, err
			}
			n := file.Name.SegmentNumber(s.segmentSize)
			if file.Name.Timeline != timeline || file.Name.Kind == wal.KindTimelineHistory || n > through {
				break
			}
			if file.Name.Kind != wal.KindSegment || !file.Name.ValidFor(s.segmentSize) || s.name(n) != file.Name {
				continue
			}
			s.archived[n] = true
			if n < first || n > last {
				continue
			}
			if len(numbers) > 0 && numbers[len(numbers)-1]+1 != n {
				s.warn("the segments from %s up to %s aren't archived", s.name(numbers[len(numbers)-1]+1), s.name(n-1))
			}
			numbers = append(numbers, n)
		}
	}
	s.report.Segments = len(numbers)
	return numbers, nil
}

// timelines lists those of a path, the oldest first.
func timelines(h wal.History) []wal.TimelineID {
	var all []wal.TimelineID
	for _, e := range h.Entries {
		all = append(all, e.Timeline)
	}
	return append(all, h.Timeline)
}

// findSegmentSize reads it from the header of an archived segment: of the
// newest timeline of the path that has any.
func (s *searcher) findSegmentSize(ctx context.Context) error {
	all := timelines(s.query.History)
	for i := len(all) - 1; i >= 0; i-- {
		from := wal.SegmentName(all[i], 0, wal.MaxSegmentSize)
		for file, err := range s.repository.ListWAL(ctx, s.query.SystemID, from) {
			if err != nil {
				return err
			}
			if file.Name.Timeline != all[i] {
				break
			}
			if file.Name.Kind != wal.KindSegment {
				continue
			}
			header, err := archive.ReadHeader(ctx, s.repository, file.Key)
			if err != nil {
				return err
			}
			if s.segmentSize = uint64(header.PlainSize); !wal.ValidSegmentSize(s.segmentSize) {
				return fmt.Errorf("object %s: %w: its header says that it has %d bytes, which no segment has", file.Key, object.ErrCorrupt, header.PlainSize)
			}
			return nil
		}
	}
	return fmt.Errorf("no segment of timeline %d or its ancestors is in the repository: %w", uint32(s.query.History.Timeline), archive.ErrAbsent)
}
