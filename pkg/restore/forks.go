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
		if s.end <= p.record.StartLSN || n >= w.end || w.standsIn(n) {
			continue
		}
		if p.EndsAt != 0 && p.EndsAt <= s.end {
			p.judgeBeforeFork(s, wal.LSN(n*w.size), action)
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

// judgeBeforeFork looks at a recovery that ends in a fork's segment, which begins
// at start, before the fork. Its timeline is then still the parent's, and under
// that name PostgreSQL looks for the state of what was prepared in the segment when
// it promotes (RecoverPreparedTransactions of
// src/backend/access/transam/twophase.c); but the recovery fetched the child's.
func (p *Plan) judgeBeforeFork(s span, start wal.LSN, action Action) {
	if p.EndsAt <= start {
		return
	}
	for _, t := range p.PendingPrepared {
		if t.LSN < start {
			continue
		}
		what := fmt.Sprintf("transaction %d (%q) is prepared and left pending right before timeline %d is left at %s, and PostgreSQL doesn't find its state there when recovery ends",
			t.XID, t.GID, s.timeline, s.end)
		if action == ActionPromote {
			p.Problems = append(p.Problems, fmt.Sprintf("%s: where that timeline's own last segment is archived, --timeline %d reaches it; --target-action pause shows the data", what, s.timeline))
		} else {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s: the server can be read at the target, but not promoted; with --timeline %d it can, where that timeline's own last segment is archived", what, s.timeline))
		}
		return
	}
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
