package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// The pause between two looks at the archive grows from the first to the
// second: the usual archiver is done within seconds, and a listing isn't free.
const (
	firstProvePause = 100 * time.Millisecond
	mostProvePause  = 5 * time.Second
)

// proveWAL waits until all the WAL that the backup needs is in the repository:
// its segments from start to stop, and the history file of its timeline. It
// gives up when nothing of that arrived for options.WALTimeout.
func (r *run) proveWAL(ctx context.Context) error {
	progressed, known, pause := time.Now(), -1, firstProvePause
	var lastLine time.Time
	for {
		missing, err := r.missingWAL(ctx)
		switch {
		case err == nil && len(missing) == 0:
			return nil
		case err != nil && (ctx.Err() != nil || lasting(err)):
			return err
		case err == nil && len(missing) != known:
			progressed, known = time.Now(), len(missing)
		}
		if time.Since(progressed) >= r.options.WALTimeout {
			return r.missingError(missing, err)
		}
		if time.Since(lastLine) >= progressInterval {
			lastLine = time.Now()
			r.logWait(missing, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, mostProvePause)
	}
}

// missingWAL lists what isn't archived, in the order in which PostgreSQL hands
// it over.
func (r *run) missingWAL(ctx context.Context) ([]wal.FileName, error) {
	b := &r.record
	var missing []wal.FileName
	if b.Timeline > 1 {
		history := wal.HistoryName(b.Timeline)
		_, err := r.repository.StatWAL(ctx, b.SystemID, history)
		if errors.Is(err, storage.ErrNotExist) {
			missing = append(missing, history)
		} else if err != nil {
			return nil, err
		}
	}
	// A primary stays on one timeline from start to stop.
	segments, err := archive.Missing(ctx, r.repository, b.SystemID, wal.History{Timeline: b.Timeline}, b.StartLSN, b.StopLSN, b.SegmentSize)
	return append(missing, segments...), err
}

// lasting tells errors that no waiting ends.
func lasting(err error) bool {
	return errors.Is(err, storage.ErrDenied) || errors.Is(err, storage.ErrNoStore) || errors.Is(err, storage.ErrInvalid)
}

func (r *run) logWait(missing []wal.FileName, err error) {
	if err != nil {
		r.log.Warn("can't see which WAL is archived, trying again", "id", r.record.ID, "error", err)
		return
	}
	r.log.Info("waiting for WAL to be archived", "id", r.record.ID, "next", missing[0].String(), "missing", len(missing))
}

func (r *run) missingError(missing []wal.FileName, err error) error {
	if err != nil {
		return fmt.Errorf("see whether the backup's WAL is archived: %w", err)
	}
	return fmt.Errorf("%s, which the backup needs, isn't archived (%d files are missing), and nothing arrived for %s: look for failures of archive_command in the server's log and in pg_stat_archiver",
		missing[0], len(missing), r.options.WALTimeout)
}
