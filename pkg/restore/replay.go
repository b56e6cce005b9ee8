package restore

import (
	"slices"

	"github.com/walship/walship/pkg/wal"
)

// replay follows a recovery through the records of WAL, and finds where it
// stops, as PerformWalRecovery, recoveryStopsBefore and recoveryStopsAfter of
// src/backend/access/transam/xlogrecovery.c do (xlog.c until 14). Records may
// be left out that neither stop the recovery nor end a transaction.
type replay struct {
	target  Target
	history wal.History
	redo    wal.LSN // replay starts here
	// skip is a record that isn't replayed: the checkpoint of a backup that
	// began with a shutdown, which has its redo point at itself.
	skip wal.LSN
	stop wal.LSN // the backup is consistent when a record is replayed that ends here or behind

	consistent bool
	end        wal.LSN // behind the last record that was replayed
	stopped    *Stop
	early      bool // it stopped before it was consistent
	lastIn     *Ending
	firstOut   *Ending

	// The latest time at which a transaction ended, by the records replayed.
	ended  bool
	latest wal.Timestamp

	// Of a target transaction: the top-level one that it committed with.
	topLevel *Ending

	prepared map[uint32]Prepared // that are pending
	finished map[uint32]bool     // prepared transactions that ended
}

// newReplay begins at a segment, of which start is the first byte. All before
// it has been replayed.
func newReplay(t Target, h wal.History, redo, checkpoint, stop, start wal.LSN) *replay {
	r := &replay{target: t, history: h, redo: redo, stop: stop, consistent: start >= stop, prepared: map[uint32]Prepared{}, finished: map[uint32]bool{}}
	if checkpoint == redo {
		r.skip = checkpoint
	}
	return r
}

// take replays one record. It reports false when all is known: recovery has
// stopped, and the first transaction that isn't in is found.
func (p *replay) take(r *wal.Record, c *wal.Contents) (more bool, err error) {
	if r.LSN < p.redo {
		return true, nil
	}
	if r.LSN == p.skip {
		p.applied(r)
		return true, nil
	}
	fact, err := factOf(r, c)
	if err != nil {
		return false, err
	}
	if p.stopped == nil && p.target.stopsBefore(r, &fact, p.consistent) {
		p.stopAt(r, &fact, true)
	}
	if p.stopped != nil {
		if !fact.ends || !committed(fact.transaction.Action) {
			return true, nil
		}
		p.firstOut = p.ending(r, &fact)
		return false, nil
	}
	p.applied(r)
	p.note(r, &fact)
	if p.target.stopsAfter(r, &fact, p.consistent) {
		p.stopAt(r, &fact, false)
	}
	return true, nil
}

func (p *replay) applied(r *wal.Record) {
	p.end = r.Next
	p.consistent = p.consistent || r.Next >= p.stop
}

// note remembers what a replayed record says of transactions.
func (p *replay) note(r *wal.Record, f *fact) {
	t := &f.transaction
	if f.ends && (!p.ended || t.Time > p.latest) {
		p.ended, p.latest = true, t.Time
	}
	switch {
	case f.ends && committed(t.Action):
		p.lastIn = p.ending(r, f)
		if p.target.Kind == TargetXID && t.XID != uint32(p.target.XID) && slices.Contains(t.Subtransactions, uint32(p.target.XID)) {
			p.topLevel = p.lastIn
		}
	case f.prepares:
		p.prepared[t.XID] = Prepared{XID: t.XID, GID: t.GID, Time: t.Time.Time(), LSN: r.LSN, Database: t.Database}
	}
	if f.ends && (t.Action == wal.ActionCommitPrepared || t.Action == wal.ActionAbortPrepared) {
		delete(p.prepared, t.XID)
		p.finished[t.XID] = true
	}
}

func (p *replay) stopAt(r *wal.Record, f *fact, before bool) {
	p.early = !p.consistent
	if before && p.end == 0 {
		p.end = endBefore(r.LSN)
	}
	s := &Stop{Kind: "record", Before: before, LSN: r.LSN, EndLSN: r.Next}
	switch {
	case p.target.Kind == TargetImmediate:
		s.Kind = "consistency"
	case f.ends:
		s.Kind, s.Time, s.XID = endingKinds[f.transaction.Action], f.transaction.Time.Time(), f.transaction.XID
	case f.point:
		s.Kind, s.Time, s.Name = "restore point", f.restorePoint.Time.Time(), f.restorePoint.Name
	}
	p.stopped = s
}

// endBefore returns where the record before the one at lsn ends: there, but for
// a page header between them.
func endBefore(lsn wal.LSN) wal.LSN {
	const pageSize = 8 << 10
	if offset := lsn % pageSize; offset == wal.ShortHeaderSize || offset == wal.LongHeaderSize {
		return lsn - offset
	}
	return lsn
}

func (p *replay) ending(r *wal.Record, f *fact) *Ending {
	t := &f.transaction
	return &Ending{
		Kind: endingKinds[t.Action], Time: t.Time.Time(), XID: t.XID, LSN: r.LSN, EndLSN: r.Next,
		Timeline: p.history.TimelineAt(r.LSN), GID: t.GID,
	}
}

// fact is what a record says that can stop a recovery.
type fact struct {
	ofTransaction  bool // whatever it says of one
	ends, prepares bool // a transaction
	transaction    wal.Transaction
	point          bool
	restorePoint   wal.RestorePoint
}

func factOf(r *wal.Record, c *wal.Contents) (f fact, err error) {
	f.ofTransaction = r.Resource == wal.ResourceTransaction
	if action, ok := r.TransactionAction(); ok {
		if err := r.Decode(c); err != nil {
			return f, err
		}
		f.prepares = action == wal.ActionPrepare
		f.ends = !f.prepares
		f.transaction, err = r.Transaction(c)
		return f, err
	}
	if kind, ok := r.ControlKind(); ok && kind == wal.ControlRestorePoint {
		if err := r.Decode(c); err != nil {
			return f, err
		}
		f.point = true
		f.restorePoint, err = r.RestorePoint(c)
	}
	return f, err
}

// stopsBefore is recoveryStopsBefore: it is asked before a record is replayed.
func (t Target) stopsBefore(r *wal.Record, f *fact, consistent bool) bool {
	switch t.Kind {
	case TargetImmediate:
		return consistent
	case TargetLSN:
		return t.Exclusive && r.LSN >= t.LSN
	case TargetXID:
		return t.Exclusive && f.ends && f.transaction.XID == uint32(t.XID)
	case TargetTime:
		return f.ends && t.passed(f.transaction.Time)
	}
	return false
}

// stopsAfter is recoveryStopsAfter: it is asked when a record was replayed. It
// sees that the backup is consistent at records of transactions only; behind
// others recovery comes to the next record first, and there has to be one.
func (t Target) stopsAfter(r *wal.Record, f *fact, consistent bool) bool {
	switch t.Kind {
	case TargetImmediate:
		return consistent && f.ofTransaction
	case TargetLSN:
		return !t.Exclusive && r.LSN >= t.LSN
	case TargetXID:
		return !t.Exclusive && f.ends && f.transaction.XID == uint32(t.XID)
	case TargetName:
		return f.point && f.restorePoint.Name == t.Name
	}
	return false
}

// passed tells whether a transaction that ended at a time isn't in any more.
func (t Target) passed(at wal.Timestamp) bool {
	target := wal.TimestampOf(t.Time)
	return at > target || t.Exclusive && at == target
}
