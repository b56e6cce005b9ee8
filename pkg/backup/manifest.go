package backup

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// manifestWindow is the window, in bytes, for the compression of a manifest: it
// is being written all the time, and its lines are like those before them.
const manifestWindow = 1 << 20

// manifest collects the backup manifest from all workers. It is being stored
// from the start of the backup to its end, so that memory doesn't grow with the
// number of files.
type manifest struct {
	mu      sync.Mutex
	writer  *pgdata.ManifestWriter
	ranges  chan []pgdata.ManifestWALRange
	abandon context.CancelFunc
	// remember is what this host remembers of the backup; nil: nothing.
	remember *remember

	ended  chan struct{} // closed when the storage has it, or failed
	object repo.Object
	err    error
}

// beginManifest begins the manifest.
func (r *run) beginManifest(ctx context.Context) (*manifest, error) {
	ctx, abandon := context.WithCancel(ctx)
	m := &manifest{ranges: make(chan []pgdata.ManifestWALRange), abandon: abandon, ended: make(chan struct{})}
	opened := make(chan struct{})
	systemID, id := r.record.SystemID, r.record.ID
	of := r.repository.Sealer
	sealer := &object.Sealer{Repository: of.Repository, Recipients: of.Recipients, Level: of.Level, Window: manifestWindow}
	go func() {
		defer close(m.ended)
		m.object, m.err = r.putSealed(ctx, sealer, repo.ManifestKey(systemID, id), repo.ManifestHeader(systemID, id), func(ctx context.Context, w io.Writer) error {
			var err error
			if m.writer, err = pgdata.NewManifestWriter(w, pgdata.ManifestVersion(r.major), systemID); err != nil {
				return err
			}
			close(opened)
			return m.wait(ctx)
		})
	}()
	select {
	case <-opened:
		return m, nil
	case <-m.ended:
		abandon()
		return nil, m.err
	}
}

// wait waits for the end of the manifest, and writes it.
func (m *manifest) wait(ctx context.Context) error {
	select {
	case ranges := <-m.ranges:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.writer.Close(ranges)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// add enters a file.
func (m *manifest) add(f pgdata.ManifestFile) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remember.add(f.Path)
	err := m.writer.Add(f)
	if errors.Is(err, errPutEnded) {
		<-m.ended // says why
		return m.err
	}
	return err
}

// finish ends the manifest, and returns when it is stored.
func (m *manifest) finish(ranges []pgdata.ManifestWALRange) (repo.Object, error) {
	select {
	case m.ranges <- ranges:
	case <-m.ended:
	}
	<-m.ended
	return m.object, m.err
}

// close gives up what isn't finished, and leaves nothing of it in the storage.
func (m *manifest) close() {
	if m != nil {
		m.abandon()
		<-m.ended
	}
}

// putManifest ends the manifest with the WAL that the backup needs.
func (r *run) putManifest() error {
	b := &r.record
	var err error
	if b.Manifest, err = r.manifest.finish([]pgdata.ManifestWALRange{{Timeline: b.Timeline, Start: b.StartLSN, End: b.StopLSN}}); err != nil {
		return err
	}
	if b.Parent != nil {
		b.DataSize = r.dataSize.Load()
	}
	b.Files, b.PlainSize, b.StoredSize = r.progress.files.Load(), r.progress.bytes.Load(), r.progress.stored.Load()
	return nil
}
