package restore

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// Options say how a plan is run.
type Options struct {
	Concurrency int    // parts that are restored at once; less than 1: 4
	Settings    []byte // content of the restored cluster's own settings file, SettingsFile; nil: none
	// Reuse lets the restore overwrite a cluster in the data directory that is
	// a copy of the same one and isn't running. Files of it that have the size
	// and digest of the backup's stay; all else in it is removed.
	Reuse bool
	// Progress is called when files begin to be compared or restored, every
	// second or so, and at the end of either, by one goroutine; nil: not.
	Progress func(Progress)
	Log      *slog.Logger

	export bool // see Export
}

// Progress says how far a restore is.
type Progress struct {
	// Comparing: what is there already is being compared with the backup. Done
	// are the bytes that were read, of Total if all files are there.
	Comparing bool
	Done      int64 // bytes of files that are in their places
	Kept      int64 // of those, bytes that were there already
	Total     int64 // bytes of all files
}

const defaultConcurrency = 4

// Run restores what the plan says. The plan must have a Directory.
//
// It returns a RefusedError, and has touched nothing, when the plan has
// problems or a directory isn't free. When it fails later, what it left can't
// be started as a database, and running the same restore again goes on from
// there: what is there and right stays.
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
	fail := func(err error) (*Result, error) {
		return nil, fmt.Errorf("restore backup %s into %s: %w", p.record.ID, p.Directory, err)
	}
	// Before anything is touched, so that a wrong identity leaves no trace.
	src, err := openObject(ctx, r, p.record.Manifest, repo.ManifestHeader(p.record.SystemID, p.record.ID))
	if err != nil {
		return fail(err)
	}
	defer src.close()
	d, err := prepare(p, o)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	x, err := newExtractor(ctx, r, p, d, src)
	if err != nil {
		return fail(err)
	}
	begun := time.Now()
	kept, err := x.run(ctx, r, p, o)
	if err != nil {
		return fail(err)
	}
	result := p.result()
	result.KeptSize = kept
	if kept == 0 {
		result.files = rateOf(p.plainSize(), time.Since(begun), begun)
	}
	return result, nil
}

// newExtractor reads what says which files there are: the backup's manifest,
// from src, or where it is incremental those of its whole chain.
func newExtractor(ctx context.Context, r *repo.Repository, p *Plan, d *destination, src *reading) (*extractor, error) {
	if err := d.data.Remove(pgdata.BackupManifestFileName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old %s: %w", pgdata.BackupManifestFileName, err)
	}
	x := &extractor{dst: d}
	var err error
	if len(p.chain) == 1 {
		x.manifest, err = d.writeManifest(src, p.record)
		return x, err
	}
	if x.combiner, err = newCombiner(ctx, r, p.chain, d); err != nil {
		return nil, err
	}
	x.manifest = x.combiner.manifest
	return x, nil
}

func (x *extractor) run(ctx context.Context, r *repo.Repository, p *Plan, o Options) (kept int64, err error) {
	d := x.dst
	if d.used {
		o.Log.Info("comparing what is there with the backup", "directory", p.Directory)
		if kept, err = d.survey(ctx, x.manifest, o); err != nil {
			return 0, err
		}
		o.Log.Info("compared what is there with the backup", "kept_bytes", kept)
		if err := checkSpace(p); err != nil {
			return 0, err
		}
	}
	if err := x.extract(ctx, r, p.record, o, kept); err != nil {
		return 0, err
	}
	if name, n := x.manifest.missing(); n > 0 {
		return 0, fmt.Errorf("%d files of the backup's manifest aren't in its parts, the first is %q", n, name)
	}
	if x.combiner != nil {
		if err := x.combiner.combine(ctx, o); err != nil {
			return 0, err
		}
	}
	if err := x.checkIdentity(p.record); err != nil {
		return 0, err
	}
	if c := p.record.Configuration; c != nil {
		if err := d.configuration(ctx, r, *c, repo.ConfigurationHeader(p.SystemID, p.record.ID)); err != nil {
			return 0, err
		}
	}
	if err := d.arrange(p); err != nil {
		return 0, err
	}
	if o.export {
		err = d.fill(ctx, r, p, o.Log)
	} else {
		err = d.configure(ctx, p, o.Settings)
	}
	if err != nil {
		return 0, err
	}
	if err := d.admitGroup(); err != nil {
		return 0, err
	}
	// What a combiner writes, it writes piece by piece.
	if err := d.sync(ctx, o.Concurrency, d.used || x.combiner != nil || o.export); err != nil {
		return 0, err
	}
	return kept, d.commit(x.control)
}

// writeManifest puts backup_manifest into the data directory, byte for byte,
// and reads it.
func (d *destination) writeManifest(src *reading, b *repo.Backup) (*manifest, error) {
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
	if err := file.Sync(); err != nil {
		return nil, fmt.Errorf("make %s durable: %w", pgdata.BackupManifestFileName, err)
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

// extract writes all parts, several at once, and returns when their files are
// durable. kept is how many bytes are there already.
func (x *extractor) extract(ctx context.Context, r *repo.Repository, b *repo.Backup, o Options, kept int64) error {
	files, writing := newFileWriter(ctx)
	x.files = files
	stop := report(o.Progress, func() Progress {
		return Progress{Done: kept + files.written.Load(), Kept: kept, Total: b.PlainSize}
	})
	defer stop()
	err := x.parts(writing, r, b, o)
	if failed := files.wait(); failed != nil {
		return failed
	}
	return err
}

func (x *extractor) parts(ctx context.Context, r *repo.Repository, b *repo.Backup, o Options) error {
	return eachPart(ctx, b, o, func(ctx context.Context, part repo.Object, want object.Header) error {
		if here, err := x.here(part); here || err != nil {
			return err
		}
		return x.part(ctx, r, part, want)
	})
}

// extract hands the entries of all parts to write, several parts at once.
func extract(ctx context.Context, r *repo.Repository, b *repo.Backup, o Options, write func(*tar.Header, io.Reader) error) error {
	return eachPart(ctx, b, o, func(ctx context.Context, part repo.Object, want object.Header) error {
		return unpack(ctx, r, part, want, write)
	})
}

// eachPart does something with each part, several at once.
func eachPart(ctx context.Context, b *repo.Backup, o Options, do func(ctx context.Context, part repo.Object, want object.Header) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.Concurrency)
	for _, i := range largestFirst(b.Parts) {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return do(ctx, b.Parts[i], repo.PartHeader(b.SystemID, b.ID, i+1))
		})
	}
	return group.Wait()
}

// largestFirst orders the parts, by their index, so that no large one is left
// to be unpacked alone at the end.
func largestFirst(parts []repo.Object) []int {
	order := make([]int, len(parts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(parts[b].PlainSize, parts[a].PlainSize) })
	return order
}

// report calls progress at once, every second until the function that it
// returns is called, and then.
func report(progress func(Progress), now func() Progress) (stop func()) {
	if progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		progress(now()) // what the speed is reckoned from
		for {
			select {
			case <-quit:
				progress(now())
				return
			case <-ticker.C:
				progress(now())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
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
