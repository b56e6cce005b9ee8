package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// eachRecord passes on the records that start in the segments from first
// through last, in order, until each reports false. Segments behind last are
// read only where a record goes on there, and none from end on. It returns why
// the WAL ends before last's end: io.EOF, wal.ErrUnfinished or an
// *wal.InvalidError, as a server finds it; nil if it doesn't, or if each had
// enough.
func (w *way) eachRecord(ctx context.Context, first, last, end uint64, each func(*wal.Record, *wal.Contents) (bool, error)) (ending, err error) {
	src := &sequence{next: first, end: end, open: func(n uint64) (io.ReadCloser, error) { return w.open(ctx, n) }}
	defer func() {
		if err = errors.Join(err, src.close()); errors.Is(err, object.ErrCorrupt) {
			w.markCorrupt(src.next-1, err)
		}
	}()
	reader, err := wal.NewReader(src)
	switch {
	case src.err != nil:
		return nil, src.err
	case err != nil:
		return nil, fmt.Errorf("read WAL segment %s: %w", w.name(first), err)
	}
	contents, behind := new(wal.Contents), wal.LSN((last+1)*w.size)
	for {
		record, err := reader.Next()
		var invalid *wal.InvalidError
		switch {
		case src.err != nil:
			return nil, src.err
		case err == io.EOF, errors.Is(err, wal.ErrUnfinished), errors.As(err, &invalid):
			return err, nil
		case err != nil:
			return nil, fmt.Errorf("read WAL from segment %s on: %w", w.name(first), err)
		case record.LSN >= behind:
			return nil, nil
		case w.astray(record.LSN):
			return io.EOF, nil
		}
		more, err := each(record, contents)
		if err != nil {
			return nil, fmt.Errorf("read WAL segment %s: %w", w.name(wal.SegmentNumber(record.LSN, w.size)), err)
		}
		if !more || record.Next >= behind {
			return nil, nil
		}
	}
}

// keptSegment bounds the segments that are kept in memory once they were read:
// the two last ones, since a record that crosses into the next one takes both.
const keptSegment = 16 << 20

// open opens a segment, to be read to its end.
func (w *way) open(ctx context.Context, n uint64) (io.ReadCloser, error) {
	for _, kept := range w.kept {
		if kept.content != nil && kept.number == n {
			return io.NopCloser(bytes.NewReader(kept.content)), nil
		}
	}
	w.opened++
	content, err := w.c.Segment(ctx, w.systemID, w.name(n), w.size)
	if err != nil || w.size > keptSegment {
		return content, err
	}
	var data bytes.Buffer
	data.Grow(int(w.size) + bytes.MinRead) // so that it never grows
	_, err = data.ReadFrom(content)
	if err = errors.Join(err, content.Close()); err != nil {
		return nil, err
	}
	w.kept[0], w.kept[1] = w.kept[1], keptContent{n, data.Bytes()}
	return io.NopCloser(bytes.NewReader(data.Bytes())), nil
}

// keptContent is a segment that was read.
type keptContent struct {
	number  uint64
	content []byte
}

// sequence yields the bytes of consecutive segments up to number end. Each one
// that was begun is read to its end, which shows that it is genuine.
type sequence struct {
	next, end uint64
	open      func(n uint64) (io.ReadCloser, error)
	now       io.ReadCloser
	err       error
}

func (s *sequence) Read(p []byte) (int, error) {
	for s.err == nil {
		if s.now == nil {
			if s.next >= s.end {
				return 0, io.EOF
			}
			s.next++
			if s.now, s.err = s.open(s.next - 1); s.err != nil {
				break
			}
		}
		n, err := s.now.Read(p)
		if err == io.EOF {
			err, s.now = s.now.Close(), nil
		}
		if s.err = err; n > 0 {
			return n, nil
		}
	}
	return 0, s.err
}

// close reads the segment at hand to its end.
func (s *sequence) close() error {
	if s.now == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, s.now)
	err = errors.Join(err, s.now.Close())
	s.now = nil
	if s.err != nil {
		return nil // that was returned
	}
	return err
}
