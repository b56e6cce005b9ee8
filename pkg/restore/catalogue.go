package restore

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Of is a repository as the planner sees it.
func Of(r *repo.Repository) Catalogue { return catalogue{r} }

type catalogue struct{ *repo.Repository }

// Summary reads a segment's summary from its context header. Nothing shows
// that it is genuine.
func (c catalogue) Summary(ctx context.Context, systemID uint64, name wal.FileName) (wal.Summary, error) {
	header, err := archive.ReadHeader(ctx, c.Repository, c.FileKey(systemID, name))
	if err != nil {
		return wal.Summary{}, err
	}
	summary, err := wal.ParseSummary(header.Fields)
	if err != nil {
		return wal.Summary{}, err
	}
	return summary, repo.CheckSummary(summary, name, uint64(header.PlainSize))
}

// Segment opens a segment. It must have the size that the path's others have.
func (c catalogue) Segment(ctx context.Context, systemID uint64, name wal.FileName, size uint64) (io.ReadCloser, error) {
	key := c.FileKey(systemID, name)
	body, _, err := c.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	content, err := c.Opener.Open(body, repo.Header(systemID, name))
	if err != nil {
		_ = body.Close() // what couldn't be opened isn't read any more
		return nil, err
	}
	if got := content.Header().PlainSize; got != int64(size) {
		_, _ = content.Close(), body.Close()
		return nil, fmt.Errorf("object %s: %w: its segment has %d bytes, others have %d", key, object.ErrUnsupported, got, size)
	}
	return &openSegment{content, body}, nil
}

// Prepared lists the transactions whose state files are in a backup, by its
// manifest.
func (c catalogue) Prepared(ctx context.Context, b *repo.Backup) ([]uint32, error) {
	src, err := openObject(ctx, c.Repository, b.Manifest, repo.ManifestHeader(b.SystemID, b.ID))
	if err != nil {
		return nil, err
	}
	defer src.close()
	r, err := pgdata.ReadManifest(src, pgdata.ManifestLimits{})
	if err != nil {
		return nil, fmt.Errorf("read manifest of backup %s: %w", b.ID, err)
	}
	var xids []uint32
	for f, err := range r.Files() {
		if err != nil {
			return nil, fmt.Errorf("read manifest of backup %s: %w", b.ID, err)
		}
		if xid, ok := twoPhaseXID(f.Path); ok {
			xids = append(xids, xid)
		}
	}
	if _, err := r.Finish(); err != nil {
		return nil, fmt.Errorf("read manifest of backup %s: %w", b.ID, err)
	}
	return xids, src.finish()
}

// twoPhaseXID returns the transaction that a file in a data directory is the
// state of. Its name is the transaction's id in 8 hex digits, from 17 on in 16
// with the epoch; see TwoPhaseFilePath of src/backend/access/transam/twophase.c.
func twoPhaseXID(path string) (uint32, bool) {
	name, ok := strings.CutPrefix(path, "pg_twophase/")
	if !ok || len(name) != 8 && len(name) != 16 {
		return 0, false
	}
	xid, err := strconv.ParseUint(name, 16, 64)
	return uint32(xid), err == nil
}

// openSegment closes what a segment is read through.
type openSegment struct {
	*object.Reader
	body io.Closer
}

// Close gives up what wasn't read.
func (s *openSegment) Close() error {
	err := s.Reader.Close()
	if bodyErr := s.body.Close(); err == nil {
		err = bodyErr
	}
	return err
}
