package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/wal"
)

// judgeForks looks for a fork that PostgreSQL can't replay with hot_standby on:
// where a transaction is prepared in the fork's segment, before the fork, and
// the new timeline begins with a checkpoint. To replay that (xlog_redo of
// src/backend/access/transam/xlog.c) it reads the transaction's state from WAL
// once more, under the parent's name of the segment; but a recovery fetches the
// child's. Without hot standby the state is read at the end, when the timeline
// is the child's.
func (p *Plan) judgeForks(ctx context.Context, w *way, action Action) error {
	if p.record.Required.MaxPreparedTransactions == 0 && p.demands.MaxPreparedTransactions == 0 {
		return nil
	}
	for _, s := range spans(p.history) {
		n := wal.SegmentNumber(s.end, w.size)
		if s.end <= p.record.StartLSN || n >= w.end || p.EndsAt != 0 && p.EndsAt <= s.end {
			continue
		}
		prepared, err := p.preparedAtFork(ctx, w, s.end)
		if errors.Is(err, crypto.ErrNoIdentity) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("plan restore: %w", err)
		}
		if len(prepared) == 0 {
			continue
		}
		what := fmt.Sprintf("transaction %d (%q) is prepared where timeline %d is left at %s, and with hot_standby on PostgreSQL doesn't find its state there",
			prepared[0].XID, prepared[0].GID, s.timeline, s.end)
		if action == ActionPause {
			p.Problems = append(p.Problems, what+": pausing at the target needs hot_standby; --target-action promote or shutdown reaches it")
			continue
		}
		p.noHotStandby = true
		p.Notes = append(p.Notes, what+": it is off in this restore, so that no queries are taken before recovery ends")
	}
	return nil
}

// preparedAtFork lists the transactions that are prepared in a fork's segment
// and pending at the fork, if the new timeline begins with a checkpoint.
func (p *Plan) preparedAtFork(ctx context.Context, w *way, fork wal.LSN) ([]Prepared, error) {
	n, checkpoint := wal.SegmentNumber(fork, w.size), false
	r := newReplay(Target{Kind: TargetLatest}, w.history, p.record.StartLSN, 0, 0, wal.LSN(n*w.size))
	_, err := w.eachRecord(ctx, n, n, w.end, func(record *wal.Record, c *wal.Contents) (bool, error) {
		if record.LSN >= fork {
			kind, _ := record.ControlKind()
			checkpoint = kind == wal.ControlCheckpointShutdown
			return false, nil
		}
		return r.take(record, c)
	})
	if err != nil || !checkpoint {
		return nil, err
	}
	var all []Prepared
	for _, xid := range slices.Sorted(maps.Keys(r.prepared)) {
		all = append(all, r.prepared[xid])
	}
	return all, nil
}
