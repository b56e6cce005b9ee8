package backup

import (
	"context"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/wal"
)

// What the writing of roll-ups may cost: so many segments back, and so long.
const (
	mostRolledUp = 16384
	rollupTime   = time.Minute
)

// writeRollups gathers what the headers of the WAL since the backup before
// this one say, so that whoever plans a restore reads few objects. The backup
// is committed: that this fails is no failure of it.
func (r *run) writeRollups(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, rollupTime)
	defer cancel()
	written, err := r.rollUp(ctx)
	if err != nil {
		r.log.Warn("not all roll-ups of the archived WAL are written: plans and searches read each segment's header instead", "error", err)
	}
	if written > 0 {
		r.log.Info("roll-ups of the archived WAL are written", "count", written)
	}
}

func (r *run) rollUp(ctx context.Context) (int, error) {
	b := &r.record
	refs, err := r.repository.Backups(ctx, b.SystemID)
	if err != nil {
		return 0, err
	}
	var before wal.LSN
	for _, ref := range refs {
		if ref.Timeline == b.Timeline && ref.StartLSN < b.StartLSN {
			before = max(before, ref.StartLSN)
		}
	}
	last := wal.SegmentNumber(b.StopLSN-1, b.SegmentSize)
	first := wal.SegmentNumber(before, b.SegmentSize)
	if last-first >= mostRolledUp {
		first = last - mostRolledUp + 1
	}
	return archive.WriteRollups(ctx, r.repository, b.SystemID, b.Timeline, b.SegmentSize, first, last)
}
