package archive

import (
	"context"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Missing lists which of the segments that hold the WAL from one LSN up to
// another are not in the repository, on the way that history describes. A
// segment that holds only the byte at to itself isn't needed. It lists the
// range and reads no segment.
func Missing(ctx context.Context, r *repo.Repository, systemID uint64, history wal.History, from, to wal.LSN, segmentSize uint64) ([]wal.FileName, error) {
	if to <= from {
		return nil, nil
	}
	var missing []wal.FileName
	first, last := wal.SegmentNumber(from, segmentSize), wal.SegmentNumber(to-1, segmentSize)
	for first <= last {
		// One listing for each run of segments of one timeline.
		timeline := history.SegmentTimeline(first, segmentSize)
		end := first
		for end < last && history.SegmentTimeline(end+1, segmentSize) == timeline {
			end++
		}
		present, err := segments(ctx, r, systemID, timeline, first, end, segmentSize)
		if err != nil {
			return nil, err
		}
		for n := first; n <= end; n++ {
			if !present[n] {
				missing = append(missing, wal.SegmentName(timeline, n, segmentSize))
			}
		}
		first = end + 1
	}
	return missing, nil
}

// segments lists which segments of a timeline, from number first to last, are
// in the repository.
func segments(ctx context.Context, r *repo.Repository, systemID uint64, timeline wal.TimelineID, first, last, segmentSize uint64) (map[uint64]bool, error) {
	present := make(map[uint64]bool)
	for file, err := range r.ListWAL(ctx, systemID, wal.SegmentName(timeline, first, segmentSize)) {
		if err != nil {
			return nil, err
		}
		n := file.Name.SegmentNumber(segmentSize)
		if file.Name.Timeline != timeline || n > last {
			break
		}
		if file.Name.Kind == wal.KindSegment {
			present[n] = true
		}
	}
	return present, nil
}
