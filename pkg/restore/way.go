package restore

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/wal"
)

// way is the archived WAL along a path, from a backup's redo point on.
type way struct {
	c        Catalogue
	systemID uint64
	history  wal.History
	size     uint64 // of a segment
	there    archived
	// The segments from first up to end are archived without a gap.
	first, end uint64
	summaries  map[uint64]wal.Summary // by segment; the zero Summary: not known
	kept       [2]keptContent
	opened     int // segments that were read
}

// wayFrom returns the way from the plan's backup on. Nothing of it is listed.
func (p *Plan) wayFrom(c Catalogue) *way {
	size := p.record.SegmentSize
	first := wal.SegmentNumber(p.record.StartLSN, size)
	return &way{
		c: c, systemID: p.SystemID, history: p.history, size: size, first: first, end: first,
		summaries: map[uint64]wal.Summary{},
	}
}

// list finds out which segments there are, through a number.
func (w *way) list(ctx context.Context, through uint64) (err error) {
	if w.there, err = listPath(ctx, w.c, w.systemID, w.history, w.first, through, w.size); err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	for w.end = w.first; w.there.has(w.end); {
		w.end++
	}
	return nil
}

// name names a segment as the path archives it.
func (w *way) name(n uint64) wal.FileName {
	return wal.SegmentName(w.history.SegmentTimeline(n, w.size), n, w.size)
}

// load gets the summaries of the segments from first up to end.
func (w *way) load(ctx context.Context, first, end uint64) error {
	var wanted []uint64
	for n := first; n < end; n++ {
		if _, ok := w.summaries[n]; !ok {
			wanted = append(wanted, n)
		}
	}
	found := make([]wal.Summary, len(wanted))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(headersAtOnce)
	for i, n := range wanted {
		group.Go(func() error {
			// What can't be read stays the zero Summary: not known.
			found[i], _ = w.c.Summary(ctx, w.systemID, w.name(n))
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	for i, n := range wanted {
		w.summaries[n] = found[i]
	}
	return nil
}

// headersAtOnce is how many headers of segments are read at a time.
const headersAtOnce = 32

// mayStop tells whether a recovery to t can stop at a record that starts in
// segment n: by its summary, or because that isn't known. stop is where the
// backup ends.
func (w *way) mayStop(t Target, stop wal.LSN, n uint64) bool {
	s := w.summaries[n]
	switch t.Kind {
	case TargetLatest:
		return false
	case TargetImmediate:
		last := wal.SegmentNumber(stop-1, w.size)
		return n == last || n+1 == last
	case TargetLSN:
		return wal.LSN((n+1)*w.size) > t.LSN && (s.Ending == 0 || s.Last >= t.LSN)
	}
	if s.Ending == 0 || t.meets(s) {
		return true
	}
	joined, known := w.joined(n)
	return !known || t.meets(joined)
}

// meets tells whether a summary has a record at which a recovery to t can
// stop.
func (t Target) meets(s wal.Summary) bool {
	switch t.Kind {
	case TargetTime:
		return s.Stops > 0 && t.passed(s.MaxTime)
	case TargetXID:
		return s.Stops > 0 && s.Transactions.Holds(uint32(t.XID))
	case TargetName:
		if s.RestorePointCount > uint64(len(s.RestorePoints)) {
			return true
		}
		for _, point := range s.RestorePoints {
			if point.Name == t.Name {
				return true
			}
		}
	}
	return false
}

// commits tells whether a transaction can have committed in a record that
// starts in segment n.
func (w *way) commits(n uint64) bool {
	s := w.summaries[n]
	if s.Ending == 0 || s.Commits > 0 {
		return true
	}
	joined, known := w.joined(n)
	return !known || joined.Commits > 0
}

// joined says what the record counts that begins in segment n and ends behind
// it. known is false if that can't be told.
func (w *way) joined(n uint64) (joined wal.Summary, known bool) {
	s := w.summaries[n]
	if s.Tail.Length == 0 || n+1 >= w.end {
		// One that is cut at the end of the archive isn't replayed.
		return wal.Summary{Transactions: wal.Transactions{Known: true}}, true
	}
	next := w.summaries[n+1]
	if next.Ending == 0 {
		return wal.Summary{}, false
	}
	return s.Joined(next)
}
