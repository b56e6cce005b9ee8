package backup

import (
	"archive/tar"
	"context"
	"io"
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
				stored, err := r.putPart(ctx, p, buffer)
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

func (r *run) putPart(ctx context.Context, p part, buffer []byte) (repo.Object, error) {
	id := r.record.ID
	return r.putObject(ctx, repo.PartKey(r.record.SystemID, id, p.number), repo.PartHeader(r.record.SystemID, id, p.number), func(w io.Writer) error {
		archive := tar.NewWriter(w)
		for _, e := range p.entries {
			var err error
			if e.mode.IsDir() {
				err = archive.WriteHeader(r.header(e.name+"/", e.mode, 0, e.modified))
			} else {
				err = r.writeFile(ctx, archive, e, buffer)
			}
			if err != nil {
				return err
			}
		}
		return archive.Close()
	})
}

// putLastPart stores the part that a restore needs last: backup_label,
// tablespace_map, and pg_control behind everything else, without which
// nothing starts.
func (r *run) putLastPart(ctx context.Context, stopped postgres.BackupStop, control controlFile) error {
	number, id := len(r.record.Parts)+1, r.record.ID
	stored, err := r.putObject(ctx, repo.PartKey(r.record.SystemID, id, number), repo.PartHeader(r.record.SystemID, id, number), func(w io.Writer) error {
		archive := tar.NewWriter(w)
		if err := r.writeContent(archive, pgdata.BackupLabelFileName, stopped.Label, stopped.Time, true); err != nil {
			return err
		}
		// The map describes this host's paths. A restore that maps
		// tablespaces elsewhere must leave it out, so it isn't listed.
		if len(stopped.TablespaceMap) > 0 {
			if err := r.writeContent(archive, pgdata.TablespaceMapFileName, stopped.TablespaceMap, stopped.Time, false); err != nil {
				return err
			}
		}
		if err := r.writeContent(archive, pgdata.ControlFileName, control.content, control.modified, true); err != nil {
			return err
		}
		return archive.Close()
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
