package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
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
	mu         sync.Mutex
	summaries  map[uint64]wal.Summary // by segment; the zero Summary: not known
	broken     string                 // why the WAL doesn't go on at end, though there is a segment
	corrupt    map[uint64]error       // why segments can't be fetched
	kept       [2]keptContent
	opened     int     // segments that were read
	stop       wal.LSN // of the backup; 0 for a way that has none
	standIn    standIn // for the segment at end, or the one before it
}

// wayFrom returns the way from the plan's backup on. Nothing of it is listed.
func (p *Plan) wayFrom(c Catalogue) *way {
	size := p.record.SegmentSize
	first := wal.SegmentNumber(p.record.StartLSN, size)
	return &way{
		c: c, systemID: p.SystemID, history: p.history, size: size, first: first, end: first, stop: p.record.StopLSN,
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
	w.takeStandIn()
	return nil
}

// name names a segment as the path archives it.
func (w *way) name(n uint64) wal.FileName {
	if w.standsIn(n) {
		return wal.SegmentName(w.standIn.timeline, n, w.size)
	}
	return wal.SegmentName(w.history.SegmentTimeline(n, w.size), n, w.size)
}

// load gets the summaries of the segments from first up to end: from roll-ups
// where there are any, else from the segments' headers.
func (w *way) load(ctx context.Context, first, end uint64) error {
	for _, length := range []uint64{repo.RollupSegments, repo.SmallRollupSegments} {
		if err := w.loadRollups(ctx, first, end, length); err != nil {
			return fmt.Errorf("plan restore: %w", err)
		}
	}
	wanted := w.unloaded(first, end)
	found := make([]wal.Summary, len(wanted))
	failed := make([]error, len(wanted))
	err := each(ctx, headersAtOnce, wanted, func(ctx context.Context, i int, n uint64) error {
		// What can't be read stays the zero Summary: not known. Wrong bytes are
		// read once more, as in a fetch.
		if found[i], failed[i] = w.c.Summary(ctx, w.systemID, w.name(n)); errors.Is(failed[i], object.ErrCorrupt) {
			found[i], failed[i] = w.c.Summary(ctx, w.systemID, w.name(n))
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	for i, n := range wanted {
		w.summaries[n] = found[i]
		if errors.Is(failed[i], object.ErrCorrupt) {
			w.markCorrupt(n, failed[i])
		}
	}
	w.cutCorrupt()
	w.cutBroken(first, end)
	return nil
}

// cutBroken ends the way before a segment that doesn't continue the WAL of the
// one before it: a server doesn't replay it.
func (w *way) cutBroken(first, end uint64) {
	for n := first + 1; n < min(end, w.end); n++ {
		before, s := w.summaries[n-1], w.summaries[n]
		if before.Ending == 0 || s.Ending == 0 || before.End == 0 || s.End == 0 {
			continue
		}
		if err := s.Follows(before); err != nil {
			w.end, w.broken = n, err.Error()
			return
		}
	}
}

// unloaded lists the segments from first up to end whose summaries haven't been
// looked for.
func (w *way) unloaded(first, end uint64) []uint64 {
	var numbers []uint64
	for n := first; n < end; n++ {
		if _, ok := w.summaries[n]; !ok {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// loadRollups gets summaries from the roll-ups of so many segments. Where one
// isn't there, or is of no use, the segments' headers say the same.
func (w *way) loadRollups(ctx context.Context, first, end, length uint64) error {
	const worthwhile = 4 // segments that are wanted of a block
	wanted := map[uint64]int{}
	for _, n := range w.unloaded(first, end) {
		wanted[n/length]++
	}
	var blocks []uint64
	for block, count := range wanted {
		alone := w.history.SegmentTimeline(block*length, w.size) == w.history.SegmentTimeline(block*length+length-1, w.size)
		if alone && count >= worthwhile {
			blocks = append(blocks, block)
		}
	}
	found := make([][]wal.Summary, len(blocks))
	err := each(ctx, rollupsAtOnce, blocks, func(ctx context.Context, i int, block uint64) error {
		x := &repo.Rollup{SystemID: w.systemID, Timeline: w.name(block * length).Timeline, SegmentSize: w.size, Length: length, Block: block}
		if w.c.ReadRollup(ctx, x) == nil {
			found[i] = x.Segments
		}
		return ctx.Err()
	})
	for i, block := range blocks {
		for j, s := range found[i] {
			if n := block*length + uint64(j); n >= first && n < end {
				w.summaries[n] = s
			}
		}
	}
	return err
}

// each calls do for every item, several at a time.
func each(ctx context.Context, most int, items []uint64, do func(ctx context.Context, i int, item uint64) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(most)
	for i, item := range items {
		group.Go(func() error { return do(ctx, i, item) })
	}
	return group.Wait()
}

// rollupsAtOnce is how many roll-ups are read at a time.
const rollupsAtOnce = 8

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
		return n+1 >= wal.SegmentNumber(stop-1, w.size)
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
