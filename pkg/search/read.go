package search

import (
	"errors"
	"io"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// run is a sequence of archived segments to read.
type run struct {
	first, last uint64
	whole       bool // no record goes on behind the last one
}

// read passes on each record that starts in a run, in order. Where WAL isn't
// valid, or an object is corrupt, it calls broken, if that isn't nil, and goes on with the next segment.
func (s *searcher) read(d *downloads, r run, broken func(), each func(*wal.Record) error) error {
	end := wal.LSN((r.last + 1) * s.segmentSize)
	from := wal.LSN(0)
	for number := r.first; number <= r.last; {
		src := &sequence{d: d, next: number, last: r.last, on: !r.whole}
		stopped, err := readRecords(src, from, end, each)
		var invalid *wal.InvalidError
		switch {
		case errors.Is(src.err, object.ErrCorrupt):
			s.warn("segment %s: %v: nothing that is found in it can be relied on, and the rest of it isn't seen", s.name(src.next-1), src.err)
			number = src.next
		case src.err != nil:
			return src.err
		case err == nil || err == io.EOF:
			return nil
		case errors.Is(err, wal.ErrUnfinished):
			if !r.whole || !s.archived[r.last+1] {
				return nil // the archive ends, or has a gap
			}
			// The summary had said that no record goes on.
			r.whole, from = false, stopped
			number = wal.SegmentNumber(from, s.segmentSize)
			continue
		case errors.As(err, &invalid):
			if invalid.LSN >= end {
				return nil
			}
			s.warn("segment %s: %v: what stands behind it in this segment isn't seen", s.name(wal.SegmentNumber(invalid.LSN, s.segmentSize)), err)
			number = max(number, wal.SegmentNumber(invalid.LSN, s.segmentSize)) + 1
		case stopped == 0: // the first header
			s.warn("segment %s: %v", s.name(number), err)
			number++
		default:
			return err
		}
		if broken != nil {
			broken()
		}
	}
	return nil
}

// readRecords passes on the records of a sequence from one position up to
// another. It returns the error that ended it, nil at the end position; and
// where the last record starts that was seen, 0 if not even a header was.
func readRecords(src *sequence, from, end wal.LSN, each func(*wal.Record) error) (wal.LSN, error) {
	defer src.close()
	reader, err := wal.NewReader(src)
	if err != nil {
		return 0, err
	}
	for {
		record, err := reader.Next()
		if err != nil {
			lsn, _ := reader.Tail()
			return max(lsn, 1), err
		}
		if record.LSN >= end {
			return record.LSN, nil
		}
		if record.LSN < from {
			continue
		}
		if err := each(record); err != nil {
			return record.LSN, err
		}
	}
}

// sequence yields the bytes of consecutive segments.
type sequence struct {
	d    *downloads
	next uint64
	last uint64
	on   bool // beyond last, as far as segments are archived
	now  *download
	err  error // of a download
}

func (q *sequence) Read(p []byte) (int, error) {
	for {
		if q.now == nil {
			if q.next > q.last && !q.on || !q.d.s.archived[q.next] {
				return 0, io.EOF
			}
			q.now = q.d.take(q.next)
			q.next++
		}
		n, err := q.now.Read(p)
		switch {
		case err == io.EOF:
			q.close()
		case err != nil:
			q.err = err
			return 0, err
		default:
			return n, nil
		}
	}
}

// close gives up what wasn't read.
func (q *sequence) close() {
	if q.now != nil {
		q.now.cancel()
		q.now = nil
	}
}
