package wal

import (
	"errors"
	"fmt"
	"io"
)

// ErrMismatch means that a file isn't the WAL segment that it was said to be:
// another cluster's, another segment, cut, or no WAL at all. Archiving or
// replaying it under that name would be wrong, and trying again won't help.
var ErrMismatch = errors.New("not the WAL segment that its name says")

// Check reads a segment from r, once, to its end, and returns what it holds.
// The segment must be the one that name, size and systemID say, otherwise the
// error wraps ErrMismatch: its first page has a long header of a known
// version, the name's address, that system identifier (0 accepts any), the
// file's size as the segment size, and a timeline that is at most the name's
// (a timeline's first segment starts with pages of its parent); on the pages
// that its records reach the timeline never decreases and never exceeds the
// name's.
//
// Zeros and old content behind the last record are legal: PostgreSQL recycles
// its files; behind the end of a partial segment they may be an ancestor's, of
// the same place. So is a damaged record: Summary.Ending tells. name must be that
// of a segment, whole or partial. Any other error is r's.
func Check(r io.Reader, name FileName, size int64, systemID uint64) (Summary, error) {
	if name.Kind != KindSegment && name.Kind != KindPartial {
		return Summary{}, fmt.Errorf("check %s: a %s has no WAL pages", name, name.Kind)
	}
	c := checker{name: name, size: size, systemID: systemID}
	s, err := c.check(r)
	if err != nil {
		return Summary{}, fmt.Errorf("check %s: %w", name, err)
	}
	return s, nil
}

// checker knows what is expected of a segment.
type checker struct {
	name     FileName
	size     int64
	systemID uint64
}

func (c *checker) check(r io.Reader) (Summary, error) {
	if !ValidSegmentSize(uint64(c.size)) {
		return Summary{}, mismatch("a file of %d bytes is no WAL segment", c.size)
	}
	src := &segmentSource{r: r, left: c.size}
	var start [LongHeaderSize]byte
	if _, err := io.ReadFull(src, start[:]); err != nil {
		return Summary{}, c.cut(src)
	}
	first, err := c.first(start[:])
	if err != nil {
		return Summary{}, err
	}
	reader := Reader{src: src, maxTimeline: c.name.Timeline, partial: c.name.Kind == KindPartial}
	reader.begin(first, start[:])
	s, err := summarize(&reader)
	_, _ = io.Copy(io.Discard, src) // src keeps its error
	if src.left > 0 {
		return Summary{}, c.cut(src)
	}
	var invalid *InvalidError
	switch end := first.Address + LSN(c.name.Offset); {
	case errors.As(err, &invalid):
		return Summary{}, mismatch("%s", invalid)
	case err != nil:
		return Summary{}, err
	case c.name.Offset != 0 && s.End != end:
		return Summary{}, mismatch("the segment's WAL ends at %s, its name says %s", s.End, end)
	}
	switch n, err := io.ReadFull(r, start[:1]); {
	case n > 0:
		return Summary{}, mismatch("the file has more than its %d bytes", c.size)
	case err != io.EOF:
		return Summary{}, fmt.Errorf("read segment: %w", err)
	}
	return s, nil
}

// cut explains why a segment couldn't be read to its end.
func (c *checker) cut(src *segmentSource) error {
	if src.err != io.EOF {
		return fmt.Errorf("read segment: %w", src.err)
	}
	return mismatch("the file ends after %d of %d bytes", c.size-src.left, c.size)
}

// segmentSource reads the bytes of one segment and remembers how that ended.
type segmentSource struct {
	r    io.Reader
	left int64
	err  error
}

func (s *segmentSource) Read(p []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case s.left == 0:
		return 0, io.EOF
	case int64(len(p)) > s.left:
		p = p[:s.left]
	}
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if s.left > 0 {
		s.err = err
	}
	return n, s.err
}

// first holds the segment's first header against everything that is known.
func (c *checker) first(page []byte) (PageHeader, error) {
	h, err := parseLongHeader(page)
	if err != nil {
		return PageHeader{}, fmt.Errorf("%w: %w", err, ErrMismatch)
	}
	if int64(h.SegmentSize) != c.size {
		return PageHeader{}, mismatch("the file has %d bytes, its header says %d", c.size, h.SegmentSize)
	}
	if !c.name.ValidFor(uint64(c.size)) {
		return PageHeader{}, mismatch("segments of %d bytes have no such name", c.size)
	}
	if want := c.name.Start(uint64(c.size)); h.Address != want {
		return PageHeader{}, mismatch("the segment belongs to address %s, its name to %s", h.Address, want)
	}
	if c.systemID != 0 && h.SystemID != c.systemID {
		return PageHeader{}, mismatch("the segment belongs to another cluster: system identifier %d, not %d",
			h.SystemID, c.systemID)
	}
	if h.Timeline > c.name.Timeline {
		return PageHeader{}, mismatch("the segment belongs to timeline %d, its name to timeline %d",
			h.Timeline, c.name.Timeline)
	}
	return h, nil
}

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrMismatch)
}
