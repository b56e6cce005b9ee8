package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// deepAtOnce is how many segments are read at a time to verify them.
const deepAtOnce = 4

// verifyWAL reads the segments through last whole: each opens, is genuine, is
// the WAL that its name says, and continues the one before it.
func (p *Plan) verifyWAL(ctx context.Context, w *way, last uint64) error {
	var numbers []uint64
	for n := w.first; n <= last && n < w.end; n++ {
		numbers = append(numbers, n)
	}
	var mu sync.Mutex
	read, corrupt := map[uint64]wal.Summary{}, error(nil)
	err := each(ctx, deepAtOnce, numbers, func(ctx context.Context, _ int, n uint64) error {
		s, err := w.verify(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		if read[n] = s; errors.Is(err, object.ErrCorrupt) {
			w.markCorrupt(n, err)
			corrupt, err = err, nil // the others may be, too
		}
		return err
	})
	if err == nil {
		err = corrupt
	}
	if err != nil {
		return fmt.Errorf("verify WAL: %w", err)
	}
	for _, n := range numbers[1:] {
		if err := read[n].Follows(read[n-1]); err != nil {
			p.Problems = append(p.Problems, fmt.Sprintf("WAL segment %s doesn't continue the WAL before it: %v", w.name(n), err))
		}
	}
	if said := w.summaries; len(p.Problems) == 0 {
		for _, n := range numbers {
			if s := said[n]; s.Ending != 0 && s.End != 0 && !s.SameWAL(read[n]) && s.Chain != (wal.ChainDigest{}) {
				p.Problems = append(p.Problems, fmt.Sprintf("the summary of WAL segment %s isn't that of its WAL: somebody changed it", w.name(n)))
			}
		}
	}
	p.WAL.Verified = len(numbers)
	return nil
}

// verify reads a segment whole.
func (w *way) verify(ctx context.Context, n uint64) (wal.Summary, error) {
	content, err := w.c.Segment(ctx, w.systemID, w.name(n), w.size)
	if err != nil {
		return wal.Summary{}, err
	}
	defer content.Close()
	return wal.Check(content, w.name(n), int64(w.size), w.systemID)
}
