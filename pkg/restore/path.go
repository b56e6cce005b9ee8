package restore

import (
	"context"
	"fmt"
	"strings"

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
	segments map[uint64]int64           // stored size by segment number, of the timeline that owns it
	partial  map[uint64][]string        // names of partial segments, likewise
	standIns map[uint64]archivedStandIn // an ancestor's copies of a fork's segment, the youngest ancestor's
	last     uint64                     // the greatest number in segments
}

// archivedStandIn is a segment that may stand in for a child's.
type archivedStandIn struct {
	standIn
	stored int64 // size
}

func (a archived) has(n uint64) bool { _, ok := a.segments[n]; return ok }

// maxMissing bounds how many missing segments a plan names.
const maxMissing = 1000

// findWAL fills in the WAL that the restore reads, and what it is going to end
// with. Up to the end of the backup, and to a target LSN, every segment is
// needed; for the other targets all up to the stop is.
func (p *Plan) findWAL(ctx context.Context, c Catalogue) error {
	w, before := p.wayFrom(c), *p
	return w.sound(func() error {
		*p = before
		return p.findOn(ctx, w)
	})
}

func (p *Plan) findOn(ctx context.Context, w *way) error {
	bounds, err := p.bounds(ctx, w)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	needed := wal.SegmentNumber(p.record.StopLSN-1, w.size)
	if p.target.Kind == TargetLSN {
		needed = max(needed, wal.SegmentNumber(p.target.LSN, w.size))
	}
	for i, through := range bounds {
		if err := w.list(ctx, through); err != nil {
			return err
		}
		if p.target.Kind == TargetLSN {
			// One segment behind the archive's end is enough to say where it ends.
			needed = min(needed, max(w.there.last+1, wal.SegmentNumber(p.record.StopLSN-1, w.size)))
		}
		if w.end <= needed {
			p.describeWAL(w, needed)
			p.missingProblem(p.record.StopLSN)
			return p.seeEnd(ctx, w)
		}
		found, err := p.foresee(ctx, w, i == len(bounds)-1)
		if err != nil {
			return err
		}
		if found {
			break
		}
	}
	last, open := needed, p.target.Kind != TargetLSN && p.target.Kind != TargetImmediate
	switch {
	case p.Stop != nil:
		last, open = wal.SegmentNumber(p.Stop.EndLSN-1, w.size), false
	case open && p.guessed != 0:
		last, open = p.guessed, false
	case open && w.corrupt[w.end] != nil:
		last, open = max(needed, w.end-1), false
	case open:
		last = w.end - 1
	}
	p.describeWAL(w, last)
	switch {
	case w.standIn.timeline != 0 && (open || p.Stop == nil):
		p.judgeStandIn(w)
	case open:
		p.judgeEnd(w)
	}
	if err := p.judgeDemands(ctx, w, last); err != nil {
		return err
	}
	if err := p.judgeForks(ctx, w, p.Target.Action); err != nil || !p.deep {
		return err
	}
	return p.verifyWAL(ctx, w, last)
}

// describeWAL fills in PlannedWAL, for a recovery that needs the segments
// through last.
func (p *Plan) describeWAL(w *way, last uint64) {
	p.WAL = PlannedWAL{
		SegmentSize: w.size, Missing: []string{}, Partial: []string{},
		First: w.name(w.first).String(), Last: w.name(last).String(), Needed: int(last - w.first + 1),
		Until: w.until(last).String(),
	}
	for n := w.first; n <= last && len(p.WAL.Missing) < maxMissing; n++ {
		stored, ok := w.there.segments[n]
		p.WAL.StoredSize += stored
		if !ok || n < last && w.standsIn(n) {
			p.missing(w, n)
		}
	}
}

// missing lists a segment as missing, with the partial one of its place.
func (p *Plan) missing(w *way, n uint64) {
	p.WAL.Missing = append(p.WAL.Missing, wal.SegmentName(w.history.SegmentTimeline(n, w.size), n, w.size).String())
	p.WAL.Partial = append(p.WAL.Partial, w.there.partial[n]...)
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
		why += fmt.Sprintf("; %s is there, which is never used unasked: fetch it with walship wal fetch into pg_wal, under the segment's name, if its end is what you want", strings.Join(p.WAL.Partial, ", "))
	}
	p.Problems = append(p.Problems, what+"; "+why)
}

// judgeEnd says what stands behind the usable WAL: a gap, a partial segment, a
// fork that wasn't reached.
func (p *Plan) judgeEnd(w *way) {
	until := wal.LSN(w.end * w.size)
	if w.broken != "" {
		p.judgeGap(fmt.Sprintf("WAL segment %s doesn't continue the WAL before it (%s)", w.name(w.end), w.broken), "", until)
	} else if w.there.last > w.end {
		p.missing(w, w.end)
		p.judgeGap(fmt.Sprintf("WAL segment %s isn't in the repository, though later ones up to %s are", w.name(w.end), w.name(w.there.last)),
			"archive it with walship wal push if a server's pg_wal still has it; else ", until)
	} else if partial := w.there.partial[w.end]; len(partial) > 0 {
		p.WAL.Partial = append(p.WAL.Partial, partial...)
		p.Notes = append(p.Notes, fmt.Sprintf(
			"the archive ends with the partial segment %s, which is never used unasked: recovery ends at %s", strings.Join(partial, ", "), until))
	}
	steps := spans(p.history)
	if fork := steps[len(steps)-1].start; until <= fork {
		p.Warnings = append(p.Warnings, fmt.Sprintf(
			"no WAL of timeline %d itself is in the repository: recovery ends at %s, not behind the fork at %s", p.Timeline, until, fork))
	}
}

// judgeGap says that recovery can't go beyond an LSN, though later WAL is
// archived. For the latest that is for the user to accept: a server would
// promote itself there without a word.
func (p *Plan) judgeGap(what, remedy string, until wal.LSN) {
	if p.target.Kind != TargetLatest || p.acceptGap {
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s: recovery can't go beyond %s", what, until))
		return
	}
	end, commit, ways := until, "", "--to-latest ends before it"
	if p.EndsAt != 0 {
		end, commit = p.EndsAt, " ("+lastCommit(p.LastIn)+")"
	}
	if p.LastIn != nil && p.LastIn.LSN >= p.record.StopLSN {
		ways += fmt.Sprintf(", and --to-lsn %s right behind that commit", p.LastIn.LSN)
	}
	p.Problems = append(p.Problems, fmt.Sprintf("%s: recovery would end at %s%s; %s%s", what, end, commit, remedy, ways))
}

// listPath lists the archived segments along a path, from number first
// through number through. It costs one listing for each timeline of the path.
func listPath(ctx context.Context, c Catalogue, systemID uint64, h wal.History, first, through, size uint64) (archived, error) {
	there := archived{segments: map[uint64]int64{}, partial: map[uint64][]string{}, standIns: map[uint64]archivedStandIn{}}
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
				there.partial[n] = append(there.partial[n], file.Name.String())
			case file.Name.Kind == wal.KindSegment && h.SegmentTimeline(n, size) == tli:
				there.segments[n] = file.Size
				there.last = max(there.last, n)
			case file.Name.Kind == wal.KindSegment && s.end != 0:
				there.standIns[n] = archivedStandIn{standIn{n, tli, s.end}, file.Size}
			}
		}
	}
	return there, nil
}
