package restore

import (
	"context"
	"fmt"

	"github.com/walship/walship/pkg/wal"
)

// span is what one timeline owns of the way to another.
type span struct {
	timeline wal.TimelineID
	start    wal.LSN
	end      wal.LSN // 0: open, of the last one
	reason   string  // of the switch at end
}

// spans lists which timeline owns which part of a history, oldest first. An
// ancestor that was left before it began owns none.
func spans(h wal.History) []span {
	var all []span
	start := wal.LSN(0)
	for i, e := range h.Entries {
		end := e.Switch
		for _, later := range h.Entries[i:] {
			end = min(end, later.Switch)
		}
		if end > start {
			all = append(all, span{e.Timeline, start, end, e.Reason})
			start = end
		}
	}
	return append(all, span{timeline: h.Timeline, start: start})
}

// pathFrom lists the timelines that lead from an LSN to the end of a history.
func pathFrom(h wal.History, from wal.LSN) []Step {
	var steps []Step
	for _, s := range spans(h) {
		step := Step{Timeline: s.timeline, Start: max(s.start, from).String(), Reason: s.reason}
		if s.end != 0 {
			if s.end <= from {
				continue
			}
			step.End = s.end.String()
		}
		steps = append(steps, step)
	}
	return steps
}

// archived is what a listing along the path found, from one segment on.
type archived struct {
	segments map[uint64]int64        // stored size by segment number, of the timeline that owns it
	partial  map[uint64]wal.FileName // partial segments, likewise
	last     uint64                  // the greatest number in segments
}

// maxMissing bounds how many missing segments a plan names.
const maxMissing = 1000

// findWAL fills in the WAL that the restore reads. Up to the end of the
// backup, and to a target LSN, every segment is needed. Where the target lies
// isn't known for the other kinds, so they can use all that follows without a
// gap.
func (p *Plan) findWAL(ctx context.Context, c Catalogue) error {
	b, size := p.record, p.record.SegmentSize
	first := wal.SegmentNumber(b.StartLSN, size)
	needed := wal.SegmentNumber(b.StopLSN-1, size)
	if p.target.Kind == TargetLSN {
		needed = max(needed, wal.SegmentNumber(p.target.LSN, size))
	}
	bounded := p.target.Kind == TargetLSN || p.target.Kind == TargetImmediate
	through := needed + 1 // the target's record may be the first of the next one
	if !bounded {
		through = ^uint64(0)
	}
	there, err := listPath(ctx, c, p.SystemID, p.history, first, through, size)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	last := needed
	if p.target.Kind == TargetLSN {
		// One segment behind the archive's end is enough to say where it ends.
		last = min(needed, max(there.last+1, wal.SegmentNumber(b.StopLSN-1, size)))
	}
	for !bounded && there.has(last+1) {
		last++
	}
	p.WAL = PlannedWAL{
		SegmentSize: size, Missing: []string{}, Partial: []string{},
		First: p.segment(first), Last: p.segment(last), Needed: int(last - first + 1),
	}
	end := first // the first segment that isn't there
	for n := first; n <= last && len(p.WAL.Missing) < maxMissing; n++ {
		stored, ok := there.segments[n]
		p.WAL.StoredSize += stored
		switch {
		case !ok:
			p.missing(n, there)
		case n == end:
			end++
		}
	}
	p.WAL.Until = wal.LSN(end * size).String()
	if len(p.WAL.Missing) > 0 {
		p.missingProblem(b.StopLSN)
		return nil
	}
	p.judgeEnd(end, there)
	if err := p.judgeDemands(ctx, c, there, first, last+1); err != nil {
		return err
	}
	switch p.target.Kind {
	case TargetTime:
		return p.judgeTime(ctx, c, there, first, last)
	case TargetLSN:
		return p.judgeLSN(ctx, c, there, last)
	}
	return nil
}

func (a archived) has(n uint64) bool { _, ok := a.segments[n]; return ok }

// segment names the segment with a number as the path archives it.
func (p *Plan) segment(n uint64) string {
	size := p.record.SegmentSize
	return wal.SegmentName(p.history.SegmentTimeline(n, size), n, size).String()
}

// missing lists a segment as missing, with the partial one of its place.
func (p *Plan) missing(n uint64, there archived) {
	p.WAL.Missing = append(p.WAL.Missing, p.segment(n))
	if partial, ok := there.partial[n]; ok {
		p.WAL.Partial = append(p.WAL.Partial, partial.String())
	}
}

func (p *Plan) missingProblem(stop wal.LSN) {
	names := p.WAL.Missing
	what := fmt.Sprintf("WAL segment %s isn't in the repository", names[0])
	if len(names) > 1 {
		what = fmt.Sprintf("%d WAL segments aren't in the repository, the first is %s", len(names), names[0])
	}
	why := fmt.Sprintf("the backup isn't consistent before %s", stop)
	if p.target.Kind == TargetLSN && p.target.LSN >= stop {
		why = fmt.Sprintf("the way to %s leads through it", p.target.LSN)
	}
	if len(p.WAL.Partial) > 0 {
		why += fmt.Sprintf("; %s is there, which is never used unasked: fetch it with walship wal fetch into pg_wal, without the suffix, if its end is what you want", p.WAL.Partial[0])
	}
	p.Problems = append(p.Problems, what+"; "+why)
}

// judgeEnd says what stands behind the usable WAL, which ends before segment
// end: a gap, a partial segment, a fork that wasn't reached.
func (p *Plan) judgeEnd(end uint64, there archived) {
	if p.target.Kind == TargetLSN || p.target.Kind == TargetImmediate {
		return
	}
	until := wal.LSN(end * p.record.SegmentSize)
	if there.last > end {
		p.missing(end, there)
		p.Warnings = append(p.Warnings, fmt.Sprintf(
			"WAL segment %s isn't in the repository, though later ones up to %s are: recovery can't go beyond %s",
			p.segment(end), p.segment(there.last), until))
	} else if partial, ok := there.partial[end]; ok {
		p.WAL.Partial = append(p.WAL.Partial, partial.String())
		p.Notes = append(p.Notes, fmt.Sprintf(
			"the archive ends with the partial segment %s, which is never used unasked: recovery ends at %s", partial, until))
	}
	steps := spans(p.history)
	if fork := steps[len(steps)-1].start; until <= fork {
		p.Warnings = append(p.Warnings, fmt.Sprintf(
			"no WAL of timeline %d itself is in the repository: recovery ends at %s, not behind the fork at %s", p.Timeline, until, fork))
	}
}

// listPath lists the archived segments along a path, from number first
// through number through. It costs one listing for each timeline of the path.
func listPath(ctx context.Context, c Catalogue, systemID uint64, h wal.History, first, through, size uint64) (archived, error) {
	there := archived{segments: map[uint64]int64{}, partial: map[uint64]wal.FileName{}}
	for _, s := range spans(h) {
		tli, from, to := s.timeline, max(first, wal.SegmentNumber(s.start, size)), through
		if s.end != 0 {
			// Through the segment of the fork, for its partial copy.
			to = min(to, wal.SegmentNumber(s.end, size))
		}
		if from > to {
			continue
		}
		for file, err := range c.ListWAL(ctx, systemID, wal.SegmentName(tli, from, size)) {
			if err != nil {
				return archived{}, err
			}
			n := file.Name.SegmentNumber(size)
			if file.Name.Timeline != tli || file.Name.Kind == wal.KindTimelineHistory || n > to {
				break
			}
			switch {
			case !file.Name.ValidFor(size):
			case file.Name.Kind == wal.KindPartial:
				there.partial[n] = file.Name
			case file.Name.Kind == wal.KindSegment && h.SegmentTimeline(n, size) == tli:
				there.segments[n] = file.Size
				there.last = max(there.last, n)
			}
		}
	}
	return there, nil
}
