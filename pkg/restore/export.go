package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Export writes a backup as pg_basebackup -Fp -Xs does: a data directory with
// its WAL from the backup's start to its end, which a server started in it
// replays by itself. There is no recovery to be set up, and nothing of walship
// in it. The plan must have been made for that (Request.Export), and for the backup's
// own end and timeline.
// It promises what Run promises of errors and interruptions.
func Export(ctx context.Context, r *repo.Repository, p *Plan, o Options) error {
	o.export = true
	if _, err := Run(ctx, r, p, o); err != nil {
		return err
	}
	if p.record.Configuration != nil {
		return nil // it lies there
	}
	if err := os.RemoveAll(StateDirectory(p.Directory)); err != nil {
		return fmt.Errorf("remove the mark of the export: %w", err)
	}
	return nil
}

// fill puts the WAL of the backup into pg_wal, and keeps a clone from archiving
// into the original's repository.
func (d *destination) fill(ctx context.Context, r *repo.Repository, p *Plan, log *slog.Logger) error {
	b := p.record
	var names []wal.FileName
	if b.Timeline > 1 {
		names = append(names, wal.HistoryName(b.Timeline))
	}
	for n := wal.SegmentNumber(b.StartLSN, b.SegmentSize); n <= wal.SegmentNumber(b.StopLSN-1, b.SegmentSize); n++ {
		names = append(names, wal.SegmentName(b.Timeline, n, b.SegmentSize))
	}
	open := func(context.Context) (*repo.Repository, error) { return r, nil }
	dir := filepath.Join(p.Directory, pgdata.WALDir)
	for _, name := range names {
		if err := archive.Fetch(ctx, open, name, filepath.Join(dir, name.String()), archive.FetchOptions{SystemID: b.SystemID, Log: log}); err != nil {
			return fmt.Errorf("fetch the backup's WAL: %w", err)
		}
		if err := os.Chmod(filepath.Join(dir, name.String()), d.filePerm()); err != nil {
			return fmt.Errorf("fetch the backup's WAL: %w", err)
		}
		// It is archived, so a server needn't hand it over.
		done := pgdata.WALDir + "/archive_status/" + name.String() + ".done"
		if err := durable.WriteFile(d.data, done, nil, d.filePerm()); err != nil {
			return fmt.Errorf("write %s: %w", done, err)
		}
	}
	if err := d.removeSignals(); err != nil {
		return err
	}
	if !p.Clone {
		return nil
	}
	old, err := readFile(d.data, pgdata.AutoConfFileName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", pgdata.AutoConfFileName, err)
	}
	if len(old) == maxConfiguration {
		return fmt.Errorf("read %s: it has %d bytes or more", pgdata.AutoConfFileName, maxConfiguration)
	}
	conf := pgdata.EditAutoConf(old, []pgdata.Setting{{Name: "archive_mode", Value: "off"}, {Name: "max_logical_replication_workers", Value: "0"}})
	if err := durable.WriteFile(d.data, pgdata.AutoConfFileName, conf, d.filePerm()); err != nil {
		return fmt.Errorf("write %s: %w", pgdata.AutoConfFileName, err)
	}
	return nil
}

// HasConfiguration tells whether the backup has configuration files from
// outside the data directory, which are put into the StateDirectory.
func (p *Plan) HasConfiguration() bool { return p.record.Configuration != nil }
