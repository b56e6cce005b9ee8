package file

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	if err := check(ctx, "get", key); err != nil {
		return nil, storage.Info{}, err
	}
	if offset < 0 {
		return nil, storage.Info{}, fmt.Errorf("get %s from offset %d: %w", key, offset, storage.ErrInvalid)
	}
	// Opening what isn't a file (a pipe, say) could block or do harm.
	if _, err := s.lookUp(key); err != nil {
		return nil, storage.Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	file, err := s.root.Open(key)
	if err != nil {
		return nil, storage.Info{}, fmt.Errorf("get %s: %w", key, s.readError(err))
	}
	found, err := file.Stat()
	if err != nil {
		_ = file.Close() // it was only opened
		return nil, storage.Info{}, fmt.Errorf("get %s: %w", key, denied(err))
	}
	info := describe(key, found)
	info.ServerTime = time.Now()
	r := &reader{ctx: ctx, file: file, key: key, at: min(offset, info.Size), end: info.Size}
	if length >= 0 && length < r.end-r.at {
		r.end = r.at + length
	}
	return r, info, nil
}

// reader delivers exactly the bytes of a file from at to end.
type reader struct {
	ctx     context.Context
	file    *os.File
	key     string
	at, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.key, err)
	}
	if r.at == r.end {
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), r.end-r.at)], r.at)
	r.at += int64(n)
	switch {
	case err == nil || err == io.EOF && r.at == r.end:
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("read %s: it ends at byte %d, before byte %d: %w", r.key, r.at, r.end, io.ErrUnexpectedEOF)
	}
	return n, fmt.Errorf("read %s at byte %d: %w", r.key, r.at, errno(err))
}

func (r *reader) Close() error {
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", r.key, errno(err))
	}
	return nil
}
