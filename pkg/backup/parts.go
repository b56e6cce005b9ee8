package backup

import (
	"archive/tar"
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// tarOverhead is what an entry takes of a tar beside its content, roughly:
// its header, and the padding of the content.
const tarOverhead = 1024

// part is a piece of work: the entries that make up one tar.
type part struct {
	number  int
	entries []entry
}

// putParts copies everything but the files of the last part.
func (r *run) putParts(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	parts := make(chan part)
	group.Go(func() error {
		defer close(parts)
		return r.plan(ctx, func(p part) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case parts <- p:
				return nil
			}
		})
	})
	var mu sync.Mutex
	objects := make(map[int]repo.Object)
	for range r.options.Concurrency {
		group.Go(func() error {
			buffer := make([]byte, copyBuffer)
			for p := range parts {
				stored, err := r.putPart(ctx, p.number, buffer, func(w *partWriter) error { return w.writeEntries(ctx, p.entries) })
				if err != nil {
					return err
				}
				mu.Lock()
				objects[p.number] = stored
				mu.Unlock()
			}
			return nil
		})
	}
	stop := r.reportProgress()
	err := group.Wait()
	stop()
	if err != nil {
		return err
	}
	for n := range len(objects) {
		r.record.Parts = append(r.record.Parts, objects[n+1])
	}
	return nil
}

// plan walks the cluster and hands out parts of the wanted size.
func (r *run) plan(ctx context.Context, next func(part) error) error {
	skip, err := r.insideData()
	if err != nil {
		return err
	}
	p, size := part{number: 1}, int64(0)
	hand := func() error {
		full := p
		p, size = part{number: full.number + 1}, 0
		return next(full)
	}
	inPlace := make(map[string]bool)
	for _, t := range r.tablespaces {
		if t.inPlace {
			inPlace[t.location] = true
		}
	}
	w := walker{major: r.major, version: r.version, skip: skip, inPlace: inPlace, log: r.log, emit: func(e entry) error {
		if r.base != nil {
			if e.changed = r.base.decide(e.name, e.size); e.changed != nil {
				e.size = e.changed.Size()
			}
		}
		if size > 0 && size+e.size+tarOverhead > r.options.PartSize {
			if err := hand(); err != nil {
				return err
			}
		}
		p.entries = append(p.entries, e)
		size += e.size + tarOverhead
		return nil
	}}
	if err := w.data(ctx, &r.data); err != nil {
		return err
	}
	for _, t := range r.tablespaces {
		if err := w.tablespace(ctx, t); err != nil {
			return err
		}
	}
	return hand()
}

// partWriter writes one tar of the backup.
type partWriter struct {
	run     *run
	archive *tar.Writer
	buffer  []byte // what is read goes through it
}

// putPart stores the part of that number, of what write adds to it.
func (r *run) putPart(ctx context.Context, number int, buffer []byte, write func(*partWriter) error) (repo.Object, error) {
	id := r.record.ID
	return r.putObject(ctx, repo.PartKey(r.record.SystemID, id, number), repo.PartHeader(r.record.SystemID, id, number), func(_ context.Context, w io.Writer) error {
		p := &partWriter{run: r, archive: tar.NewWriter(w), buffer: buffer}
		if err := write(p); err != nil {
			return err
		}
		return p.archive.Close()
	})
}

func (p *partWriter) writeEntries(ctx context.Context, entries []entry) error {
	for _, e := range entries {
		var err error
		if e.mode.IsDir() {
			err = p.archive.WriteHeader(p.run.header(e.name+"/", e.mode, 0, e.modified))
		} else {
			err = p.writeFile(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putLastPart stores the part that a restore needs last: backup_label,
// tablespace_map, and pg_control behind everything else, without which
// nothing starts.
func (r *run) putLastPart(ctx context.Context, stopped postgres.BackupStop, control controlFile) error {
	stored, err := r.putPart(ctx, len(r.record.Parts)+1, nil, func(p *partWriter) error {
		label := stopped.Label
		if parent := r.record.Parent; parent != nil {
			label = pgdata.AppendIncremental(slices.Clone(label), parent.StartLSN, parent.Timeline)
		}
		if err := p.writeContent(pgdata.BackupLabelFileName, label, stopped.Time, true); err != nil {
			return err
		}
		// The map describes this host's paths. A restore that maps
		// tablespaces elsewhere must leave it out, so it isn't listed.
		if len(stopped.TablespaceMap) > 0 {
			if err := p.writeContent(pgdata.TablespaceMapFileName, stopped.TablespaceMap, stopped.Time, false); err != nil {
				return err
			}
		}
		return p.writeContent(pgdata.ControlFileName, control.content, control.modified, true)
	})
	if err != nil {
		return err
	}
	r.record.Parts = append(r.record.Parts, stored)
	return nil
}

// progressInterval is the time between two lines that say how far a backup is.
const progressInterval = 30 * time.Second

// reportProgress logs now and then until the function it returns is called.
func (r *run) reportProgress() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				r.log.Info("copying the cluster", "id", r.record.ID, "files", r.progress.files.Load(), "bytes", r.progress.bytes.Load(), "stored", r.progress.stored.Load())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
