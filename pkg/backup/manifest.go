package backup

import (
	"bytes"
	"context"
	"sync"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// manifest collects the backup manifest from all workers. It is kept sealed
// in memory, some tens of bytes a file, because it can be stored only when
// the end of the backup is known.
type manifest struct {
	mu     sync.Mutex
	writer *pgdata.ManifestWriter
	object *object.Writer
	stored bytes.Buffer
}

func newManifest(sealer *object.Sealer, major int, systemID uint64, id string) (*manifest, error) {
	m := &manifest{}
	var err error
	if m.object, err = sealer.Seal(&m.stored, repo.ManifestHeader(systemID, id)); err != nil {
		return nil, err
	}
	m.writer, err = pgdata.NewManifestWriter(m.object, pgdata.ManifestVersion(major), systemID)
	return m, err
}

func (m *manifest) add(f pgdata.ManifestFile) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writer.Add(f)
}

// putManifest ends the manifest with the WAL that the backup needs, and
// stores it.
func (r *run) putManifest(ctx context.Context) error {
	m, b := r.manifest, &r.record
	err := m.writer.Close([]pgdata.ManifestWALRange{{Timeline: b.Timeline, Start: b.StartLSN, End: b.StopLSN}})
	if err != nil {
		return err
	}
	if err := m.object.Close(); err != nil {
		return err
	}
	key := repo.ManifestKey(b.SystemID, b.ID) + r.repository.Suffix()
	_, err = r.repository.Store.Put(ctx, key, bytes.NewReader(m.stored.Bytes()))
	if b.Manifest, err = r.stored(ctx, key, m.object.Result(), err); err != nil {
		return err
	}
	if b.Parent != nil {
		b.DataSize = r.dataSize.Load()
	}
	b.Files, b.PlainSize, b.StoredSize = r.progress.files.Load(), r.progress.bytes.Load(), r.progress.stored.Load()
	return nil
}
