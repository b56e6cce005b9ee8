package restore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Of is a repository as the planner sees it.
func Of(r *repo.Repository) Catalogue { return catalogue{r} }

type catalogue struct{ *repo.Repository }

// Summary reads a segment's summary from its context header. Nothing shows
// that it is genuine, so a plan only warns and chooses by it.
func (c catalogue) Summary(ctx context.Context, systemID uint64, name wal.FileName) (wal.Summary, error) {
	header, err := archive.ReadHeader(ctx, c.Repository, c.FileKey(systemID, name))
	if err != nil {
		return wal.Summary{}, err
	}
	return wal.ParseSummary(header.Fields)
}

const (
	maxLook  = 1024 // segments whose summaries a plan reads at most
	lookOnce = 16   // summaries that are read at a time
)

// lookBack reads the summaries of segments, given by number, from the last to
// the first, until visit returns false. It reports whether visit has seen all
// that matters: a segment without a readable summary, or more segments than
// maxLook, leave something unseen.
func (p *Plan) lookBack(ctx context.Context, c Catalogue, numbers []uint64, size uint64, visit func(wal.Summary) bool) (whole bool, err error) {
	whole = len(numbers) <= maxLook
	numbers = numbers[max(0, len(numbers)-maxLook):]
	for len(numbers) > 0 {
		batch := numbers[max(0, len(numbers)-lookOnce):]
		numbers = numbers[:len(numbers)-len(batch)]
		summaries := make([]wal.Summary, len(batch))
		group, groupCtx := errgroup.WithContext(ctx)
		for i, n := range batch {
			group.Go(func() error {
				name := wal.SegmentName(p.history.SegmentTimeline(n, size), n, size)
				// What can't be read stays the zero Summary: not known.
				summaries[i], _ = c.Summary(groupCtx, p.SystemID, name)
				return groupCtx.Err()
			})
		}
		if err := group.Wait(); err != nil {
			return false, fmt.Errorf("plan restore: %w", err)
		}
		for _, s := range slices.Backward(summaries) {
			if s.Ending == 0 {
				whole = false
				continue
			}
			if !visit(s) {
				return true, nil
			}
		}
	}
	return whole, nil
}

// judgeDemands finds what the WAL to be replayed demands: of the server's
// settings, with less of which the server would pause before the target, and
// of the directories where it creates tablespaces.
func (p *Plan) judgeDemands(ctx context.Context, c Catalogue, there archived, first, last uint64) error {
	whole, err := p.lookBack(ctx, c, there.numbers(first, last), p.record.SegmentSize, func(s wal.Summary) bool {
		p.demands = p.demands.Max(s.Demands)
		p.noteCreated(s)
		return true
	})
	if err != nil {
		return err
	}
	p.warnOfCreated()
	if p.demands.Minimal {
		p.Warnings = append(p.Warnings, "wal_level was minimal at some time since the backup (not verified), and no recovery goes on behind that: if the target isn't before it, start from a later backup")
	}
	if !whole {
		p.Notes = append(p.Notes, "not all of the WAL could be searched for tablespaces that the original created since the backup began: recovery makes those in the same places")
		p.Notes = append(p.Notes, "not all of the WAL could be searched for changes of the server's settings: if the server pauses early and its log says that parameter settings are insufficient, raise those in postgresql.auto.conf and start it again")
	}
	return nil
}

// judgeTime warns when no commit or abort behind the target time is in sight:
// recovery would come to the end of the WAL without a stop, which is fatal.
func (p *Plan) judgeTime(ctx context.Context, c Catalogue, there archived, first, last uint64) error {
	target := wal.TimestampOf(p.target.Time)
	if p.target.Exclusive {
		target--
	}
	var latest wal.Timestamp
	stops := false
	whole, err := p.lookBack(ctx, c, there.numbers(first, last), p.record.SegmentSize, func(s wal.Summary) bool {
		if s.Stops > 0 {
			latest, stops = max(latest, s.MaxTime), true
		}
		return latest <= target
	})
	if err != nil || stops && latest > target || !whole {
		return err
	}
	what := "no transaction that ended since the backup is archived"
	if stops {
		what = fmt.Sprintf("the last transaction that is archived ended at %s", FormatTime(latest.Time()))
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf(
		"%s (not verified), and there is none behind the target: the server would end with an error at %s instead of stopping; recover to the latest, or to an earlier time", what, p.WAL.Until))
	return nil
}

// judgeLSN warns when no record that starts at or behind the target is in
// sight, though the target's segment, the last one, is.
func (p *Plan) judgeLSN(ctx context.Context, c Catalogue, there archived, last uint64) error {
	if there.has(last + 1) {
		return nil
	}
	_, err := p.lookBack(ctx, c, []uint64{last}, p.record.SegmentSize, func(s wal.Summary) bool {
		if s.Last < p.target.LSN {
			p.Warnings = append(p.Warnings, fmt.Sprintf(
				"the last record that is archived starts at %s (not verified), before the target: the server would end with an error at %s instead of stopping", s.Last, p.WAL.Until))
		}
		return true
	})
	return err
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
	size := b.SegmentSize
	first := wal.SegmentNumber(b.StartLSN, size)
	there, err := listPath(ctx, c, p.SystemID, p.history, first, ^uint64(0), size)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	unlisted := false
	whole, err := p.lookBack(ctx, c, there.numbers(first, there.last), size, func(s wal.Summary) bool {
		unlisted = unlisted || s.RestorePointCount > uint64(len(s.RestorePoints))
		for _, point := range s.RestorePoints {
			if point.Name == p.target.Name {
				p.point = max(p.point, point.LSN)
			}
		}
		return p.point == 0
	})
	if err != nil {
		return err
	}
	switch {
	case p.point != 0:
		p.Notes = append(p.Notes, fmt.Sprintf("the archived WAL has the restore point %q at %s (not verified); if there are several of that name, recovery stops at the first behind the backup", p.target.Name, p.point))
	case whole && !unlisted:
		p.Warnings = append(p.Warnings, fmt.Sprintf("the archived WAL has no restore point %q since backup %s (not verified): the server would end with an error instead of stopping", p.target.Name, oldest.ID))
	default:
		p.Notes = append(p.Notes, "where the restore point lies isn't known: if it is older than this backup, choose an earlier one with --backup")
	}
	return nil
}

// numbers lists the archived segments from first to last, ascending.
func (a archived) numbers(first, last uint64) []uint64 {
	all := slices.Sorted(maps.Keys(a.segments))
	return slices.DeleteFunc(all, func(n uint64) bool { return n < first || n > last })
}
