package walzstd

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/huff0"
)

// coder codes blocks, one after the other.
type coder struct {
	out      []byte // the block
	huffman  huff0.Scratch
	forget   bool // the decoder doesn't know the Huffman code of before
	packed   []packed
	literals table
	matches  table
	offsets  table
}

func (c *coder) init() {
	c.out = make([]byte, 0, 2*blockSize)
	c.packed = make([]packed, 0, blockSize/minMatch)
}

// reset starts a frame.
func (c *coder) reset() { c.forget = true }

// The types of blocks, RFC 8878, 3.1.1.2.2, and the length of their header in bytes.
const (
	rawBlock        = 0
	compressedBlock = 2
	blockHeader     = 3
)

// code returns the block with its header, until the next call.
func (c *coder) code(b *block) ([]byte, error) {
	c.out = append(c.out[:0], 0, 0, 0)
	form := compressedBlock
	c.putLiterals(b.literals)
	c.putSequences(b.sequences)
	if len(c.out)-blockHeader >= b.size {
		if len(b.sequences) > 0 {
			// block.settle sees to it that this can't be.
			return nil, fmt.Errorf("compress WAL: %d literals and %d sequences of %d bytes became larger",
				len(b.literals), len(b.sequences), b.size)
		}
		form = rawBlock
		c.out = append(c.out[:blockHeader], b.literals...)
		c.forget = true
	}
	header := uint32(len(c.out)-blockHeader)<<3 | uint32(form)<<1
	if b.last {
		header |= 1
	}
	c.out[0], c.out[1], c.out[2] = byte(header), byte(header>>8), byte(header>>16)
	return c.out, nil
}

// The types of literals, RFC 8878, 3.1.1.3.1.1.
const (
	rawLiterals        = 0
	repeatedLiteral    = 1
	compressedLiterals = 2
	treelessLiterals   = 3
)

// putLiterals writes the section of literals.
func (c *coder) putLiterals(literals []byte) {
	n := len(literals)
	// What is said in 10 bits may be one stream only.
	compress, format, width := huff0.Compress4X, 3, 18
	switch {
	case n < 1<<10:
		compress, format, width = huff0.Compress1X, 0, 10
	case n < 1<<14:
		format, width = 2, 14
	}
	c.huffman.Reuse = huff0.ReusePolicyAllow
	if c.forget {
		c.huffman.Reuse = huff0.ReusePolicyNone
	}
	coded, known, err := []byte(nil), false, huff0.ErrIncompressible
	if n >= 32 {
		coded, known, err = compress(literals, &c.huffman)
	}
	switch {
	case err == nil:
		form := compressedLiterals
		if known {
			form = treelessLiterals
		}
		c.forget = false
		c.putNumber(uint64(form|format<<2)|uint64(n)<<4|uint64(len(coded))<<(4+width), (4+2*width)/8)
		c.out = append(c.out, coded...)
	case errors.Is(err, huff0.ErrUseRLE):
		c.putNumber(uint64(repeatedLiteral|3<<2)|uint64(n)<<4, 3)
		c.out = append(c.out, literals[0])
	default: // incompressible
		c.putNumber(uint64(rawLiterals|3<<2)|uint64(n)<<4, 3)
		c.out = append(c.out, literals...)
	}
}

// putNumber writes the lowest bytes of n.
func (c *coder) putNumber(n uint64, bytes int) {
	for range bytes {
		c.out = append(c.out, byte(n))
		n >>= 8
	}
}
