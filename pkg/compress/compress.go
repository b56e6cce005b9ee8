// Package compress writes and reads the zstd frames that objects are made of.
//
// What it writes, `zstd -d` opens: one standard frame with a content checksum,
// a window of at most MaxWindow, and no dictionary. What it reads is held to
// the same: exactly one such frame and nothing behind it, in memory that
// follows the window and not the content. It also keeps the skippable frame
// that carries a record in front of the data.
//
// Others import neither the zstd library nor pkg/walzstd, which compresses segments.
package compress

import (
	"cmp"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// MaxWindow is the greatest window, in bytes, of a frame that this package
// writes. Every zstd decoder is asked to support it (RFC 8878, 3.1.1.1.2).
const MaxWindow = 8 << 20

// Level says how much time is spent to make the output smaller. The zero
// value is Default.
type Level int

// The levels, about zstd's own 3, 1, 7 and 11.
const (
	Default Level = iota
	Fastest
	Better
	Best
)

var levels = [...]struct {
	name   string
	level  zstd.EncoderLevel
	window int
}{
	Default: {"default", zstd.SpeedDefault, MaxWindow},
	Fastest: {"fastest", zstd.SpeedFastest, 4 << 20},
	Better:  {"better", zstd.SpeedBetterCompression, MaxWindow},
	Best:    {"best", zstd.SpeedBestCompression, MaxWindow},
}

// ParseLevel returns the level of that name: fastest, default, better or best.
func ParseLevel(name string) (Level, error) {
	for i, l := range levels {
		if l.name == name {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("unknown compression level %q: use fastest, default, better or best", name)
}

// String returns the name that ParseLevel knows.
func (l Level) String() string {
	if l < 0 || int(l) >= len(levels) {
		return fmt.Sprintf("Level(%d)", int(l))
	}
	return levels[l].name
}

// Writer compresses what is written to it into one frame. It starts no
// goroutine: a Writer that is given up needs no Close.
type Writer struct {
	enc *zstd.Encoder
}

// NewWriter returns a Writer to w. It allocates a few times the window, up to
// about 40 MiB, so a caller with many streams uses one Writer again with Reset.
func NewWriter(w io.Writer, level Level) (*Writer, error) {
	return NewNarrowWriter(w, level, MaxWindow)
}

// NewNarrowWriter is NewWriter with a window of at most so many bytes, for a
// stream that is like itself over short distances.
func NewNarrowWriter(w io.Writer, level Level, window int) (*Writer, error) {
	enc, err := newEncoder(level, window)
	if err != nil {
		return nil, err
	}
	enc.Reset(w)
	return &Writer{enc}, nil
}

// newEncoder makes an encoder with a window of at most so many bytes, for one
// processor: with several, an encoder of Best would take 34 MiB for each.
func newEncoder(level Level, window int) (*zstd.Encoder, error) {
	if level < 0 || int(level) >= len(levels) {
		return nil, fmt.Errorf("unknown compression level %d", int(level))
	}
	enc, err := zstd.NewWriter(nil,
		// Before the level, which would choose smaller blocks for Fastest: those
		// of 128 KiB take less time and no more room.
		zstd.WithWindowSize(min(levels[level].window, window)),
		zstd.WithEncoderLevel(levels[level].level),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true),
		zstd.WithZeroFrames(true),
	)
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return enc, nil
}

// Write compresses p. What it makes of it may reach the underlying writer only
// with Close.
func (w *Writer) Write(p []byte) (int, error) {
	return w.enc.Write(p)
}

// Close ends the frame. It doesn't close the underlying writer.
func (w *Writer) Close() error {
	return w.enc.Close()
}

// Reset starts a new frame on dst, whatever became of the last one. With nil it
// lets go of the last destination.
func (w *Writer) Reset(dst io.Writer) {
	w.enc.Reset(dst)
}

// Reader decompresses one frame. It starts no goroutine.
type Reader struct {
	frame *frameReader
	dec   *zstd.Decoder
}

// NewReader returns a Reader of the single frame in src. Frames whose window
// (for a frame that is one segment, its content) is larger than maxWindow
// bytes are refused, as are frames with a dictionary or without a checksum. A
// source that ends early, or goes on behind the frame, is an error; the source
// is read to its end before Read returns io.EOF.
func NewReader(src io.Reader, maxWindow uint64) (*Reader, error) {
	frame := &frameReader{src: src}
	dec, err := zstd.NewReader(frame,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(max(maxWindow, zstd.MinWindowSize)),
		zstd.WithDecoderLowmem(true),
	)
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	return &Reader{frame, dec}, nil
}

// Read returns decompressed bytes; the checksum is checked before io.EOF.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.dec.Read(p)
	if err == io.EOF && r.frame.err != io.EOF {
		// The decoder takes some errors of its source for a clean end.
		return n, cmp.Or(r.frame.err, errCut)
	}
	return n, err
}

// Close releases the decoder. It doesn't close the source.
func (r *Reader) Close() error {
	r.dec.Close()
	return nil
}
