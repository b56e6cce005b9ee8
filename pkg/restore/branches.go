package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// Choice is what one of several timelines that hold the target leads to.
type Choice struct {
	Timeline wal.TimelineID `json:"timeline"`
	Backup   string         `json:"backup"`
	Left     wal.LSN        `json:"left_at_lsn"` // where its way and that of the plan's timeline part; 0 for that itself
	LastIn   *Ending        `json:"last_in"`
	FirstOut *Ending        `json:"first_out"`
	EndsAt   wal.LSN        `json:"ends_at_lsn"`
	// Reachable tells whether its plan has no Problems of its own.
	Reachable bool `json:"reachable"`
}

// settleBranch looks for timelines on which the target means something else
// than on the plan's, which nobody asked for. Where there are any, it is for
// the user to choose, also where the plan's has no such target: it may have one
// in WAL that isn't archived yet, and a transaction's id, an LSN or a restore
// point's name on an abandoned timeline is no proof that this was meant.
func (p *Plan) settleBranch(ctx context.Context, c Catalogue, r Request) error {
	if p.target.Kind == TargetLatest || p.target.Kind == TargetImmediate || r.Timeline != "" {
		return nil
	}
	choices, err := p.branches(ctx, c, r)
	if err != nil || len(choices) == 1 {
		return err
	}
	p.Choices = choices
	if len(p.Problems) == 0 {
		p.Problems = append(p.Problems, choicesText(fmt.Sprintf("%s lies on several timelines: ", p.target), choices))
		return nil
	}
	p.Problems[0] += "; " + choicesText("it lies on another timeline: ", choices[1:])
	return nil
}

// branches plans for the timelines that hold the target behind where their way
// and the plan's part, one for each outcome. The choices have the plan itself
// before them.
func (p *Plan) branches(ctx context.Context, c Catalogue, r Request) (choices []Choice, err error) {
	timelines, err := c.Histories(ctx, p.SystemID)
	if err != nil {
		return nil, fmt.Errorf("plan restore: %w", err)
	}
	if !slices.Contains(timelines, 1) {
		timelines = append([]wal.TimelineID{1}, timelines...)
	}
	choices = []Choice{p.choice(0)}
	var others []*Plan
	for _, timeline := range timelines {
		if timeline == p.Timeline {
			continue
		}
		other, left, err := p.onBranch(ctx, c, r, timeline)
		if err != nil {
			return nil, fmt.Errorf("%w: so it can't be told whether the target lies on timeline %d, too; --timeline %d doesn't ask", err, uint32(timeline), uint32(p.Timeline))
		}
		if other == nil || slices.ContainsFunc(others, other.sameOutcome) {
			continue
		}
		others, choices = append(others, other), append(choices, other.choice(left))
	}
	return choices, nil
}

// onBranch plans for another timeline, if recovery to the target can stop on
// that behind the point where the two ways part. It returns nil where it
// doesn't, or ends with the same transactions.
func (p *Plan) onBranch(ctx context.Context, c Catalogue, r Request, timeline wal.TimelineID) (*Plan, wal.LSN, error) {
	h, err := c.History(ctx, p.SystemID, timeline)
	if err != nil {
		return nil, 0, fmt.Errorf("plan restore: %w", err)
	}
	left := parting(p.history, h)
	if p.stopsBefore(left) {
		return nil, 0, nil // the same on both
	}
	tail := &way{c: c, systemID: p.SystemID, history: h, size: p.record.SegmentSize, summaries: map[uint64]wal.Summary{}}
	tail.first = wal.SegmentNumber(left, tail.size)
	if holds, err := tail.mayHold(ctx, p.target, p.Certified); err != nil || !holds {
		return nil, 0, err
	}
	r.Timeline = fmt.Sprint(uint32(timeline))
	other, err := planFrom(ctx, c, r, p.SystemID)
	if _, refused := errors.AsType[*RefusedError](err); refused {
		return nil, 0, nil
	}
	if err != nil || len(other.Problems) > 0 && (other.Stop == nil || other.early) {
		return nil, 0, err
	}
	if onBoth := other.Stop != nil && other.Stop.LSN < left; len(p.Problems) == 0 && (onBoth || p.sameOutcome(other)) {
		return nil, 0, nil
	}
	return other, left, nil
}

// stopsBefore tells whether recovery stops before an LSN, up to which another
// way is the same, so that it stops there on that, too. Of a restore point the
// newest one is meant, which can be behind it on the other.
func (p *Plan) stopsBefore(left wal.LSN) bool {
	switch {
	case p.target.Kind == TargetName:
		return false
	case p.Stop != nil:
		return p.Stop.LSN < left
	case p.target.Kind == TargetLSN && !p.Certified:
		return p.target.LSN < left
	}
	return p.guessed != 0 && wal.LSN((p.guessed+1)*p.record.SegmentSize) <= left
}

// mayHold tells whether recovery to the target may stop in the archived WAL
// from the way's first segment on. Where nothing can be read, what isn't known
// of a segment is no reason to ask.
func (w *way) mayHold(ctx context.Context, t Target, readable bool) (bool, error) {
	switch t.Kind {
	case TargetTime:
		found, err := w.gallop(ctx, t, w.first)
		return found != none, err
	case TargetLSN:
		s, err := w.summary(ctx, max(w.first, wal.SegmentNumber(t.LSN, w.size)))
		return !errors.Is(err, storage.ErrNotExist) && (readable || s.Ending != 0), ctx.Err()
	}
	err := w.list(ctx, ^uint64(0))
	if err == nil {
		err = w.load(ctx, w.first, w.end)
	}
	for n := w.first; n < w.end; n++ {
		if (readable || w.summaries[n].Ending != 0) && w.mayStop(t, 0, n) {
			return true, err
		}
	}
	return false, err
}

// sameOutcome tells whether two plans end with the same transactions, as far as
// that is known: what committed before a backup isn't.
func (p *Plan) sameOutcome(other *Plan) bool {
	if !p.Certified || !other.Certified || !slices.EqualFunc(p.PendingPrepared, other.PendingPrepared, sameTransaction) {
		return false
	}
	a, b := p.LastIn, other.LastIn
	if a == nil || b == nil {
		return a == b && p.record.ID == other.record.ID
	}
	return a.LSN == b.LSN && a.Timeline == b.Timeline
}

// sameTransaction compares two prepared transactions. Of one that was prepared
// before the backup began only the id is known.
func sameTransaction(a, b Prepared) bool {
	return a.XID == b.XID && (a.LSN == 0 || b.LSN == 0 || a.LSN == b.LSN && a.Time.Equal(b.Time))
}

func (p *Plan) choice(left wal.LSN) Choice {
	return Choice{Timeline: p.Timeline, Backup: p.record.ID, Left: left, LastIn: p.LastIn, FirstOut: p.FirstOut, EndsAt: p.EndsAt, Reachable: len(p.Problems) == 0}
}

func choicesText(text string, choices []Choice) string {
	var all []string
	for _, c := range choices {
		what := fmt.Sprintf("--timeline %d", c.Timeline)
		if c.Left != 0 {
			what += fmt.Sprintf(", which leaves the other at %s,", c.Left)
		}
		switch {
		case c.EndsAt == 0:
			what += " ends where nothing has verified it"
		case c.LastIn == nil:
			what += " ends without a commit since its backup"
		default:
			what += fmt.Sprintf(" ends with transaction %d, committed at %s", c.LastIn.XID, FormatTime(c.LastIn.Time))
		}
		if !c.Reachable {
			what += ", but can't be restored to as it is"
		}
		all = append(all, what)
	}
	return text + strings.Join(all, "; ")
}

// parting returns the first LSN at which two ways aren't the same any more: all
// ones if they are the same.
func parting(a, b wal.History) wal.LSN {
	one, other := spans(a), spans(b)
	for i := range min(len(one), len(other)) {
		x, y := one[i], other[i]
		if x.timeline != y.timeline {
			return x.start
		}
		if x.end != y.end {
			if x.end == 0 || y.end != 0 && y.end < x.end {
				return y.end
			}
			return x.end
		}
	}
	return ^wal.LSN(0)
}
