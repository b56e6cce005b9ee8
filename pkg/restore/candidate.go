package restore

import (
	"context"
	"errors"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// none stands for a segment that isn't known.
const none = ^uint64(0)

// candidate returns a segment in which recovery to a time stops, if it doesn't
// stop before. It is found by bisection, with one header a step; since the times
// of commits aren't ordered, it needn't be the first such segment. What is
// listed and looked into goes up to there. none: there isn't one.
func (p *Plan) candidate(ctx context.Context, w *way) (uint64, error) {
	low, high := w.first, p.nextBackup(w)
	if high != none {
		found, err := w.bisect(ctx, p.target, low, high)
		if err != nil || found != none {
			return found, err
		}
		low = high
	}
	return w.gallop(ctx, p.target, low)
}

// gallop looks for a candidate from a segment on, in growing stretches up to
// the first segment that isn't there.
func (w *way) gallop(ctx context.Context, t Target, low uint64) (uint64, error) {
	for step := uint64(16); ; step *= 2 {
		_, missing := w.summary(ctx, low+step) // or unreadable
		found, err := w.bisect(ctx, t, low, low+step+1)
		if missing != nil || err != nil || found != none {
			return found, err
		}
		low += step
	}
}

// bisect looks for a candidate among the segments from low up to high.
func (w *way) bisect(ctx context.Context, t Target, low, high uint64) (uint64, error) {
	found := none
	for low < high {
		middle := low + (high-low)/2
		at, s, err := w.nextStops(ctx, middle, high)
		switch {
		case err != nil:
			return none, err
		case at == none:
			high = middle
		case t.passed(s.MaxTime):
			found, high = at, middle
		default:
			low = at + 1
		}
	}
	return found, nil
}

// nextStops returns the first segment from n up to end in which a transaction
// ended, as far as is known. Idle stretches are passed over in growing steps.
func (w *way) nextStops(ctx context.Context, n, end uint64) (uint64, wal.Summary, error) {
	for step := uint64(1); n < end; n, step = n+step, min(2*step, headersAtOnce) {
		var numbers []uint64
		for i := n; i < min(n+step, end); i++ {
			numbers = append(numbers, i)
		}
		found, failed := make([]wal.Summary, len(numbers)), make([]error, len(numbers))
		err := each(ctx, headersAtOnce, numbers, func(ctx context.Context, i int, n uint64) error {
			found[i], failed[i] = w.summary(ctx, n)
			return ctx.Err()
		})
		if err != nil {
			return none, wal.Summary{}, err
		}
		for i, s := range found {
			switch {
			case s.Stops > 0:
				return numbers[i], s, nil
			case errors.Is(failed[i], storage.ErrNotExist): // most likely nothing is behind
				return none, wal.Summary{}, nil
			}
		}
	}
	return none, wal.Summary{}, nil
}

// summary reads a segment's summary, whether it is listed or not.
func (w *way) summary(ctx context.Context, n uint64) (wal.Summary, error) {
	w.mu.Lock()
	s, known := w.summaries[n]
	w.mu.Unlock()
	if known {
		return s, nil
	}
	s, err := w.c.Summary(ctx, w.systemID, w.name(n))
	if err == nil {
		w.mu.Lock()
		w.summaries[n] = s
		w.mu.Unlock()
	}
	return s, err
}

// nextBackup returns the segment with the beginning of the first backup that
// was begun behind the target time.
func (p *Plan) nextBackup(w *way) uint64 {
	next := none
	for _, ref := range p.onPath {
		if n := wal.SegmentNumber(ref.StartLSN, w.size); ref.Started().After(p.target.Time) && n > w.first {
			next = min(next, n)
		}
	}
	return next
}

// bounds lists through which segments the WAL is looked into, in turn, until the
// stop is found.
func (p *Plan) bounds(ctx context.Context, w *way) ([]uint64, error) {
	switch p.target.Kind {
	case TargetImmediate:
		// The record at which recovery notices may be the first of the next segment.
		return []uint64{wal.SegmentNumber(p.record.StopLSN-1, w.size) + 1, none}, nil
	case TargetLSN:
		// The target's record may be the first of the next segment.
		return []uint64{wal.SegmentNumber(max(p.target.LSN, p.record.StopLSN-1), w.size) + 1, none}, nil
	case TargetTime:
		found, err := p.candidate(ctx, w)
		if err != nil || found == none {
			return []uint64{none}, err
		}
		return []uint64{found + 1, none}, nil
	case TargetName:
		if p.point != 0 {
			return []uint64{wal.SegmentNumber(p.point, w.size) + 1, none}, nil
		}
	case TargetXID:
		if p.newer != nil {
			return []uint64{wal.SegmentNumber(p.newer.StopLSN, w.size) + 1, none}, nil
		}
	}
	return []uint64{none}, nil
}
