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
// (a timeline's first segment starts with pages of its parent); on the valid
// pages behind it the timeline never decreases and never exceeds the name's.
//
// Zeros and old content behind the last record are legal: PostgreSQL recycles
// its files. name must be that of a segment, whole or partial.
func Check(r io.Reader, name FileName, size int64, systemID uint64) (Summary, error) {
	if name.Kind != KindSegment && name.Kind != KindPartial {
		return Summary{}, fmt.Errorf("check %s: a %s has no WAL pages", name, name.Kind)
	}
	c := checker{name: name, size: size, systemID: systemID}
	if err := c.run(r); err != nil {
		return Summary{}, fmt.Errorf("check %s: %w", name, err)
	}
	return Summary{}, nil
}

type checker struct {
	name     FileName
	size     int64
	systemID uint64
}

func (c *checker) run(r io.Reader) error {
	if !ValidSegmentSize(uint64(c.size)) {
		return mismatch("a file of %d bytes is no WAL segment", c.size)
	}
	var start [LongHeaderSize]byte
	if err := readFull(r, start[:], 0, c.size); err != nil {
		return err
	}
	first, err := c.first(start[:])
	if err != nil {
		return err
	}
	page := make([]byte, first.BlockSize)
	if err := readFull(r, page[LongHeaderSize:], LongHeaderSize, c.size); err != nil {
		return err
	}
	if err := c.pages(r, page, first); err != nil {
		return err
	}
	switch n, err := io.ReadFull(r, page[:1]); {
	case n > 0:
		return mismatch("the file has more than its %d bytes", c.size)
	case err != io.EOF:
		return fmt.Errorf("read segment: %w", err)
	}
	return nil
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

// pages reads the pages behind the first and holds those that are valid, up
// to the first that isn't, against their predecessors.
func (c *checker) pages(r io.Reader, page []byte, first PageHeader) error {
	last, valid := first, true
	for offset := int64(len(page)); offset < c.size; offset += int64(len(page)) {
		if err := readFull(r, page, offset, c.size); err != nil {
			return err
		}
		if !valid {
			continue
		}
		h, err := ParsePageHeader(page)
		if valid = err == nil && !h.Long && h.Magic == first.Magic && h.Address == first.Address+LSN(offset); !valid {
			continue
		}
		if h.Timeline < last.Timeline {
			return mismatch("its page at %s goes back to timeline %d from timeline %d", h.Address, h.Timeline, last.Timeline)
		}
		if h.Timeline > c.name.Timeline {
			return mismatch("its page at %s belongs to timeline %d, its name to timeline %d",
				h.Address, h.Timeline, c.name.Timeline)
		}
		last = h
	}
	return nil
}

// readFull fills buf from a segment of size bytes, of which offset are read.
func readFull(r io.Reader, buf []byte, offset, size int64) error {
	n, err := io.ReadFull(r, buf)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return mismatch("the file ends after %d of %d bytes", offset+int64(n), size)
	case err != nil:
		return fmt.Errorf("read segment: %w", err)
	}
	return nil
}

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrMismatch)
}
