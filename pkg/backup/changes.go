package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// readChanges reads which blocks WAL has changed from the parent's redo point
// to this backup's: from the server's own summaries, if it makes them, else from
// WAL. A segment that the server still has is read there: nothing
// has to be fetched and nothing decrypted. The server may use it anew
// meanwhile, which shows; then all that is archived is read from the
// repository, and only the rest from the server.
func (r *run) readChanges(ctx context.Context) (*wal.Changes, error) {
	changes, err := r.readSummaries(ctx)
	if err == nil {
		r.log.Info("what has changed is known from the server's WAL summaries", "parent", r.base.parent.ID)
		return changes, nil
	}
	if !errors.Is(err, errNotSummarized) {
		r.log.Warn("the server's WAL summaries can't be read", "error", err)
	}
	r.log.Info("reading the WAL since the parent", "parent", r.base.parent.ID, "from", r.base.parent.StartLSN, "to", r.record.StartLSN)
	changes, err = r.readWAL(ctx, r.openSegment)
	if err != nil && ctx.Err() == nil {
		r.log.Info("reading archived WAL, the server's own can't be read on", "error", err)
		changes, err = r.readWAL(ctx, r.openArchivedFirst)
	}
	if err != nil {
		return nil, fmt.Errorf("the WAL since backup %s can't be read whole: %w", r.base.parent.ID, err)
	}
	return changes, nil
}

// readWAL reads the changes from the segments that open opens.
func (r *run) readWAL(ctx context.Context, open func(context.Context, wal.FileName) (io.ReadCloser, error)) (*wal.Changes, error) {
	from, to, size := r.base.parent.StartLSN, r.record.StartLSN, r.record.SegmentSize
	src := readAhead(ctx, wal.SegmentNumber(from, size), func(ctx context.Context, n uint64) (io.ReadCloser, error) {
		return open(ctx, wal.SegmentName(r.history.SegmentTimeline(n, size), n, size))
	})
	defer src.Close()
	reader, err := wal.NewReader(src)
	if err != nil {
		return nil, err
	}
	changes := wal.NewChanges()
	for end := from; end < to; {
		record, err := reader.Next()
		if err != nil {
			return nil, err
		}
		if end = reader.Following(); record.LSN < from || record.LSN >= to {
			continue
		}
		if err := changes.Add(record); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// openSegment opens a segment in pg_wal, or else in the repository.
func (r *run) openSegment(ctx context.Context, name wal.FileName) (io.ReadCloser, error) {
	file, err := r.openOwn(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r.openArchived(ctx, name)
	}
	return file, err
}

// openArchivedFirst opens a segment in the repository, or else in pg_wal: the
// one that the backup starts in isn't archived before it is full.
func (r *run) openArchivedFirst(ctx context.Context, name wal.FileName) (io.ReadCloser, error) {
	content, err := r.openArchived(ctx, name)
	if errors.Is(err, storage.ErrNotExist) {
		return r.openOwn(name)
	}
	return content, err
}

func (r *run) openOwn(name wal.FileName) (io.ReadCloser, error) {
	return os.Open(filepath.Join(r.record.DataDirectory, pgdata.WALDir, name.String()))
}

// openArchived opens a segment in the repository.
func (r *run) openArchived(ctx context.Context, name wal.FileName) (io.ReadCloser, error) {
	body, _, err := r.repository.Store.Get(ctx, r.repository.FileKey(r.record.SystemID, name), 0, -1)
	if err != nil {
		return nil, err
	}
	content, err := r.repository.Opener.Open(body, repo.Header(r.record.SystemID, name))
	if err != nil {
		body.Close()
		return nil, err
	}
	return &archived{content, body}, nil
}

// archived is the content of an object, which is closed with what it is read
// from.
type archived struct {
	io.ReadCloser
	body io.Closer
}

func (a *archived) Close() error { return errors.Join(a.ReadCloser.Close(), a.body.Close()) }

const (
	aheadChunk  = 256 << 10 // bytes that are handed over at a time
	aheadChunks = 64        // that are read before they are wanted
)

// ahead reads segments one after the other while what came before is being
// looked at.
type ahead struct {
	chunks chan []byte // closed at the first error
	err    error       // valid once chunks is closed
	rest   []byte
	cancel context.CancelFunc
}

// readAhead begins to read segments, from number first on.
func readAhead(ctx context.Context, first uint64, open func(context.Context, uint64) (io.ReadCloser, error)) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{chunks: make(chan []byte, aheadChunks), cancel: cancel}
	go func() {
		defer close(a.chunks)
		for n := first; a.err == nil; n++ {
			a.err = a.segment(ctx, n, open)
		}
	}()
	return a
}

func (a *ahead) segment(ctx context.Context, n uint64, open func(context.Context, uint64) (io.ReadCloser, error)) error {
	src, err := open(ctx, n)
	if err != nil {
		return err
	}
	for {
		chunk := make([]byte, aheadChunk)
		got, err := io.ReadFull(src, chunk)
		select {
		case a.chunks <- chunk[:got]:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), src.Close())
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return src.Close()
		case err != nil:
			return errors.Join(err, src.Close())
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		chunk, more := <-a.chunks
		if !more {
			return 0, a.err
		}
		a.rest = chunk
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close gives up what wasn't read, and returns when nothing is read any more.
func (a *ahead) Close() {
	a.cancel()
	for range a.chunks { // until it is closed
	}
}
