package compress

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// segmentWindow is a window, in bytes, that suits WAL as well as a larger one:
	// what repeats in it does so within a checkpoint's pages or within a few
	// records, and memory and caches are spared.
	segmentWindow = 512 << 10
	// sharedWindow is that of several processors, whose parts of a segment are as
	// long as four of it: to touch new memory takes a good part of a single push,
	// which 256 KiB made 7 % longer for much the same size.
	sharedWindow = 128 << 10
	// sampleSize is how much of a segment is compressed twice.
	sampleSize = 256 << 10
	// worthwhile is by which part of what Fastest makes of the sample the encoder
	// of Default must be better.
	worthwhile = 50
)

// SegmentWriter compresses WAL segments as Writer does other content, with what
// suits WAL. At the Default level it compresses the beginning of each with both
// that level's encoder and the one of Fastest, and goes on with the latter where
// the former isn't better by 2 %: it takes two thirds of the time, and many
// segments become no larger by it.
//
// In a hurry, while many segments wait, Default is the encoder of Fastest.
//
// With several processors each compresses a part of the segment, and goroutines
// run until Close or Reset.
type SegmentWriter struct {
	dst        io.Writer
	processors int
	full, fast *zstd.Encoder // fast is nil unless there is a choice
	sample     []byte        // while nothing is chosen
	chosen     *zstd.Encoder
}

// NewSegmentWriter returns a SegmentWriter to w on so many processors, at least
// one. It allocates some 5 MiB for each of them.
func NewSegmentWriter(w io.Writer, level Level, processors int, hurry bool) (*SegmentWriter, error) {
	s := &SegmentWriter{processors: max(processors, 1)}
	window := segmentWindow
	if s.processors > 1 {
		window = sharedWindow
	}
	if hurry && level == Default {
		level = Fastest
	}
	var err error
	if s.full, err = newEncoder(level, window, s.processors); err != nil {
		return nil, err
	}
	if level == Default {
		if s.fast, err = newEncoder(Fastest, window, s.processors); err != nil {
			return nil, err
		}
		s.sample = make([]byte, 0, sampleSize)
	}
	s.Reset(w)
	return s, nil
}

// Reset starts a new frame on dst, whatever became of the last one, of which
// nothing is written any more when it returns.
func (s *SegmentWriter) Reset(dst io.Writer) {
	if s.chosen != nil {
		s.chosen.Reset(nil) // waits for its goroutines
	}
	s.dst = dst
	s.sample = s.sample[:0]
	s.chosen = nil
	if s.fast == nil {
		s.take(s.full)
	}
}

func (s *SegmentWriter) take(encoder *zstd.Encoder) {
	s.chosen = encoder
	s.chosen.Reset(s.dst)
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
		s.take(s.full)
		if _, err := s.chosen.Write(s.sample); err != nil {
			return err
		}
	}
	return s.chosen.Close()
}

// choose compresses the sample both ways, and again with the better one.
func (s *SegmentWriter) choose() error {
	full, err := sizeBy(s.full, s.sample)
	if err != nil {
		return err
	}
	fast, err := sizeBy(s.fast, s.sample)
	if err != nil {
		return err
	}
	if full < fast-fast/worthwhile {
		s.take(s.full)
	} else {
		s.take(s.fast)
	}
	_, err = s.chosen.Write(s.sample)
	return err
}

// sizeBy is how many bytes an encoder makes of data.
func sizeBy(encoder *zstd.Encoder, data []byte) (int, error) {
	var size counter
	encoder.Reset(&size)
	if _, err := encoder.Write(data); err != nil {
		return 0, fmt.Errorf("compress a sample: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return 0, fmt.Errorf("compress a sample: %w", err)
	}
	return int(size), nil
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
