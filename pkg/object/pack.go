package object

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/walship/walship/pkg/compress"
)

// Packer makes an object of a content that is read once, although the header
// stands before it and tells its digest: it keeps the content compressed, in
// memory, until the header is known. Its memory follows what the content
// compresses to. Used again with Reset, it allocates little.
//
// With several processors, goroutines run until Close or Reset.
type Packer struct {
	sealer *Sealer
	frame  pieces
	zstd   *compress.SegmentWriter
	hash   hash.Hash
	size   int64
}

// NewPacker returns a Packer of WAL segments, and of what goes with them, that
// waits for the first one. It compresses on so many processors at once.
func (s *Sealer) NewPacker(processors int) (*Packer, error) {
	p := &Packer{sealer: s}
	var err error
	if p.hash, err = NewHash(Fastest()); err != nil {
		return nil, fmt.Errorf("set up packing: %w", err)
	}
	if p.zstd, err = compress.NewSegmentWriter(&p.frame, s.Level, processors); err != nil {
		return nil, err
	}
	return p, nil
}

// Reset starts the next content, whatever became of the last one.
func (p *Packer) Reset() {
	p.zstd.Reset(&p.frame) // first: it may still be writing
	p.frame.reset()
	p.hash.Reset()
	p.size = 0
}

// Write adds to the content.
func (p *Packer) Write(data []byte) (int, error) {
	n, err := p.zstd.Write(data)
	p.hash.Write(data[:n])
	p.size += int64(n)
	return n, err
}

// Close ends the content and returns its size and digest, for the header.
// Seal can follow, more than once if need be.
func (p *Packer) Close() (size int64, digest Digest, err error) {
	if err := p.zstd.Close(); err != nil {
		return 0, Digest{}, fmt.Errorf("pack: %w", err)
	}
	return p.size, Digest{Fastest(), p.hash.Sum(nil)}, nil
}

// Packed is the number of bytes that the content was compressed to.
func (p *Packer) Packed() int { return p.frame.size }

// Seal writes the object of the header and the content to dst, as Sealer.Seal
// does. The header's size and digest must be those that Close returned.
func (p *Packer) Seal(dst io.Writer, h Header) error {
	if digest := (Digest{Fastest(), p.hash.Sum(nil)}); h.PlainSize != p.size || !h.Digest.Equal(digest) {
		return fmt.Errorf("seal %s: the header is of another content than was packed", h.Name)
	}
	record, err := p.sealer.record(h)
	if err != nil {
		return err
	}
	if p.sealer.Recipients != nil {
		err = p.encrypt(dst, record)
	} else if err = compress.WriteSkippable(dst, record); err == nil {
		err = p.frame.writeTo(dst)
	}
	if err != nil {
		return fmt.Errorf("seal %s: %w", h.Name, err)
	}
	return nil
}

func (p *Packer) encrypt(dst io.Writer, record []byte) error {
	w, err := p.sealer.Recipients.Seal(dst, record)
	if err != nil {
		return err
	}
	return errors.Join(p.frame.writeTo(w), w.Close())
}

// pieces is a buffer that grows without copying what it holds.
type pieces struct {
	list [][]byte // all but the last in use are full
	used int      // how many of them are in use
	size int
}

// pieceSize is the length of a piece in bytes.
const pieceSize = 256 << 10

func (b *pieces) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		at := b.size % pieceSize
		if at == 0 {
			if b.used == len(b.list) {
				b.list = append(b.list, make([]byte, pieceSize))
			}
			b.used++
		}
		n := copy(b.list[b.used-1][at:], rest)
		rest = rest[n:]
		b.size += n
	}
	return len(data), nil
}

func (b *pieces) reset() { b.used, b.size = 0, 0 }

func (b *pieces) writeTo(w io.Writer) error {
	left := b.size
	for _, piece := range b.list[:b.used] {
		if _, err := w.Write(piece[:min(left, pieceSize)]); err != nil {
			return err
		}
		left -= pieceSize
	}
	return nil
}
