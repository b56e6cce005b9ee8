package restore

import (
	"fmt"

	"github.com/walship/walship/pkg/wal"
)

// standIn is the segment of a fork in an ancestor's name, where the child's own
// isn't archived. PostgreSQL looks for the child's, then takes the ancestor's
// (XLogFileReadAnyTLI of src/backend/access/transam/xlogrecovery.c). It has the
// same WAL up to the fork; behind that it has what the ancestor wrote when it
// was left, and recovery replays that, too.
type standIn struct {
	number   uint64
	timeline wal.TimelineID // the ancestor's; 0: there is no such segment
	fork     wal.LSN        // where the way leaves that
}

// takeStandIn lets the way go on to the fork in an ancestor's segment, where the
// first one that isn't there has such a copy. A backup that ends behind the fork
// needs the child's own.
func (w *way) takeStandIn() {
	found, ok := w.there.standIns[w.end]
	if !ok {
		return
	}
	w.standIn = found.standIn
	if found.fork >= w.stop && found.fork > wal.LSN(w.end*w.size) {
		w.there.segments[w.end] = found.stored
		w.end++
	}
}

// standsIn tells whether a segment is read in an ancestor's name.
func (w *way) standsIn(n uint64) bool {
	return w.standIn.timeline != 0 && n == w.standIn.number && n < w.end
}

// until returns where the usable WAL ends, for a recovery that needs the segments
// through last.
func (w *way) until(last uint64) wal.LSN {
	end := min(w.end, last+1)
	if w.standsIn(end - 1) {
		return w.standIn.fork
	}
	return wal.LSN(end * w.size)
}

// astray tells whether a record isn't on the way any more: it is in a stand-in,
// behind the fork.
func (w *way) astray(lsn wal.LSN) bool { return w.standIn.timeline != 0 && lsn >= w.standIn.fork }

// judgeStandIn says what a recovery that comes to the end of a stand-in does.
func (p *Plan) judgeStandIn(w *way) {
	s := w.standIn
	own := wal.SegmentName(w.history.SegmentTimeline(s.number, w.size), s.number, w.size)
	text := fmt.Sprintf("WAL segment %s isn't in the repository, but %s is, which PostgreSQL takes in its place: recovery would go on behind the fork at %s with what timeline %d wrote afterwards, which isn't on the way",
		own, wal.SegmentName(s.timeline, s.number, w.size), s.fork, s.timeline)
	if len(p.WAL.Missing) == 0 {
		p.WAL.Missing = append(p.WAL.Missing, own.String())
	}
	if p.target.Kind != TargetLatest {
		p.Warnings = append(p.Warnings, text)
		return
	}
	p.Problems = append(p.Problems, fmt.Sprintf("%s; --timeline %d --to-lsn %s --exclusive ends at the fork", text, s.timeline, s.fork))
}
