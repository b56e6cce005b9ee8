package backup

import (
	"archive/tar"
	"context"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// putParts copies everything but the files of the last part.
func (r *run) putParts(ctx context.Context, listing *listing) error {
	group, ctx := errgroup.WithContext(ctx)
	parts := make(chan part)
	group.Go(func() error {
		defer close(parts)
		return r.plan(ctx, listing, func(p part) error {
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
		if err := p.writeContent(pgdata.BackupLabelFileName, stopped.Label, stopped.Time, true); err != nil {
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
