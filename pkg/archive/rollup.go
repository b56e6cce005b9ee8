package archive

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// headersAtOnce is how many headers of segments are read at a time.
const headersAtOnce = 16

// Summaries reads what the headers of segments say of their WAL, several at a
// time, without an identity: nothing shows that it is genuine. A segment whose
// summary is missing or can't be true, or whose header is corrupt, has the zero
// one. An object that can't be read is an error.
func Summaries(ctx context.Context, r *repo.Repository, systemID uint64, names []wal.FileName, segmentSize uint64) ([]wal.Summary, error) {
	summaries := make([]wal.Summary, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(headersAtOnce)
	for i, name := range names {
		group.Go(func() error {
			header, err := ReadHeader(ctx, r, r.FileKey(systemID, name))
			if errors.Is(err, object.ErrCorrupt) {
				return nil
			}
			if err != nil {
				return err
			}
			if summary, err := wal.ParseSummary(header.Fields); err == nil && repo.CheckSummary(summary, name, segmentSize) == nil {
				summaries[i] = summary
			}
			return nil
		})
	}
	return summaries, group.Wait()
}

// WriteRollups writes the roll-ups that are missing of the blocks in which the
// segments of a timeline lie from number first through last: a large one where
// all of its segments are archived, else the small ones. It needs no identity.
// A block of which a segment has no summary, or whose WAL has a break, has
// none. It returns how many it wrote.
func WriteRollups(ctx context.Context, r *repo.Repository, systemID uint64, timeline wal.TimelineID, segmentSize, first, last uint64) (int, error) {
	x := &rollups{repository: r, block: repo.Rollup{SystemID: systemID, Timeline: timeline, SegmentSize: segmentSize}}
	first -= first % repo.RollupSegments
	var err error
	if x.archived, err = segments(ctx, r, systemID, timeline, first, last, segmentSize); err != nil {
		return 0, fmt.Errorf("write roll-ups: %w", err)
	}
	if x.there, err = r.Rollups(ctx, systemID, timeline, first, segmentSize); err != nil {
		return 0, fmt.Errorf("write roll-ups: %w", err)
	}
	for n := first; n <= last; n += repo.RollupSegments {
		if err := x.write(ctx, n); err != nil {
			return x.written, fmt.Errorf("write roll-ups: %w", err)
		}
	}
	return x.written, nil
}

// rollups are what is there of a timeline, and what is made.
type rollups struct {
	repository *repo.Repository
	block      repo.Rollup // what all have in common
	archived   map[uint64]bool
	there      map[string]bool // keys
	written    int
}

// write writes what is missing of the large block that begins at a segment.
func (x *rollups) write(ctx context.Context, first uint64) error {
	if there, err := x.add(ctx, first, repo.RollupSegments); there || err != nil {
		return err
	}
	for n := first; n < first+repo.RollupSegments; n += repo.SmallRollupSegments {
		if _, err := x.add(ctx, n, repo.SmallRollupSegments); err != nil {
			return err
		}
	}
	return nil
}

// whole tells whether all segments of a block are archived.
func (x *rollups) whole(first, length uint64) bool {
	for n := first; n < first+length; n++ {
		if !x.archived[n] {
			return false
		}
	}
	return true
}

// add writes one roll-up, if it isn't there. It reports false where there can't
// be one.
func (x *rollups) add(ctx context.Context, first, length uint64) (bool, error) {
	made := x.at(first, length)
	if x.there[made.Key()] {
		return true, nil
	}
	if !x.whole(first, length) {
		return false, nil
	}
	for n := first; n < first+length; n += repo.SmallRollupSegments {
		part, err := x.read(ctx, n)
		if err != nil {
			return false, err
		}
		made.Segments = append(made.Segments, part...)
	}
	err := x.repository.WriteRollup(ctx, made)
	if errors.Is(err, repo.ErrRollup) {
		return false, nil
	}
	if err == nil {
		x.written++
	}
	return err == nil, err
}

// read returns the summaries of a small block: from its roll-up if there is
// one of use, else from the segments' headers.
func (x *rollups) read(ctx context.Context, first uint64) ([]wal.Summary, error) {
	small := x.at(first, repo.SmallRollupSegments)
	if x.there[small.Key()] && x.repository.ReadRollup(ctx, small) == nil {
		return small.Segments, nil
	}
	var names []wal.FileName
	for n := first; n < first+repo.SmallRollupSegments; n++ {
		names = append(names, wal.SegmentName(x.block.Timeline, n, x.block.SegmentSize))
	}
	return Summaries(ctx, x.repository, x.block.SystemID, names, x.block.SegmentSize)
}

// at returns the roll-up of a block, without its segments.
func (x *rollups) at(first, length uint64) *repo.Rollup {
	of := x.block
	of.Length, of.Block = length, first/length
	return &of
}
