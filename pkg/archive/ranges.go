package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Range is a run of archived segments of one timeline without a gap.
type Range struct {
	First, Last wal.FileName
	SegmentSize uint64 // bytes, as the header of the first segment says
	Segments    uint64
	StoredSize  int64 // bytes of the segments as stored
}

// Start is the LSN of the range's first byte.
func (r Range) Start() wal.LSN { return r.First.Start(r.SegmentSize) }

// End is the LSN behind the range's last byte.
func (r Range) End() wal.LSN { return r.Last.Next(r.SegmentSize).Start(r.SegmentSize) }

// Ranges lists a cluster's archived segments from a name on (the zero name:
// all), as runs without a gap, in the order of timelines. Besides the listing
// it reads the header of one segment of each run, for the size of its segments.
// Where that is corrupt, the size is that of the run before, or for the first
// runs that of the next segment whose header isn't.
func Ranges(ctx context.Context, r *repo.Repository, systemID uint64, from wal.FileName) ([]Range, error) {
	var l rangeList
	for file, err := range r.ListWAL(ctx, systemID, from) {
		if err != nil {
			return nil, err
		}
		if file.Name.Kind != wal.KindSegment || l.extend(file) {
			continue
		}
		size, err := sizeInHeader(ctx, r, file)
		switch {
		case errors.Is(err, object.ErrCorrupt):
			l.unknown(file, err)
		case err != nil:
			return nil, fmt.Errorf("list WAL of cluster %d: %w", systemID, err)
		default:
			l.begin(file, size)
		}
	}
	if l.corrupt != nil {
		return nil, fmt.Errorf("list WAL of cluster %d: %w", systemID, l.corrupt)
	}
	return l.ranges, nil
}

// rangeList makes ranges of segments that come in the order of their names.
type rangeList struct {
	ranges []Range
	// Segments before any whose size is known, and why it isn't.
	waiting []repo.WALFile
	corrupt error
}

// extend adds a segment to the last range, if it is the next one there.
func (l *rangeList) extend(file repo.WALFile) bool {
	if len(l.ranges) == 0 {
		return false
	}
	last := &l.ranges[len(l.ranges)-1]
	if last.Last.Next(last.SegmentSize) != file.Name {
		return false
	}
	last.Last, last.Segments, last.StoredSize = file.Name, last.Segments+1, last.StoredSize+file.Size
	return true
}

// begin adds a segment of a size, after those that waited for one.
func (l *rangeList) begin(file repo.WALFile, size uint64) {
	files := append(l.waiting, file)
	l.waiting, l.corrupt = nil, nil
	for _, file := range files {
		if !l.extend(file) {
			l.ranges = append(l.ranges, Range{First: file.Name, Last: file.Name, SegmentSize: size, Segments: 1, StoredSize: file.Size})
		}
	}
}

// unknown adds a segment whose header is corrupt.
func (l *rangeList) unknown(file repo.WALFile, err error) {
	if n := len(l.ranges); n > 0 && file.Name.ValidFor(l.ranges[n-1].SegmentSize) {
		l.begin(file, l.ranges[n-1].SegmentSize)
		return
	}
	l.waiting = append(l.waiting, file)
	if l.corrupt == nil {
		l.corrupt = err
	}
}

// sizeInHeader returns a segment's size in bytes, as its header says.
func sizeInHeader(ctx context.Context, r *repo.Repository, file repo.WALFile) (uint64, error) {
	header, err := ReadHeader(ctx, r, file.Key)
	if err != nil {
		return 0, err
	}
	size := uint64(header.PlainSize)
	if !wal.ValidSegmentSize(size) || !file.Name.ValidFor(size) {
		return 0, fmt.Errorf("object %s: %w: its header says that it has %d bytes, which no segment of that name has",
			file.Key, object.ErrCorrupt, header.PlainSize)
	}
	return size, nil
}

// ReadHeader reads the context header of an object, without an identity: what
// it says is not verified.
func ReadHeader(ctx context.Context, r *repo.Repository, key string) (object.Header, error) {
	body, _, err := r.Store.Get(ctx, key, 0, object.HeadSize)
	if err != nil {
		return object.Header{}, fmt.Errorf("read header of %s: %w", key, err)
	}
	defer body.Close()
	header, err := object.ReadHeader(body)
	if err != nil {
		return object.Header{}, fmt.Errorf("read header of %s: %w", key, err)
	}
	return header, nil
}
