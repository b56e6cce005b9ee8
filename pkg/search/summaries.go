package search

import (
	"context"
	"errors"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// narrow plans which of the archived segments to download: those that their
// summaries don't exclude. It reads a block of summaries at a time.
func (s *searcher) narrow(ctx context.Context, numbers []uint64) error {
	for len(numbers) > 0 {
		block := numbers[0] / repo.RollupSegments
		end := 1
		for end < len(numbers) && numbers[end]/repo.RollupSegments == block {
			end++
		}
		summaries, err := s.summaries(ctx, block, numbers[:end])
		if err != nil {
			return err
		}
		for i, n := range numbers[:end] {
			if s.matters(summaries[i]) {
				ending := summaries[i].Ending
				s.plan = append(s.plan, planned{number: n, whole: ending != 0 && ending != wal.EndingCrossing})
			}
		}
		numbers = numbers[end:]
	}
	return nil
}

// summaries returns the summaries of segments of one block; a segment without
// one has the zero summary.
func (s *searcher) summaries(ctx context.Context, block uint64, numbers []uint64) ([]wal.Summary, error) {
	first := block * repo.RollupSegments
	timeline := s.query.History.SegmentTimeline(first, s.segmentSize)
	complete := s.query.History.SegmentTimeline(first+repo.RollupSegments-1, s.segmentSize) == timeline
	for i := uint64(0); complete && i < repo.RollupSegments; i++ {
		complete = s.archived[first+i]
	}
	if complete && len(numbers) > 1 {
		rollup, err := s.repository.Rollup(ctx, s.query.SystemID, timeline, block, s.segmentSize)
		switch {
		case err == nil:
			s.report.Rollups++
			summaries := make([]wal.Summary, 0, len(numbers))
			for _, n := range numbers {
				summaries = append(summaries, rollup.Segments[n-first])
			}
			return summaries, nil
		case errors.Is(err, repo.ErrRollup):
			s.warn("%v: it is not used, the segments' own headers are", err)
		case !errors.Is(err, storage.ErrNotExist):
			return nil, err
		}
	}
	summaries, err := s.headers(ctx, numbers)
	if err == nil && complete && len(numbers) == repo.RollupSegments {
		s.writeRollup(ctx, &repo.Rollup{
			SystemID: s.query.SystemID, Timeline: timeline, SegmentSize: s.segmentSize, Block: block, Segments: summaries,
		})
	}
	return summaries, err
}

// headers reads the summaries in the headers of segments.
func (s *searcher) headers(ctx context.Context, numbers []uint64) ([]wal.Summary, error) {
	names := make([]wal.FileName, len(numbers))
	for i, n := range numbers {
		names[i] = s.name(n)
	}
	s.report.Headers += len(numbers)
	return archive.Summaries(ctx, s.repository, s.query.SystemID, names, s.segmentSize)
}

// writeRollup saves the next search the reading of so many headers. That it
// can't is no failure of this one.
func (s *searcher) writeRollup(ctx context.Context, rollup *repo.Rollup) {
	err := s.repository.WriteRollup(ctx, rollup)
	switch {
	case err == nil:
		s.report.Written++
	case errors.Is(err, storage.ErrDenied):
		s.options.Log.Debug("no roll-up is written, which would make the next search quicker", "error", err)
	default:
		s.options.Log.Info("no roll-up is written, which would make the next search quicker", "error", err)
	}
}

// matters tells whether a segment can hold what is looked for. One without a
// summary can, and so can one with damage, which is to be said.
func (s *searcher) matters(summary wal.Summary) bool {
	q := &s.query
	if !summary.Ending.Complete() || q.Facts == Checkpoints {
		return true
	}
	if (q.Facts == Transactions || q.Facts == Dropped) && (q.endsHere(summary) || mayBe(summary.Tail, wal.ResourceTransaction)) {
		return true
	}
	return q.Facts == RestorePoints && (q.hasPoint(summary) || mayBe(summary.Tail, wal.ResourceXLOG))
}

// endsHere tells whether one of the transactions that are looked for can end
// in a segment. Commit times aren't ordered, so only the span of all of the
// segment's times excludes it.
func (q *Query) endsHere(summary wal.Summary) bool {
	switch {
	case q.timed() && (summary.Stops == 0 || !q.intersects(summary.MinTime, summary.MaxTime)):
		return false
	case q.Facts != Transactions:
		return summary.Commits > 0
	}
	return summary.Records > 0 // PREPARE isn't counted by itself
}

// hasPoint tells whether a segment has one of the restore points looked for.
func (q *Query) hasPoint(summary wal.Summary) bool {
	if !q.timed() || summary.RestorePointCount > uint64(len(summary.RestorePoints)) {
		return summary.RestorePointCount > 0
	}
	for _, point := range summary.RestorePoints {
		if q.holds(point.Time) {
			return true
		}
	}
	return false
}

// resourceOffset is where a record's header names its resource manager
// (xl_rmid).
const resourceOffset = 17

// mayBe tells whether the record that a segment boundary cuts can be one of a
// resource manager.
func mayBe(tail wal.Fragment, resource wal.ResourceManager) bool {
	return tail.Length > 0 && (tail.Length <= resourceOffset || wal.ResourceManager(tail.Start[resourceOffset]) == resource)
}
