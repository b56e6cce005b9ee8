package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// How many consecutive segments one roll-up describes. The first one's number
// is a multiple of it. The small ones are for the end of the archive and for
// forks, where there are no 256 segments in a row.
const (
	RollupSegments      = 256
	SmallRollupSegments = 16
)

// Rollup gathers the summaries of a block of consecutive segments of one
// timeline, so that whoever needs them all reads one object. It repeats what
// the headers of the segments say, and is as advisory as those are without an
// identity; it can be made again from them at any time.
type Rollup struct {
	SystemID    uint64
	Timeline    wal.TimelineID
	SegmentSize uint64 // bytes
	Length      uint64 // RollupSegments, which 0 stands for, or SmallRollupSegments
	Block       uint64 // the number of the first segment, divided by Length
	Segments    []wal.Summary
}

// ErrRollup means that a roll-up says what can't be: it is damaged, of another
// version or place, or its segments don't follow one another. It is to be
// ignored.
var ErrRollup = errors.New("implausible roll-up")

const rollupFormat = "walship.dev/rollup/v1"

const (
	// maxStoredRollup and maxRollup bound a roll-up as stored and as text: a
	// summary isn't larger than a context header.
	maxStoredRollup = 8 << 20
	maxRollup       = RollupSegments * (16 << 10)
)

// Total returns what the whole block says, as one summary. The error tells
// which segment doesn't follow the one before it.
func (x *Rollup) Total() (wal.Summary, error) {
	if len(x.Segments) == 0 {
		return wal.Summary{}, errors.New("there are no segments")
	}
	total := x.Segments[0]
	for _, next := range x.Segments[1:] {
		var err error
		if total, err = total.Append(next); err != nil {
			return wal.Summary{}, err
		}
	}
	return total, nil
}

// name names segment i of the block.
func (x *Rollup) name(i int) wal.FileName {
	return wal.SegmentName(x.Timeline, x.Block*x.length()+uint64(i), x.SegmentSize)
}

func (x *Rollup) length() uint64 {
	if x.Length == 0 {
		return RollupSegments
	}
	return x.Length
}

// RollupKey returns the key of the roll-up of a block of RollupSegments.
func RollupKey(systemID uint64, timeline wal.TimelineID, block, segmentSize uint64) string {
	x := Rollup{SystemID: systemID, Timeline: timeline, SegmentSize: segmentSize, Block: block}
	return x.Key()
}

// Key returns the key of the roll-up.
func (x *Rollup) Key() string {
	key := fmt.Sprintf("%s%s-%d", summariesPrefix(x.SystemID), x.name(0), x.SegmentSize)
	if x.length() != RollupSegments {
		key += fmt.Sprintf("-%d", x.Length)
	}
	return key + ".zst"
}

// Rollup reads the roll-up of a block. The error wraps storage.ErrNotExist
// where there is none, and ErrRollup where there is none of use.
func (r *Repository) Rollup(ctx context.Context, systemID uint64, timeline wal.TimelineID, block, segmentSize uint64) (*Rollup, error) {
	x := &Rollup{SystemID: systemID, Timeline: timeline, SegmentSize: segmentSize, Block: block}
	return x, r.ReadRollup(ctx, x)
}

// ReadRollup reads the segments of a roll-up, of which the rest is given. Its
// errors are those of Rollup.
func (r *Repository) ReadRollup(ctx context.Context, x *Rollup) error {
	stored, err := readObject(ctx, r.Store, x.Key(), maxStoredRollup)
	if err != nil {
		return fmt.Errorf("read roll-up: %w", err)
	}
	if err := x.decode(stored, r.Info.ID); err != nil {
		return fmt.Errorf("read roll-up %s: %w: %w", x.Key(), ErrRollup, err)
	}
	return nil
}

// WriteRollup stores a roll-up of a whole block. That there is one already is
// no error: both say the same.
func (r *Repository) WriteRollup(ctx context.Context, x *Rollup) error {
	if err := x.validate(); err != nil {
		return fmt.Errorf("write roll-up %s: %w: %w", x.Key(), ErrRollup, err)
	}
	stored, err := x.encode(r.Info.ID)
	if err != nil {
		return fmt.Errorf("write roll-up %s: %w", x.Key(), err)
	}
	_, err = r.Store.Put(ctx, x.Key(), bytes.NewReader(stored))
	if err != nil && !errors.Is(err, storage.ErrExist) {
		return fmt.Errorf("write roll-up: %w", err)
	}
	return nil
}

// Rollups lists the keys of the roll-ups of a timeline whose first segment has
// a number from first on.
func (r *Repository) Rollups(ctx context.Context, systemID uint64, timeline wal.TimelineID, first, segmentSize uint64) (map[string]bool, error) {
	keys := map[string]bool{}
	prefix := fmt.Sprintf("%s%08X", summariesPrefix(systemID), uint32(timeline))
	after := summariesPrefix(systemID) + wal.SegmentName(timeline, first, segmentSize).String()
	for info, err := range r.Store.List(ctx, prefix, after) {
		if err != nil {
			return nil, fmt.Errorf("list roll-ups of cluster %d: %w", systemID, err)
		}
		keys[info.Key] = true
	}
	return keys, nil
}

func summariesPrefix(systemID uint64) string { return clusterPrefix(systemID) + "summaries/" }

// head is what a roll-up starts with.
func (x *Rollup) head(repository string) string {
	head := fmt.Sprintf("format=%s\nrepository=%s\nsystem_id=%d\ntimeline=%d\nsegment_size=%d\nblock=%d\n",
		rollupFormat, repository, x.SystemID, uint32(x.Timeline), x.SegmentSize, x.Block)
	if x.length() != RollupSegments {
		head += fmt.Sprintf("length=%d\n", x.Length)
	}
	return head
}

const (
	rollupSegment = "segment="
	rollupEnd     = "end=sha256:"
)

// encode writes a roll-up: lines of key=value, a segment's name before its
// summary's fields, and the digest of all that at the end; compressed.
func (x *Rollup) encode(repository string) ([]byte, error) {
	var text bytes.Buffer
	text.WriteString(x.head(repository))
	for i, s := range x.Segments {
		fmt.Fprintf(&text, "%s%s\n", rollupSegment, x.name(i))
		for _, field := range s.Fields() {
			fmt.Fprintf(&text, "%s=%s\n", field.Key, field.Value)
		}
	}
	fmt.Fprintf(&text, "%s%x\n", rollupEnd, sha256.Sum256(text.Bytes()))
	var stored bytes.Buffer
	w, err := compress.NewWriter(&stored, compress.Fastest)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return stored.Bytes(), nil
}

// decode reads what encode wrote of this block in this repository.
func (x *Rollup) decode(stored []byte, repository string) error {
	r, err := compress.NewReader(bytes.NewReader(stored), compress.MaxWindow)
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxRollup+1))
	if err != nil {
		return err
	}
	text := string(data)
	at := strings.LastIndex(text, rollupEnd)
	if at < 0 || len(data) > maxRollup || text[at:] != fmt.Sprintf("%s%x\n", rollupEnd, sha256.Sum256(data[:at])) {
		return errors.New("it is cut, or changed")
	}
	segments, ok := strings.CutPrefix(text[:at], x.head(repository))
	if !ok {
		return errors.New("it is of another block, repository or format")
	}
	if err := x.decodeSegments(segments); err != nil {
		return err
	}
	return x.validate()
}

func (x *Rollup) decodeSegments(text string) error {
	var fields []wal.Field
	add := func() error {
		summary, err := wal.ParseSummary(fields)
		x.Segments, fields = append(x.Segments, summary), nil
		return err
	}
	begun := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, rollupSegment); ok {
			if begun == int(x.length()) || name != x.name(begun).String() {
				return fmt.Errorf("it has segment %q at place %d", name, begun)
			}
			if begun++; begun == 1 {
				continue
			}
			if err := add(); err != nil {
				return err
			}
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		fields = append(fields, wal.Field{Key: key, Value: value})
	}
	return add()
}

// validate checks that a roll-up says what can be: of every segment of the
// block, and of WAL that goes on from each to the next.
func (x *Rollup) validate() error {
	if !wal.ValidSegmentSize(x.SegmentSize) {
		return fmt.Errorf("%d is no segment size", x.SegmentSize)
	}
	if x.length() != RollupSegments && x.Length != SmallRollupSegments {
		return fmt.Errorf("there are no roll-ups of %d segments", x.Length)
	}
	if len(x.Segments) != int(x.length()) {
		return fmt.Errorf("it has %d segments, not %d", len(x.Segments), x.length())
	}
	for i, s := range x.Segments {
		if err := CheckSummary(s, x.name(i), x.SegmentSize); err != nil {
			return fmt.Errorf("segment %s: %w", x.name(i), err)
		}
	}
	_, err := x.Total()
	return err
}

// CheckSummary returns an error unless a summary can be that of a segment: its
// positions lie there, its counts and times agree.
func CheckSummary(s wal.Summary, name wal.FileName, segmentSize uint64) error {
	start, end := name.Start(segmentSize), name.Next(segmentSize).Start(segmentSize)
	inside := func(lsn wal.LSN) bool { return lsn == 0 || lsn >= start && lsn < end }
	switch {
	case s.Ending == 0:
		return errors.New("it has no summary")
	case s.End < start || s.End > end || s.Ending.Complete() && s.End != end:
		return fmt.Errorf("its WAL ends at %s, outside of it", s.End)
	case !inside(s.First) || !inside(s.Last) || s.First > s.Last:
		return fmt.Errorf("its records start at %s and %s, outside of it", s.First, s.Last)
	case s.Commits > s.Stops || s.Stops > s.Records || s.RestorePointCount > s.Records:
		return errors.New("its counts don't agree")
	case s.Stops > 0 && s.MinTime > s.MaxTime:
		return errors.New("its times don't agree")
	}
	for _, point := range s.RestorePoints {
		if !inside(point.LSN) {
			return fmt.Errorf("its restore point is at %s, outside of it", point.LSN)
		}
	}
	return nil
}
