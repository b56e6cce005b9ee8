package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// The pause between two looks at the archive grows from the first to the
// second: to archive a segment takes 50 ms or seconds, and a listing isn't free.
const (
	firstProvePause = 20 * time.Millisecond
	mostProvePause  = 5 * time.Second
)

// waitInterval is the time between two lines that say for which WAL a backup
// waits.
const waitInterval = 30 * time.Second

// proveWAL waits until all the WAL that the backup needs is in the repository:
// its segments from start to stop, and the history file of its timeline. A
// segment of that name isn't proof: another server that archives under this
// cluster's name may have put its own there. So the server must say too that
// its archive command succeeded. proveWAL gives up when nothing of that
// happened for options.WALTimeout.
func (r *run) proveWAL(ctx context.Context) error {
	progressed, known, pause := time.Now(), -1, firstProvePause
	var lastLine time.Time
	for {
		missing, err := r.missingWAL(ctx)
		var unsure []wal.FileName
		if err == nil && len(missing) == 0 && r.asksArchiver() {
			unsure, err = r.notHandedOver()
		}
		left := len(missing) + len(unsure)
		switch {
		case err == nil && left == 0:
			return r.checkHeaders(ctx)
		case err != nil && (ctx.Err() != nil || storage.Lasting(err)):
			return err
		case err == nil && left != known:
			progressed, known = time.Now(), left
		}
		if time.Since(progressed) >= r.options.WALTimeout {
			return r.missingError(missing, unsure, err)
		}
		if time.Since(lastLine) >= waitInterval {
			lastLine = time.Now()
			r.logWait(append(missing, unsure...), err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, mostProvePause)
	}
}

// asksArchiver tells whether the server's own notes say what it archived. They
// lie in its data directory; a standby has them if it archives, too; and what
// was streamed is known to be the server's.
func (r *run) asksArchiver() bool {
	b := &r.record
	return !b.Remote && r.stream == nil && (!b.Standby || r.facts.ArchiveMode == "always")
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
	// A backup stays on one timeline from start to stop.
	segments, err := archive.Missing(ctx, r.repository, b.SystemID, wal.History{Timeline: b.Timeline}, b.StartLSN, b.StopLSN, b.SegmentSize)
	return append(missing, segments...), err
}

// notHandedOver lists the segments that the backup needs for which the
// server's archive command hasn't succeeded.
func (r *run) notHandedOver() ([]wal.FileName, error) {
	b := &r.record
	var list []wal.FileName
	for n := wal.SegmentNumber(b.StartLSN, b.SegmentSize); n <= wal.SegmentNumber(b.StopLSN-1, b.SegmentSize); n++ {
		name := wal.SegmentName(b.Timeline, n, b.SegmentSize)
		archived, err := handedOver(filepath.Join(b.DataDirectory, pgdata.WALDir), name.String())
		if err != nil {
			return nil, fmt.Errorf("see whether %s is archived: %w", name, err)
		}
		if !archived {
			list = append(list, name)
		}
	}
	return list, nil
}

// handedOver tells whether the server has archived a segment: it notes so, or
// has removed the segment since. It asks in the order of XLogArchiveIsBusy in
// src/backend/access/transam/xlogarchive.c.
func handedOver(dir, segment string) (bool, error) {
	_, done := os.Lstat(filepath.Join(dir, "archive_status", segment+".done"))
	if done == nil {
		return true, nil
	}
	_, there := os.Lstat(filepath.Join(dir, segment))
	switch {
	case !errors.Is(done, fs.ErrNotExist):
		return false, done
	case there == nil:
		return false, nil
	case errors.Is(there, fs.ErrNotExist):
		return true, nil
	}
	return false, there
}

// headersAtOnce is how many headers of segments are read at a time.
const headersAtOnce = 8

// checkHeaders holds the header of every segment that the backup needs against
// what it must be. A push remembers for a short time which repository it
// writes to: if this one was made anew at the same URL meanwhile, segments
// carry the old one's id, and no restore would take them.
func (r *run) checkHeaders(ctx context.Context) error {
	b := &r.record
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(headersAtOnce)
	for n := wal.SegmentNumber(b.StartLSN, b.SegmentSize); n <= wal.SegmentNumber(b.StopLSN-1, b.SegmentSize); n++ {
		name := wal.SegmentName(b.Timeline, n, b.SegmentSize)
		group.Go(func() error {
			header, err := archive.ReadHeader(ctx, r.repository, r.repository.FileKey(b.SystemID, name))
			if err != nil {
				return fmt.Errorf("check the WAL that the backup needs: %w", err)
			}
			want := repo.Header(b.SystemID, name)
			if header.Repository != r.repository.Info.ID || header.Kind != want.Kind || header.SystemID != want.SystemID || header.Name != want.Name {
				return fmt.Errorf("%s, which the backup needs, was stored as %s %s of cluster %d in repository %s, and this is repository %s: "+
					"if it was made anew at this place, take the backup again in %s", name, header.Kind, header.Name, header.SystemID,
					header.Repository, r.repository.Info.ID, archive.KnownLife)
			}
			return nil
		})
	}
	return group.Wait()
}

func (r *run) logWait(missing []wal.FileName, err error) {
	if err != nil {
		r.log.Warn("can't see which WAL is archived, trying again", "id", r.record.ID, "error", err)
		return
	}
	args := []any{"id", r.record.ID, "next", missing[0].String(), "missing", len(missing)}
	if hint := r.waitHint(); hint != "" {
		args = append(args, "hint", strings.TrimPrefix(hint, "; "))
	}
	r.log.Info("waiting for WAL to be archived", args...)
}

func (r *run) missingError(missing, unsure []wal.FileName, err error) error {
	if err != nil {
		return fmt.Errorf("see whether the backup's WAL is archived: %w", err)
	}
	if len(missing) == 0 {
		return fmt.Errorf("%s, which the backup needs, is in the repository, but this server's archive_command hasn't succeeded for it, and nothing changed for %s: "+
			"another server may archive under this cluster's name; look for failures of archive_command in the server's log and in pg_stat_archiver",
			unsure[0], r.options.WALTimeout)
	}
	return fmt.Errorf("%s, which the backup needs, isn't archived (%d files are missing), and nothing arrived for %s: look for failures of archive_command in the server's log and in pg_stat_archiver%s",
		missing[0], len(missing), r.options.WALTimeout, r.waitHint())
}
