package compress

import (
	"fmt"
	"io"

	"github.com/walship/walship/pkg/walzstd"
)

// sampleSize is how much of a segment, in bytes, Best compresses twice.
const sampleSize = 1 << 20

// SegmentWriter compresses WAL segments as Writer does other content, with what
// suits WAL, walzstd: Fastest and Default are the same, Better and Best try
// harder. Best compresses the beginning of each segment with the library's strongest
// encoder, too, and goes on with the one that made it smaller.
//
// A second processor makes walzstd quicker, and then a goroutine runs until Close
// or Reset.
type SegmentWriter struct {
	dst       io.Writer
	wal       encoder
	strongest encoder // nil but for Best
	sample    []byte  // while nothing is chosen
	chosen    encoder
}

type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// NewSegmentWriter returns a SegmentWriter to w on so many processors; 0 is one. It
// allocates some 3 MiB, one more for a second processor; for Best 40 more.
func NewSegmentWriter(w io.Writer, level Level, processors int) (*SegmentWriter, error) {
	effort := walzstd.Normal
	s := &SegmentWriter{}
	switch level {
	case Fastest, Default:
	case Better:
		effort = walzstd.Thorough
	default:
		strongest, err := newEncoder(level, walzstd.Window)
		if err != nil {
			return nil, err
		}
		effort = walzstd.Thorough
		s.strongest = strongest
		s.sample = make([]byte, 0, sampleSize)
	}
	s.wal = walzstd.NewEncoder(w, effort, processors)
	s.Reset(w)
	return s, nil
}

// Reset starts a new frame on dst, whatever became of the last one, of which
// nothing is written any more when it returns.
func (s *SegmentWriter) Reset(dst io.Writer) {
	s.dst = dst
	s.wal.Reset(dst)
	s.sample = s.sample[:0]
	s.chosen = nil
	if s.strongest == nil {
		s.chosen = s.wal
	} else {
		s.strongest.Reset(dst)
	}
}

// Write compresses p. What it makes of it may reach the underlying writer only
// with Close.
func (s *SegmentWriter) Write(p []byte) (int, error) {
	taken := 0
	if s.chosen == nil {
		taken = min(len(p), sampleSize-len(s.sample))
		s.sample = append(s.sample, p[:taken]...)
		if len(s.sample) < sampleSize {
			return taken, nil
		}
		if err := s.choose(); err != nil {
			return taken, err
		}
	}
	n, err := s.chosen.Write(p[taken:])
	return taken + n, err
}

// Close ends the frame. It doesn't close the underlying writer.
func (s *SegmentWriter) Close() error {
	if s.chosen == nil { // it is short
		if err := s.choose(); err != nil {
			return err
		}
	}
	return s.chosen.Close()
}

// choose compresses the sample both ways, and again with the better one.
func (s *SegmentWriter) choose() error {
	sizes := [2]int{}
	for i, e := range []encoder{s.wal, s.strongest} {
		var size counter
		e.Reset(&size)
		if _, err := e.Write(s.sample); err != nil {
			return fmt.Errorf("compress a sample: %w", err)
		}
		if err := e.Close(); err != nil {
			return fmt.Errorf("compress a sample: %w", err)
		}
		sizes[i] = int(size)
	}
	s.chosen = s.wal
	if sizes[1] < sizes[0] {
		s.chosen = s.strongest
	}
	s.chosen.Reset(s.dst)
	_, err := s.chosen.Write(s.sample)
	return err
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
