package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// foresee finds out what the restore is going to end with, and fills in the
// plan's Promise. All WAL that the backup itself needs is there. Unless this is
// all WAL there is, it reports false, and has done nothing, where there is no
// stop.
func (p *Plan) foresee(ctx context.Context, w *way, all bool) (bool, error) {
	if err := w.load(ctx, w.first, w.end); err != nil {
		return false, err
	}
	if !w.consistent() {
		p.judgeCorrupt(w)
		return true, nil
	}
	all = all || w.corrupt[w.end] != nil
	outcome, err := p.follow(ctx, w, all)
	switch {
	case errors.Is(err, crypto.ErrNoIdentity):
		return p.guess(w, all), nil
	case err != nil:
		return false, fmt.Errorf("plan restore: %w", err)
	case outcome == nil:
		return false, nil
	case outcome.stopped != nil && outcome.firstOut == nil && !all:
		if err := p.lookFurther(ctx, w, outcome); err != nil && !errors.Is(err, object.ErrCorrupt) {
			return false, fmt.Errorf("plan restore: %w", err)
		}
	}
	return true, p.fulfil(ctx, w, outcome)
}

// seeEnd says where the WAL ends, of which something is missing, if the backup
// itself is consistent there.
func (p *Plan) seeEnd(ctx context.Context, w *way) error {
	if !w.consistent() {
		return nil
	}
	if err := w.load(ctx, w.first, w.end); err != nil {
		return err
	}
	p.Range = p.rangeOf(w, w.until(w.end), nil)
	if !w.consistent() {
		p.judgeCorrupt(w)
		return nil
	}
	r, err := p.followToEnd(ctx, w)
	switch {
	case errors.Is(err, crypto.ErrNoIdentity):
		return nil
	case err != nil:
		return fmt.Errorf("plan restore: %w", err)
	}
	p.LastIn, p.EndsAt, p.Certified, p.broken = r.lastIn, r.end, w.certain(p), w.broken != ""
	p.Range = p.rangeOf(w, r.end, r)
	p.Nearest = &Nearest{Before: r.lastIn}
	p.judgeCorrupt(w)
	p.Problems[0] += fmt.Sprintf("; the WAL that is there ends at %s: %s", r.end, lastCommit(r.lastIn))
	return nil
}

// follow replays the segments where recovery can stop, in their order. Where it
// doesn't, it replays the end of the WAL if this is all there is, else it
// returns nil.
func (p *Plan) follow(ctx context.Context, w *way, all bool) (*replay, error) {
	var topLevel *Ending
	for n := w.first; n < w.end; n++ {
		if !w.mayStop(p.target, p.record.StopLSN, n) {
			continue
		}
		r, err := p.replay(ctx, w, n)
		if err != nil {
			return nil, err
		}
		if r.stopped != nil {
			if err := p.findPending(ctx, w, r, n); err != nil {
				return nil, err
			}
			return r, p.lookAround(ctx, w, r, n)
		}
		if topLevel == nil {
			topLevel = r.topLevel
		}
	}
	if !all {
		return nil, nil
	}
	r, err := p.followToEnd(ctx, w)
	if err == nil && r.topLevel == nil {
		r.topLevel = topLevel
	}
	return r, err
}

// replay replays the records that start in a segment.
func (p *Plan) replay(ctx context.Context, w *way, n uint64) (*replay, error) {
	b := p.record
	r := newReplay(p.target, w.history, b.StartLSN, b.Checkpoint, b.StopLSN, wal.LSN(n*w.size))
	_, err := w.eachRecord(ctx, n, n, w.end, r.take)
	return r, err
}

// followToEnd replays the end of the archived WAL.
func (p *Plan) followToEnd(ctx context.Context, w *way) (*replay, error) {
	first := w.end - 1
	for s := w.summaries[first]; first > w.first && s.Ending != 0 && (s.First == 0 || w.astray(s.First)); s = w.summaries[first] {
		first--
	}
	r, err := p.replay(ctx, w, first)
	if err != nil {
		return nil, err
	}
	if err := p.findPending(ctx, w, r, first); err != nil {
		return nil, err
	}
	return r, p.lookAround(ctx, w, r, first)
}

// lookAround finds the last commit before a replay that began at a segment,
// and the first one behind its stop.
func (p *Plan) lookAround(ctx context.Context, w *way, r *replay, first uint64) error {
	for n := first; r.lastIn == nil && n > w.first; {
		if n--; !w.commits(n) {
			continue
		}
		before, err := p.replay(ctx, w, n)
		if err != nil {
			return err
		}
		r.lastIn = before.lastIn
	}
	if r.stopped == nil || r.firstOut != nil {
		return nil
	}
	for n := max(wal.SegmentNumber(r.stopped.LSN, w.size), w.first); r.firstOut == nil && n < w.end; n++ {
		if !w.commits(n) {
			continue
		}
		behind := *r
		if _, err := w.eachRecord(ctx, n, n, w.end, behind.seek); err != nil {
			return err
		}
		r.firstOut = behind.firstOut
	}
	return nil
}

// lookFurther looks for the first commit that isn't in behind the WAL that is
// listed, but not far.
func (p *Plan) lookFurther(ctx context.Context, w *way, r *replay) error {
	const far = 64 // segments
	ahead := p.wayFrom(w.c)
	ahead.first = w.end - 1
	if err := ahead.list(ctx, ahead.first+far); err != nil {
		return err
	}
	if err := ahead.load(ctx, ahead.first, ahead.end); err != nil {
		return err
	}
	return p.lookAround(ctx, ahead, r, ahead.first)
}

// seek looks for the first commit that isn't in any more.
func (p *replay) seek(r *wal.Record, c *wal.Contents) (more bool, err error) {
	if p.replayed(r.LSN) {
		return true, nil
	}
	return p.take(r, c)
}

// replayed tells whether the record at lsn is replayed before the stop.
func (p *replay) replayed(lsn wal.LSN) bool {
	return lsn < p.stopped.LSN || !p.stopped.Before && lsn == p.stopped.LSN
}

// fulfil writes a replay's outcome into the plan.
func (p *Plan) fulfil(ctx context.Context, w *way, r *replay) error {
	p.Stop, p.LastIn, p.FirstOut, p.EndsAt, p.Certified = r.stopped, r.lastIn, r.firstOut, r.end, w.certain(p)
	p.broken = w.broken != ""
	switch {
	case r.early:
		return p.refuseEarly(ctx, w, r)
	case r.stopped != nil:
		return nil
	}
	p.Range = p.rangeOf(w, r.end, r)
	p.judgeCorrupt(w)
	if p.target.Kind != TargetLatest && !p.export {
		p.Nearest = &Nearest{Before: r.lastIn}
		if w.corrupt[w.end] == nil {
			p.Problems = append(p.Problems, p.noStop(w, r))
		}
	}
	return nil
}

// certain tells whether the summaries say all of the WAL up to the plan's
// stop, so that nothing before it can have stopped recovery.
func (w *way) certain(p *Plan) bool {
	last := w.end - 1
	if p.Stop != nil {
		last = wal.SegmentNumber(p.Stop.LSN, w.size)
	}
	if p.target.Kind == TargetLSN || p.target.Kind == TargetImmediate {
		return true
	}
	for n := w.first; n < last; n++ {
		if _, known := w.joined(n); w.summaries[n].Ending == 0 || !known {
			return w.opened >= int(last-w.first)
		}
	}
	return true
}

// rangeOf says what can be reached with WAL that ends at an LSN, up to which its
// last segment was replayed, unless that is nil.
func (p *Plan) rangeOf(w *way, end wal.LSN, replayed *replay) *Range {
	r := &Range{FromLSN: p.record.StopLSN, FromTime: p.record.StopTime.UTC(), ToLSN: end}
	latest, stops := wal.Timestamp(0), false
	for n := w.first; n < w.end; n++ {
		joined, _ := w.joined(n)
		if w.standsIn(n) {
			continue // its times are of what isn't on the way, too: see replayed
		}
		for _, s := range []wal.Summary{w.summaries[n], joined} {
			if s.Stops > 0 && (!stops || s.MaxTime > latest) {
				latest, stops = s.MaxTime, true
			}
		}
	}
	if replayed != nil && replayed.ended && (!stops || replayed.latest > latest) {
		latest, stops = replayed.latest, true
	}
	if stops {
		r.ToTime = latest.Time()
	}
	return r
}

// refuseEarly says that recovery would stop before the backup is consistent.
func (p *Plan) refuseEarly(ctx context.Context, w *way, r *replay) error {
	p.early = true
	stop := p.record.StopLSN
	text := fmt.Sprintf("recovery would stop at LSN %s, before the backup is consistent at %s", r.stopped.LSN, stop)
	p.Nearest = &Nearest{Before: r.lastIn}
	var err error
	if p.Nearest.After, err = w.firstFrom(ctx, stop); err != nil && !errors.Is(err, object.ErrCorrupt) {
		return fmt.Errorf("plan restore: %w", err)
	}
	if after := p.Nearest.After; after != nil {
		text += fmt.Sprintf("; the first commit behind that is of transaction %d, at %s", after.XID, FormatTime(after.Time))
	}
	p.Problems = append(p.Problems, text)
	return nil
}

// firstFrom returns the first commit that starts at or behind an LSN; nil if
// there is none.
func (w *way) firstFrom(ctx context.Context, from wal.LSN) (*Ending, error) {
	r := &replay{history: w.history, stopped: &Stop{Before: true, LSN: from}}
	for n := wal.SegmentNumber(from-1, w.size); n < w.end && r.firstOut == nil; n++ {
		if !w.commits(n) {
			continue
		}
		if _, err := w.eachRecord(ctx, n, n, w.end, r.seek); err != nil {
			return nil, err
		}
	}
	return r.firstOut, nil
}

// firstReachable says which commit is the first one that a restore of the oldest
// backup can end with, for a target that is before it; "" where that can't be
// read.
func (p *Plan) firstReachable(ctx context.Context, c Catalogue, oldest repo.BackupRef) string {
	const far = 64 // segments
	b, err := c.Backup(ctx, oldest)
	if err != nil {
		return ""
	}
	p.record = b
	w := p.wayFrom(c)
	p.record = nil
	if w.list(ctx, w.first+far) != nil || w.load(ctx, w.first, w.end) != nil {
		return ""
	}
	e, err := w.firstFrom(ctx, b.StopLSN)
	if err != nil || e == nil {
		return ""
	}
	return fmt.Sprintf("; the first commit behind the oldest is of transaction %d, at %s, LSN %s", e.XID, FormatTime(e.Time), e.LSN)
}

// noStop says why a recovery that comes to the end of the WAL hasn't stopped.
func (p *Plan) noStop(w *way, r *replay) string {
	id := uint32(p.target.XID)
	pending, prepared := p.pending(id)
	switch {
	case p.target.Kind == TargetXID && r.topLevel != nil:
		return fmt.Sprintf("transaction %d is a subtransaction of %d, which committed at %s: recovery doesn't stop at it; take --to-xid %d",
			id, r.topLevel.XID, FormatTime(r.topLevel.Time), r.topLevel.XID)
	case p.target.Kind == TargetXID && prepared:
		return fmt.Sprintf("transaction %d was prepared at %s, as %q, and had neither been committed nor rolled back at %s, %s: recovery doesn't stop at it; --to-lsn %s leads to right behind its PREPARE",
			id, FormatTime(pending.Time), pending.GID, r.end, w.whereEnds(), pending.LSN)
	case p.target.Kind == TargetXID:
		return fmt.Sprintf("no transaction %d ended between the backup's start and %s, %s: %s", id, r.end, w.whereEnds(), lastCommit(r.lastIn))
	case p.target.Kind == TargetName:
		return fmt.Sprintf("there is no restore point %q between the backup's start and %s, %s: %s", p.target.Name, r.end, w.whereEnds(), w.points())
	case p.target.Kind == TargetLSN:
		return fmt.Sprintf("the archived WAL ends at %s, and no record starts at or behind the target: %s", r.end, lastCommit(r.lastIn))
	case p.target.Kind == TargetImmediate:
		return fmt.Sprintf("the archived WAL ends at %s, with the backup, and the server stops there only when it has read the record that comes next; "+
			"--to-latest leads to the same end, or wait until the next segment is archived", r.end)
	}
	text := fmt.Sprintf("no transaction that ended behind the target time is in the WAL up to %s, %s: %s", r.end, w.whereEnds(), lastCommit(r.lastIn))
	if !p.Range.ToTime.IsZero() && p.Range.ToTime.After(p.Range.FromTime) {
		text += fmt.Sprintf("; times from %s to before %s can be reached", FormatTime(p.Range.FromTime), FormatTime(p.Range.ToTime))
	}
	return text + "; --to-latest restores all of that"
}

// whereEnds says what the end of the usable WAL is.
func (w *way) whereEnds() string {
	switch {
	case w.broken != "":
		return fmt.Sprintf("where segment %s doesn't continue the WAL before it", w.name(w.end))
	case w.there.last > w.end:
		return fmt.Sprintf("where segment %s is missing (later ones up to %s are archived; if a server's pg_wal still has it, walship wal push archives it)", w.name(w.end), w.name(w.there.last))
	}
	return "where the archived WAL ends"
}

// pending returns a transaction that is prepared where recovery ends.
func (p *Plan) pending(xid uint32) (Prepared, bool) {
	i := slices.IndexFunc(p.PendingPrepared, func(t Prepared) bool { return t.XID == xid })
	if i < 0 {
		return Prepared{}, false
	}
	return p.PendingPrepared[i], true
}

func lastCommit(e *Ending) string {
	if e == nil {
		return "it has no commit since the backup's start"
	}
	return fmt.Sprintf("its last commit is of transaction %d, at %s", e.XID, FormatTime(e.Time))
}

// points names restore points of the way, the newest ones.
func (w *way) points() string {
	const most = 10
	var names []string
	for n := w.end; n > w.first && len(names) < most; n-- {
		for _, point := range slices.Backward(w.summaries[n-1].RestorePoints) {
			if w.astray(point.LSN) {
				continue
			}
			names = append(names, fmt.Sprintf("%q (%s)", point.Name, FormatTime(point.Time.Time())))
		}
	}
	if len(names) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(names, ", ")
}

// guess says what the summaries say, which nobody has verified. Like foresee it
// reports false where there may be more.
func (p *Plan) guess(w *way, all bool) bool {
	const unread = "no identity opens the WAL: where recovery stops isn't verified, and which transactions are around it isn't known"
	may := p.target.Kind == TargetLatest
	for n := w.first; n < w.end && !may; n++ {
		if may = w.mayStop(p.target, p.record.StopLSN, n); may && w.summaries[n].Ending != 0 {
			p.guessed = n
		}
	}
	if p.guessed == 0 && !all {
		return false
	}
	p.Notes = append(p.Notes, unread)
	switch {
	case p.target.Kind == TargetLSN && p.target.LSN < p.record.StopLSN:
		p.early = true
		p.Problems = append(p.Problems, fmt.Sprintf("the backup isn't consistent before %s (not verified)", p.record.StopLSN))
	case !may:
		r := &replay{end: w.summaries[w.end-1].End}
		if r.end == 0 {
			r.end = wal.LSN(w.end * w.size)
		}
		p.Range = p.rangeOf(w, r.end, nil)
		if p.judgeCorrupt(w); w.corrupt[w.end] == nil {
			p.Problems = append(p.Problems, p.noStop(w, r)+" (not verified)")
		}
	case p.guessed == 0 && p.target.Kind != TargetLSN && p.target.Kind != TargetImmediate:
		p.judgeCorrupt(w)
	}
	return true
}
