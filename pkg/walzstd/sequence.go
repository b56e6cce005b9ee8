package walzstd

import (
	"encoding/binary"
	"math/bits"
)

// packed is a sequence as it is written: the codes of its three numbers, and
// the bits that go with them.
type packed struct {
	bits  uint64
	codes uint32 // from the lowest byte on: of the literals, the match, the offset; and how many bits
}

// lengthCode is a code of a length, RFC 8878, 3.1.1.3.2.1.1: the first length that has
// it, and how many bits tell which one it is.
type lengthCode struct {
	first, bits uint32
}

// Lengths below smallLength have their code in a table; those of others follow from their logarithm.
const smallLength = 128

var (
	literalsCodes = lengthCodes([64]uint8{16: 1, 17: 1, 18: 1, 19: 1, 20: 2, 21: 2, 22: 3, 23: 3, 24: 4, 25: 6, 26: 7, 27: 8, 28: 9, 29: 10,
		30: 11, 31: 12, 32: 13, 33: 14, 34: 15, 35: 16})
	// The codes of matches count from the shortest one.
	matchCodes = lengthCodes([64]uint8{32: 1, 33: 1, 34: 1, 35: 1, 36: 2, 37: 2, 38: 3, 39: 3, 40: 4, 41: 4, 42: 5, 43: 7, 44: 8, 45: 9,
		46: 10, 47: 11, 48: 12, 49: 13, 50: 14, 51: 15, 52: 16})
	smallLiterals = smallCodes(&literalsCodes)
	smallMatches  = smallCodes(&matchCodes)
)

func lengthCodes(bits [64]uint8) (all [64]lengthCode) {
	first := uint32(0)
	for i := range all {
		all[i] = lengthCode{first, uint32(bits[i])}
		first += 1 << bits[i]
	}
	return all
}

func smallCodes(all *[64]lengthCode) (small [smallLength]uint8) {
	at := uint8(0)
	for length := range small {
		for all[at+1].first <= uint32(length) {
			at++
		}
		small[length] = at
	}
	return small
}

// The first length that isn't in a table is 128 = 1<<7; these are added to a length's
// logarithm.
const (
	largeLiterals = 26 - 7
	largeMatch    = 43 - 7
)

// putSequences writes the section of sequences.
func (c *coder) putSequences(sequences []sequence) {
	switch n := len(sequences); {
	case n < 128:
		c.out = append(c.out, byte(n))
	case n < 0x7f00:
		c.out = append(c.out, byte(n>>8+128), byte(n))
	default:
		c.out = append(c.out, 255, byte(n-0x7f00), byte((n-0x7f00)>>8))
	}
	if len(sequences) == 0 {
		return
	}
	c.pack(sequences)
	c.literals.build(9)
	c.offsets.build(8)
	c.matches.build(9)
	c.out = append(c.out, c.literals.mode()<<6|c.offsets.mode()<<4|c.matches.mode()<<2)
	c.out = c.literals.describe(c.out)
	c.out = c.offsets.describe(c.out)
	c.out = c.matches.describe(c.out)
	c.putPacked()
}

// pack packs the sequences and counts their codes.
func (c *coder) pack(sequences []sequence) {
	clear(c.literals.counts[:])
	clear(c.matches.counts[:])
	clear(c.offsets.counts[:])
	c.packed = c.packed[:len(sequences)]
	for i, s := range sequences {
		var literals, match uint32
		if s.literals < smallLength {
			literals = uint32(smallLiterals[s.literals])
		} else {
			literals = uint32(bits.Len32(s.literals)) - 1 + largeLiterals
		}
		length := s.match - minMatch
		if length < smallLength {
			match = uint32(smallMatches[length])
		} else {
			match = uint32(bits.Len32(length)) - 1 + largeMatch
		}
		offset := uint32(bits.Len32(s.offset)) - 1
		c.literals.counts[literals&63]++
		c.matches.counts[match&63]++
		c.offsets.counts[offset&63]++
		l, m := &literalsCodes[literals&63], &matchCodes[match&63]
		p := &c.packed[i]
		p.bits = uint64(s.literals-l.first) | uint64(length-m.first)<<(l.bits&63) |
			uint64(s.offset&^(1<<(offset&31)))<<((l.bits+m.bits)&63)
		p.codes = literals | match<<8 | offset<<16 | (l.bits+m.bits+offset)<<24
	}
}

// putPacked writes the sequences, the last one first, as they are read backward.
func (c *coder) putPacked() {
	// No sequence takes more than 26 bits of codes and 52 others.
	need := len(c.out) + 10*len(c.packed) + 16
	if cap(c.out) < need {
		c.out = append(make([]byte, 0, need), c.out...)
	}
	out, n := c.out[:cap(c.out)], len(c.out)
	last := len(c.packed) - 1
	p := &c.packed[last]
	match, offset, literals := c.matches.first(p.codes>>8), c.offsets.first(p.codes>>16), c.literals.first(p.codes)
	word, filled := p.bits, uint(p.codes>>24)
	for i := last - 1; i >= 0; i-- {
		binary.LittleEndian.PutUint64(out[n:], word)
		n += int(filled / 8)
		word >>= filled &^ 7 & 63
		filled &= 7

		p := &c.packed[i]
		t := &c.offsets.codes[p.codes>>16&63]
		count := (offset + t.bits) >> 16
		word |= uint64(offset&(1<<(count&31)-1)) << (filled & 63)
		filled += uint(count)
		offset = uint32(c.offsets.states[(int32(offset>>(count&31))+t.shift)&(maxStates-1)])

		t = &c.matches.codes[p.codes>>8&63]
		count = (match + t.bits) >> 16
		word |= uint64(match&(1<<(count&31)-1)) << (filled & 63)
		filled += uint(count)
		match = uint32(c.matches.states[(int32(match>>(count&31))+t.shift)&(maxStates-1)])

		t = &c.literals.codes[p.codes&63]
		count = (literals + t.bits) >> 16
		word |= uint64(literals&(1<<(count&31)-1)) << (filled & 63)
		filled += uint(count)
		literals = uint32(c.literals.states[(int32(literals>>(count&31))+t.shift)&(maxStates-1)])

		if p.codes>>24 > 30 { // 7 and 26 are there already
			binary.LittleEndian.PutUint64(out[n:], word)
			n += int(filled / 8)
			word >>= filled &^ 7 & 63
			filled &= 7
		}
		word |= p.bits << (filled & 63)
		filled += uint(p.codes >> 24)
	}
	w := bitWriter{out[:n], word, int(filled)}
	w.put(0, 0) // what is there already, to make room
	w.put(match&(1<<c.matches.log-1), int(c.matches.log))
	w.put(offset&(1<<c.offsets.log-1), int(c.offsets.log))
	w.put(literals&(1<<c.literals.log-1), int(c.literals.log))
	w.put(1, 1)
	c.out = w.end()
}
