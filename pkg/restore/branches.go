package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/wal"
)

// Choice is what one of several timelines that hold the wanted time leads to.
type Choice struct {
	Timeline wal.TimelineID `json:"timeline"`
	Backup   string         `json:"backup"`
	Left     wal.LSN        `json:"left_at_lsn"` // where its way and that of the plan's timeline part; 0 for that itself
	LastIn   *Ending        `json:"last_in"`
	FirstOut *Ending        `json:"first_out"`
	EndsAt   wal.LSN        `json:"ends_at_lsn"`
}

// compareBranches looks for timelines on which the target time means something
// else than on the plan's, which nobody asked for. Where there are any, it is
// for the user to choose.
func (p *Plan) compareBranches(ctx context.Context, c Catalogue, r Request) error {
	if p.target.Kind != TargetTime || r.Timeline != "" {
		return nil
	}
	timelines, err := c.Histories(ctx, p.SystemID)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	if !slices.Contains(timelines, 1) {
		timelines = append([]wal.TimelineID{1}, timelines...)
	}
	choices := []Choice{p.choice(0)}
	for _, timeline := range timelines {
		if timeline == p.Timeline {
			continue
		}
		other, left, err := p.onBranch(ctx, c, r, timeline)
		switch {
		case err != nil:
			return err
		case other != nil:
			choices = append(choices, other.choice(left))
		}
	}
	if len(choices) == 1 {
		return nil
	}
	p.Choices = choices
	if len(p.Problems) > 0 { // the others are the way out
		p.Problems[0] += "; " + choicesText("it is reached on another timeline: ", choices[1:])
		return nil
	}
	p.Problems = append(p.Problems, choicesText("the time lies on several timelines: ", choices))
	return nil
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
	if p.Stop != nil && p.Stop.LSN < left {
		return nil, 0, nil // the same on both
	}
	tail := &way{c: c, systemID: p.SystemID, history: h, size: p.record.SegmentSize, summaries: map[uint64]wal.Summary{}}
	tail.first = wal.SegmentNumber(left, tail.size)
	found, err := tail.gallop(ctx, p.target, tail.first)
	if err != nil || found == none {
		return nil, 0, err
	}
	r.Timeline = fmt.Sprint(uint32(timeline))
	other, err := planFrom(ctx, c, r, p.SystemID)
	if _, refused := errors.AsType[*RefusedError](err); refused {
		return nil, 0, nil
	}
	if err != nil || len(other.Problems) > 0 || sameEnding(p.LastIn, other.LastIn) && len(p.Problems) == 0 {
		return nil, 0, err
	}
	return other, left, nil
}

func sameEnding(a, b *Ending) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.LSN == b.LSN && a.Timeline == b.Timeline
}

func (p *Plan) choice(left wal.LSN) Choice {
	return Choice{Timeline: p.Timeline, Backup: p.record.ID, Left: left, LastIn: p.LastIn, FirstOut: p.FirstOut, EndsAt: p.EndsAt}
}

func choicesText(text string, choices []Choice) string {
	var all []string
	for _, c := range choices {
		what := fmt.Sprintf("--timeline %d", c.Timeline)
		if c.Left != 0 {
			what += fmt.Sprintf(", which leaves the other at %s,", c.Left)
		}
		if c.LastIn == nil {
			what += " ends without a commit since its backup"
		} else {
			what += fmt.Sprintf(" ends with transaction %d, committed at %s", c.LastIn.XID, FormatTime(c.LastIn.Time))
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
