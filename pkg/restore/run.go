package restore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// Options say how a plan is run.
type Options struct {
	Concurrency int    // parts that are restored at once; less than 1: 4
	Settings    []byte // content of the restored cluster's own settings file, SettingsFile; nil: none
	Log         *slog.Logger
}

const defaultConcurrency = 4

// Run restores what the plan says. The plan must have a Directory.
//
// It returns a RefusedError, and has touched nothing, when the plan has
// problems or a directory isn't free. When it fails later, what it left can't
// be started as a database, and running the same restore again removes it.
func Run(ctx context.Context, r *repo.Repository, p *Plan, o Options) (*Result, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	if p.Directory == "" {
		return nil, usagef("the target directory is missing")
	}
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	d, err := prepare(p, o.Log)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := run(ctx, r, p, o, d); err != nil {
		return nil, fmt.Errorf("restore backup %s into %s: %w", p.record.ID, p.Directory, err)
	}
	return p.result(), nil
}

func run(ctx context.Context, r *repo.Repository, p *Plan, o Options, d *destination) error {
	x := &extractor{dst: d}
	var err error
	if len(p.chain) > 1 {
		x.combiner, err = newCombiner(ctx, r, p.chain, d)
		if err != nil {
			return err
		}
		x.manifest = x.combiner.manifest
	} else if x.manifest, err = d.writeManifest(ctx, r, p.record); err != nil {
		return err
	}
	if err := extract(ctx, r, p.record, o, x.entry); err != nil {
		return err
	}
	if name, n := x.manifest.missing(); n > 0 {
		return fmt.Errorf("%d files of the backup's manifest aren't in its parts, the first is %q", n, name)
	}
	if x.combiner != nil {
		if err := x.combiner.combine(ctx, o); err != nil {
			return err
		}
	}
	if err := x.checkIdentity(p.record); err != nil {
		return err
	}
	if c := p.record.Configuration; c != nil {
		if err := d.configuration(ctx, r, *c, repo.ConfigurationHeader(p.SystemID, p.record.ID)); err != nil {
			return err
		}
	}
	if err := d.arrange(p); err != nil {
		return err
	}
	if err := d.configure(ctx, p, o.Settings); err != nil {
		return err
	}
	o.Log.Info("making the files durable", "directory", p.Directory)
	if err := d.sync(ctx, o.Concurrency); err != nil {
		return err
	}
	return d.commit(x.control)
}

// writeManifest puts backup_manifest into the data directory, byte for byte,
// and reads it.
func (d *destination) writeManifest(ctx context.Context, r *repo.Repository, b *repo.Backup) (*manifest, error) {
	src, err := openObject(ctx, r, b.Manifest, repo.ManifestHeader(b.SystemID, b.ID))
	if err != nil {
		return nil, err
	}
	defer src.close()
	file, err := d.data.OpenFile(pgdata.BackupManifestFileName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", pgdata.BackupManifestFileName, err)
	}
	defer file.Close()
	if _, err := io.Copy(file, src); err != nil {
		return nil, fmt.Errorf("write %s: %w", pgdata.BackupManifestFileName, err)
	}
	if err := src.finish(); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read %s: %w", pgdata.BackupManifestFileName, err)
	}
	m, err := readManifest(file, b.SystemID)
	if err != nil {
		return nil, fmt.Errorf("read manifest of backup %s: %w", b.ID, err)
	}
	return m, nil
}

// extract writes all parts, several at once.
func extract(ctx context.Context, r *repo.Repository, b *repo.Backup, o Options, write func(*tar.Header, io.Reader) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.Concurrency)
	for i, part := range b.Parts {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := unpack(ctx, r, part, repo.PartHeader(b.SystemID, b.ID, i+1), write); err != nil {
				return err
			}
			o.Log.Info("restored a part", "backup", b.ID, "part", i+1, "of", len(b.Parts), "bytes", part.PlainSize)
			return nil
		})
	}
	return group.Wait()
}

// checkIdentity holds pg_control and backup_label against the backup's record.
func (x *extractor) checkIdentity(b *repo.Backup) error {
	if x.control == nil {
		return fmt.Errorf("the backup has no %s", pgdata.ControlFileName)
	}
	control, err := pgdata.ParseControlFile(x.control)
	if err != nil {
		return err
	}
	if control.SystemID != b.SystemID {
		return fmt.Errorf("%s is of cluster %d, not of %d", pgdata.ControlFileName, control.SystemID, b.SystemID)
	}
	data, err := readFile(x.dst.data, pgdata.BackupLabelFileName)
	if err != nil {
		return fmt.Errorf("read backup_label: %w", err)
	}
	label, err := pgdata.ParseBackupLabel(data)
	if err != nil {
		return err
	}
	if label.Incremental {
		return errors.New("its backup_label is that of an incremental backup, which isn't a whole cluster")
	}
	if label.Start != b.StartLSN || label.Checkpoint != b.Checkpoint || label.Timeline != b.Timeline {
		return fmt.Errorf("its backup_label starts at %s on timeline %d, its record says %s on timeline %d",
			label.Start, label.Timeline, b.StartLSN, b.Timeline)
	}
	return nil
}

// readFile reads a small file of a root.
func readFile(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxConfiguration))
}
