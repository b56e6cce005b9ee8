package search

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Records passes on each record that starts and ends in an archived segment,
// whole or partial, with its contents; both are valid until each returns. It
// says how the valid WAL ends there. The object is checked to its end, but
// only when all has been passed on.
func Records(ctx context.Context, r *repo.Repository, systemID uint64, name wal.FileName, each func(*wal.Record, *wal.Contents) error) (ending string, err error) {
	body, _, err := r.Store.Get(ctx, r.FileKey(systemID, name), 0, -1)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	defer body.Close()
	content, err := r.Opener.Open(body, repo.Header(systemID, name))
	if err != nil {
		return "", err
	}
	defer content.Close()
	end := eachRecord(content, each)
	if _, err := io.Copy(io.Discard, content); err != nil {
		return "", err // of the object
	}
	var invalid *wal.InvalidError
	switch {
	case end == io.EOF:
		return "the last record ends in the segment", nil
	case errors.Is(end, wal.ErrUnfinished), errors.As(end, &invalid):
		return end.Error(), nil
	}
	return "", fmt.Errorf("read %s: %w", name, end)
}

func eachRecord(src io.Reader, each func(*wal.Record, *wal.Contents) error) error {
	reader, err := wal.NewReader(src)
	if err != nil {
		return err
	}
	contents := new(wal.Contents)
	for {
		record, err := reader.Next()
		if err != nil {
			return err
		}
		if err := record.Decode(contents); err != nil {
			return err
		}
		if err := each(record, contents); err != nil {
			return err
		}
	}
}
