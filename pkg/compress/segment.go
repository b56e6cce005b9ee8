package compress

import (
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/walship/walship/pkg/walzstd"
)

// segmentWindow is the window of Best for segments, in bytes: a larger one makes
// WAL no smaller.
const segmentWindow = walzstd.Window

// SegmentWriter compresses WAL segments as Writer does other content, with what
// suits WAL: all levels but Best are walzstd's. More processors than one
// make it quicker, and then goroutines run until Close or Reset.
type SegmentWriter struct {
	encoder interface {
		io.WriteCloser
		Reset(io.Writer)
	}
}

// NewSegmentWriter returns a SegmentWriter to w on so many processors; 0 is one. It allocates some 3 MiB, one more for a second processor; for Best more
// than 10 each.
func NewSegmentWriter(w io.Writer, level Level, processors int) (*SegmentWriter, error) {
	efforts := map[Level]walzstd.Effort{Fastest: walzstd.Quick, Default: walzstd.Normal, Better: walzstd.Thorough}
	if effort, ok := efforts[level]; ok {
		return &SegmentWriter{walzstd.NewEncoder(w, effort, processors)}, nil
	}
	encoder, err := newEncoder(level, segmentWindow, max(processors, 1))
	if err != nil {
		return nil, err
	}
	encoder.Reset(w)
	return &SegmentWriter{waiting{encoder}}, nil
}

// Reset starts a new frame on dst, whatever became of the last one, of which
// nothing is written any more when it returns.
func (s *SegmentWriter) Reset(dst io.Writer) { s.encoder.Reset(dst) }

// Write compresses p. What it makes of it may reach the underlying writer only
// with Close.
func (s *SegmentWriter) Write(p []byte) (int, error) { return s.encoder.Write(p) }

// Close ends the frame. It doesn't close the underlying writer.
func (s *SegmentWriter) Close() error { return s.encoder.Close() }

// waiting is an Encoder whose Reset waits for its goroutines before it takes the
// new destination.
type waiting struct{ *zstd.Encoder }

func (w waiting) Reset(dst io.Writer) {
	w.Encoder.Reset(nil)
	w.Encoder.Reset(dst)
}
