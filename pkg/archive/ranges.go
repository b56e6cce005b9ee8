package archive

import (
	"context"
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
// it reads the header of one segment of each run.
func Ranges(ctx context.Context, r *repo.Repository, systemID uint64, from wal.FileName) ([]Range, error) {
	var ranges []Range
	for file, err := range r.ListWAL(ctx, systemID, from) {
		if err != nil {
			return nil, err
		}
		if file.Name.Kind != wal.KindSegment {
			continue
		}
		if n := len(ranges); n > 0 && ranges[n-1].Last.Next(ranges[n-1].SegmentSize) == file.Name {
			last := &ranges[n-1]
			last.Last, last.Segments, last.StoredSize = file.Name, last.Segments+1, last.StoredSize+file.Size
			continue
		}
		header, err := ReadHeader(ctx, r, file.Key)
		if err != nil {
			return nil, fmt.Errorf("list WAL of cluster %d: %w", systemID, err)
		}
		size := uint64(header.PlainSize)
		if !wal.ValidSegmentSize(size) || !file.Name.ValidFor(size) {
			return nil, fmt.Errorf("list WAL of cluster %d: object %s: %w: its header says that it has %d bytes, which no segment of that name has",
				systemID, file.Key, object.ErrCorrupt, header.PlainSize)
		}
		ranges = append(ranges, Range{First: file.Name, Last: file.Name, SegmentSize: size, Segments: 1, StoredSize: file.Size})
	}
	return ranges, nil
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
