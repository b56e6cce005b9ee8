package walzstd

import "encoding/binary"

// block is what was found in a block: literals and sequences as RFC 8878, 3.1.1.3
// means them.
type block struct {
	literals  []byte
	sequences []sequence
	offsets   int // sequences that have an offset of their own
	size      int // of the content, in bytes
	last      bool
}

// sequence says: so many literals, then so many bytes from before. offset is the
// value that the format has for it: 1 for the offset of the sequence before (if
// there are literals), otherwise the offset and 3.
type sequence struct {
	literals, match, offset uint32
}

const (
	minMatch = 3
	// slack is how many bytes may be read and written behind what counts, so that
	// short runs are copied and compared without a look at their lengths.
	slack = 128
)

func newBlock() *block {
	return &block{
		literals:  make([]byte, 0, blockSize+slack),
		sequences: make([]sequence, 0, blockSize/minMatch),
	}
}

// add adds the sequence that begins at buf[from] and has its match from at to
// end.
func (b *block) add(buf []byte, from, at, end int, offset uint32) {
	n := len(b.literals)
	length := at - from
	b.literals = b.literals[:n+length]
	if length <= 16 {
		to := b.literals[n : n+16 : cap(b.literals)]
		binary.LittleEndian.PutUint64(to, load64(buf, from))
		binary.LittleEndian.PutUint64(to[8:], load64(buf, from+8))
	} else {
		copy(b.literals[n:], buf[from:at])
	}
	if offset > 1 {
		b.offsets++
	}
	b.sequences = append(b.sequences, sequence{uint32(length), uint32(end - at), offset})
}

// settle drops the sequences of a block whose content they may not make smaller: then
// it is all literals. So a block with sequences never has to be stored as it
// is, which would take the offset back that was there before.
// It returns whether it did that.
func (b *block) settle(content []byte) bool {
	// The codes of a sequence take 26 bits at most and an offset of its own 20; the
	// lengths take no more than 3 further bits for 32 literals, and 4 for 67
	// bytes of matches. The tables and the rest take less than 200 bytes. More
	// are asked for: then there are enough sequences that they take the four
	// bytes that some decoders want to see behind the description of a table.
	matches := len(content) - len(b.literals)
	most := len(b.literals) + len(b.literals)/64 + matches/128 + (26*len(b.sequences)+20*b.offsets)/8 + 600
	if most < len(content) || len(b.sequences) == 0 {
		return false
	}
	b.literals = append(b.literals[:0], content...)
	b.sequences = b.sequences[:0]
	return true
}
