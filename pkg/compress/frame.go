package compress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic numbers of RFC 8878, 3.1. Of the sixteen skippable ones, walship has
// chosen one, so that another tool's frame isn't taken for its own.
const (
	frameMagic     = 0xFD2FB528
	skippableMagic = 0x184D2A57
)

var (
	errCut      = errors.New("zstd frame is cut short")
	errTrailing = errors.New("data behind the end of the zstd frame")
)

// frameReader passes on exactly one frame of src and fails on anything else
// that decoders are used to tolerate: no frame at all, several of them,
// skippable frames, trailing bytes, a source that breaks at a frame's end.
type frameReader struct {
	src      io.Reader
	state    func(*frameReader) error // what comes next; nil before the frame
	head     []byte                   // parsed and not yet passed on
	body     int                      // bytes of the source to pass on as they are
	err      error                    // final; io.EOF when the frame and the source have ended
	headData [16]byte
}

func (f *frameReader) Read(p []byte) (int, error) {
	for f.err == nil {
		switch {
		case len(f.head) > 0:
			n := copy(p, f.head)
			f.head = f.head[n:]
			return n, nil
		case f.body > 0:
			n, err := f.src.Read(p[:min(len(p), f.body)])
			f.body -= n
			if err != nil && (err != io.EOF || f.body > 0) {
				f.err = sourceError(err)
			}
			if n > 0 || len(p) == 0 {
				return n, nil
			}
		case f.state == nil:
			f.err = f.frameHeader()
		default:
			f.err = f.state(f)
		}
	}
	return 0, f.err
}

// frameHeader reads the magic number and the frame header (RFC 8878, 3.1.1.1).
func (f *frameReader) frameHeader() error {
	if err := f.take(5); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(f.head) != frameMagic {
		return errors.New("not a zstd frame")
	}
	descriptor := f.head[4]
	single := descriptor&0x20 != 0
	switch {
	case descriptor&0x08 != 0:
		return errors.New("zstd frame has a reserved bit set")
	case descriptor&0x03 != 0:
		return errors.New("zstd frame needs a dictionary")
	case descriptor&0x04 == 0:
		return errors.New("zstd frame has no checksum")
	}
	rest := 1 << (descriptor >> 6) // the content's size
	switch {
	case !single && descriptor>>6 == 0:
		rest = 1 // the window
	case !single:
		rest++
	}
	f.state = (*frameReader).blockHeader
	return f.take(rest)
}

// blockHeader reads the header of the next block (RFC 8878, 3.1.1.2).
func (f *frameReader) blockHeader() error {
	f.head = nil
	if err := f.take(3); err != nil {
		return err
	}
	header := uint32(f.head[0]) | uint32(f.head[1])<<8 | uint32(f.head[2])<<16
	f.body = int(header >> 3)
	const repeated, reserved = 1, 3
	switch header >> 1 & 3 {
	case repeated:
		f.body = 1
	case reserved:
		return errors.New("zstd block of a reserved type")
	}
	if last := header&1 != 0; last {
		f.state = (*frameReader).checksum
	}
	return nil
}

func (f *frameReader) checksum() error {
	f.head = nil
	f.state = (*frameReader).end
	return f.take(4)
}

func (f *frameReader) end() error {
	var one [1]byte
	switch n, err := io.ReadFull(f.src, one[:]); {
	case n > 0:
		return errTrailing
	case err != io.EOF:
		return sourceError(err)
	}
	return io.EOF
}

// take reads n more bytes of a header, to be parsed and passed on.
func (f *frameReader) take(n int) error {
	at := len(f.head)
	f.head = f.headData[:at+n]
	_, err := io.ReadFull(f.src, f.head[at:])
	return sourceError(err)
}

// sourceError makes an error unequal to the io errors that the decoder, which
// compares them, takes for a frame's regular end.
func sourceError(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return errCut
	}
	return fmt.Errorf("read zstd frame: %w", err)
}

// IsSkippable tells whether head, the first bytes of a stream, starts the
// skippable frame that WriteSkippable writes.
func IsSkippable(head []byte) bool {
	return len(head) >= 4 && binary.LittleEndian.Uint32(head) == skippableMagic
}

// WriteSkippable writes payload as a skippable frame, which decoders pass over.
func WriteSkippable(w io.Writer, payload []byte) error {
	if uint64(len(payload)) > 1<<32-1 {
		return fmt.Errorf("write skippable frame: %d bytes are too many", len(payload))
	}
	frame := make([]byte, 8, 8+len(payload))
	binary.LittleEndian.PutUint32(frame, skippableMagic)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(payload)))
	if _, err := w.Write(append(frame, payload...)); err != nil {
		return fmt.Errorf("write skippable frame: %w", err)
	}
	return nil
}

// ReadSkippable reads the frame that WriteSkippable wrote, and not a byte
// more, if its payload is at most limit bytes.
func ReadSkippable(r io.Reader, limit int) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read skippable frame: %w", err)
	}
	if !IsSkippable(head[:]) {
		return nil, errors.New("read skippable frame: there is none")
	}
	size := binary.LittleEndian.Uint32(head[4:])
	if int64(size) > int64(limit) {
		return nil, fmt.Errorf("read skippable frame: %d bytes, allowed are %d", size, limit)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, fmt.Errorf("read skippable frame: %w", err)
	}
	return payload, nil
}
