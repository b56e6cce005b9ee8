package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// judgeDemands finds what the WAL to be replayed demands: of the server's
// settings, with less of which the server would pause before the target, and
// of the directories where it creates tablespaces. last is the segment with
// the last record.
func (p *Plan) judgeDemands(ctx context.Context, w *way, last uint64) error {
	whole := true
	if err := w.load(ctx, w.first, min(last+1, w.end)); err != nil {
		return err
	}
	for n := w.first; n <= last && n < w.end; n++ {
		s := w.summaries[n]
		whole = whole && s.Ending != 0
		p.demands = p.demands.Max(s.Demands)
		if n < last {
			joined, known := w.joined(n)
			whole = whole && known
			p.demands = p.demands.Max(joined.Demands)
		}
		p.noteCreated(s)
	}
	p.warnOfCreated()
	if p.demands.Minimal {
		if err := p.judgeMinimal(ctx, w, last); err != nil {
			return err
		}
	}
	if !whole {
		p.Notes = append(p.Notes, "not all of the WAL could be searched for tablespaces that the original created since the backup began: recovery makes those in the same places")
		p.Notes = append(p.Notes, "not all of the WAL could be searched for changes of the server's settings: if the server pauses early and its log says that parameter settings are insufficient, raise those in postgresql.auto.conf and start it again")
	}
	return nil
}

// judgeMinimal says what it means that wal_level was minimal on the way:
// recovery ends with an error at the record that says so
// (CheckRequiredParameterValues of
// src/backend/access/transam/xlogrecovery.c).
func (p *Plan) judgeMinimal(ctx context.Context, w *way, last uint64) error {
	for n := w.first; n <= last && n < w.end; n++ {
		joined, _ := w.joined(n)
		if !w.summaries[n].Demands.Minimal && !joined.Demands.Minimal {
			continue
		}
		at, err := p.minimalIn(ctx, w, n)
		if errors.Is(err, crypto.ErrNoIdentity) {
			p.Warnings = append(p.Warnings, "wal_level was minimal at some time since the backup (not verified), and no recovery goes on behind that: if the target isn't before it, start from a later backup")
			return nil
		}
		if err != nil {
			return fmt.Errorf("plan restore: %w", err)
		}
		if at != 0 {
			p.Problems = append(p.Problems, fmt.Sprintf("wal_level was minimal from LSN %s on, where recovery ends with an error: start from a backup that was taken later, or choose a target before that", at))
			return nil
		}
	}
	return nil
}

// minimalIn returns the first record of a segment that is replayed and sets
// wal_level to minimal; 0 if there is none.
func (p *Plan) minimalIn(ctx context.Context, w *way, n uint64) (at wal.LSN, err error) {
	_, err = w.eachRecord(ctx, n, n, w.end, func(r *wal.Record, c *wal.Contents) (bool, error) {
		if r.LSN < p.record.StartLSN {
			return true, nil
		}
		if p.Stop != nil && (r.LSN > p.Stop.LSN || p.Stop.Before && r.LSN == p.Stop.LSN) {
			return false, nil
		}
		kind, _ := r.ControlKind()
		if kind != wal.ControlParameterChange {
			return true, nil
		}
		if err := r.Decode(c); err != nil {
			return false, err
		}
		parameters, err := r.ParameterChange(c)
		if err == nil && parameters.Demands().Minimal {
			at = r.LSN
		}
		return at == 0, err
	})
	return at, err
}

// findPoint looks for the newest restore point with the target's name on the
// path, from the oldest of the given backups on.
func (p *Plan) findPoint(ctx context.Context, c Catalogue, refs []repo.BackupRef) error {
	refs = slices.DeleteFunc(slices.Clone(refs), func(ref repo.BackupRef) bool {
		return offPath(p.history, ref.Timeline, ref.StartLSN, ref.StopLSN) != ""
	})
	if len(refs) == 0 {
		return nil
	}
	oldest := slices.MinFunc(refs, func(a, b repo.BackupRef) int { return cmp.Compare(a.StartLSN, b.StartLSN) })
	b, err := c.Backup(ctx, oldest)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	p.record = b
	w := p.wayFrom(c)
	p.record = nil
	if err := w.list(ctx, ^uint64(0)); err != nil {
		return err
	}
	if err := w.load(ctx, w.first, w.end); err != nil {
		return err
	}
	whole, unlisted := true, false
	for n := w.first; n < w.end; n++ {
		s := w.summaries[n]
		whole = whole && s.Ending != 0
		unlisted = unlisted || s.RestorePointCount > uint64(len(s.RestorePoints))
		for _, point := range s.RestorePoints {
			if point.Name == p.target.Name && !w.astray(point.LSN) {
				p.point = max(p.point, point.LSN)
			}
		}
	}
	switch {
	case p.point != 0:
		p.pointNote = fmt.Sprintf("the archived WAL has the restore point %q at %s (not verified); if there are several of that name, recovery stops at the first behind the backup", p.target.Name, p.point)
	case whole && !unlisted:
		p.pointWarning = fmt.Sprintf("the archived WAL has no restore point %q since backup %s (not verified): the server would end with an error instead of stopping", p.target.Name, oldest.ID)
	default:
		p.pointNote = "where the restore point lies isn't known: if it is older than this backup, choose an earlier one with --backup"
	}
	return nil
}
