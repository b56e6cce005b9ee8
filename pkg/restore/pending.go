package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/walship/walship/pkg/wal"
)

// findPending lists the transactions that are prepared where r ends: those
// that the backup has, and those that are prepared on the way, without those
// that end on the way.
func (p *Plan) findPending(ctx context.Context, w *way, r *replay, last uint64) error {
	known, err := p.preparedBefore(ctx, w)
	if err != nil {
		return err
	}
	pending := map[uint32]Prepared{}
	for _, xid := range known.xids {
		pending[xid] = Prepared{XID: xid}
	}
	complete := known.complete
	for n := w.first; n < last; n++ {
		joined, all := w.joined(n)
		complete = complete && all
		for _, s := range []wal.Summary{w.summaries[n], joined} {
			t := &s.Transactions
			complete = complete && t.Known && !t.Unlisted
			for _, xid := range t.Finished {
				delete(pending, xid)
			}
			for _, xid := range t.Prepared {
				if pending[xid], err = p.prepareOf(ctx, w, n, xid); err != nil {
					return err
				}
			}
		}
	}
	for xid := range r.finished {
		delete(pending, xid)
	}
	maps.Copy(pending, r.prepared)
	p.PreparedKnown = complete
	for _, xid := range slices.Sorted(maps.Keys(pending)) {
		p.PendingPrepared = append(p.PendingPrepared, pending[xid])
	}
	return nil
}

// preparedXIDs are transactions that were prepared before a backup began.
type preparedXIDs struct {
	xids     []uint32
	complete bool
}

// preparedBefore lists the prepared transactions that the backup has files of.
func (p *Plan) preparedBefore(ctx context.Context, w *way) (preparedXIDs, error) {
	if p.record.Required.MaxPreparedTransactions == 0 {
		return preparedXIDs{complete: true}, nil
	}
	xids, err := w.c.Prepared(ctx, p.record)
	if err != nil {
		return preparedXIDs{}, err
	}
	return preparedXIDs{xids, true}, nil
}

// prepareOf reads what the PREPARE of a transaction says, which is in
// segment n.
func (p *Plan) prepareOf(ctx context.Context, w *way, n uint64, xid uint32) (Prepared, error) {
	found := Prepared{XID: xid}
	_, err := w.eachRecord(ctx, n, n, w.end, func(r *wal.Record, c *wal.Contents) (bool, error) {
		if action, ok := r.TransactionAction(); !ok || action != wal.ActionPrepare || r.XID != xid {
			return true, nil
		}
		f, err := factOf(r, c)
		t := &f.transaction
		found = Prepared{XID: t.XID, GID: t.GID, Time: t.Time.Time(), LSN: r.LSN, Database: t.Database}
		return true, err // a later one of the same id counts
	})
	if err != nil {
		return found, fmt.Errorf("read the PREPARE of transaction %d: %w", xid, err)
	}
	return found, nil
}
