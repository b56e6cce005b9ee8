package walzstd

import "math/bits"

const (
	// bufferSize leaves room for four blocks before the window has to be moved.
	bufferSize = Window + 4*blockSize
	// maxBase is the position in the content up to which places are remembered.
	maxBase = 1 << 30
	// alignment is how places outside of records are aligned, in bytes, at which a
	// repetition is looked for: PostgreSQL aligns to 4 and 8. What is found there is
	// followed backward, too.
	alignment = 4
	// nearby is how many bytes may differ before the next repetition at the same
	// distance is taken without a look elsewhere; many of PostgreSQL's fields are
	// that long.
	nearby = 4
	// hashLog is the binary logarithm of how many places are remembered.
	hashLog = 13
)

// search finds what repeats itself in a content, block by block.
type search struct {
	buf  []byte // the window, the block behind it, and slack
	used int    // bytes in buf
	done int    // how many of them were in blocks
	base int    // the position of buf[0] in the content; a multiple of a page

	// What is remembered are positions in the content; 0 says nothing.
	places  [1 << hashLog]uint32       // by a hash of the first 6 bytes
	records [1 << recordLog]recordKind // by a hash of what makes records resemble each other

	low    int // the first place in buf that may be referred to
	anchor int // the first place in buf behind the last sequence
	offset int // of the last sequence

	deep bool // all records of a kind are looked at
}

func (s *search) init(effort Effort) {
	s.buf = make([]byte, bufferSize+slack)
	s.deep = effort == Thorough
}

// reset starts a content.
func (s *search) reset() {
	s.used, s.done, s.base, s.offset = 0, 0, 0, 1
	s.forget()
}

func (s *search) forget() {
	clear(s.places[:])
	clear(s.records[:])
}

// full tells whether a block must be made before more can be taken.
func (s *search) full() bool { return s.used-s.done == blockSize }

// take copies from p what fits into the block.
func (s *search) take(p []byte) int {
	if s.used == bufferSize {
		copy(s.buf, s.buf[s.used-Window:s.used])
		s.base += s.used - Window
		s.used, s.done = Window, Window
		if s.base > maxBase {
			s.base = 0
			s.forget()
		}
	}
	n := copy(s.buf[s.used:s.done+blockSize], p)
	s.used += n
	return n
}

// fill makes a block of what was taken.
func (s *search) fill(b *block, last bool) {
	start, end, before := s.done, s.used, s.offset
	clear(s.buf[end : end+slack]) // which is looked at: a frame follows from its content alone
	b.literals, b.sequences = b.literals[:0], b.sequences[:0]
	b.offsets, b.size, b.last = 0, end-start, last
	s.low, s.anchor = max(0, end-Window), start
	for page := start; page < end; page += pageSize {
		s.page(b, page, end)
	}
	b.literals = append(b.literals, s.buf[s.anchor:end]...)
	if b.settle(s.buf[start:end]) {
		s.offset = before
	}
	s.done = end
}

// between looks for repetitions from one place to another, at each that is a multiple of step.
func (s *search) between(b *block, from, to, step, end int) {
	buf, low, base := s.buf, s.low, s.base
	to = min(to, end-16)
	at := alignUp(max(from, s.anchor, 8), step)
	for at < to {
		here := load64(buf, at)
		place := &s.places[hash6(here)]
		before := int(*place) - base
		*place = uint32(at + base)
		if before >= low+8 && before < at && (load64(buf, before)^here)<<24 == 0 {
			back := bits.LeadingZeros64(load64(buf, at-8)^load64(buf, before-8)) / 8
			s.follow(b, at-min(back, at-s.anchor), at-before, to, nearby, end, end)
		} else if first := s.repeats(here, at); first > s.anchor {
			s.follow(b, first, s.offset, to, nearby, end, end)
		} else {
			at += step + (at-s.anchor)>>6&^(step-1) // less often where nothing repeats
			continue
		}
		at = alignUp(s.anchor, step)
	}
}

// hash6 hashes the first 6 bytes of a word.
func hash6(word uint64) uint64 { return (word << 16) * 0xcf1bbcdcbf9b >> (64 - hashLog) }

// repeats returns the first place, up to 4 bytes from at, of four bytes that
// repeat themselves at the offset of the last sequence; 0 without one. here is
// what stands at that place.
func (s *search) repeats(here uint64, at int) int {
	if at-s.offset < s.low {
		return 0
	}
	x := here ^ load64(s.buf, at-s.offset)
	x |= x >> 8
	x |= x >> 16 // a byte of it is zero where four bytes are
	zero := (x - 0x01_0101_0101) &^ x & 0x80_8080_8080
	if zero == 0 {
		return 0
	}
	return at + bits.TrailingZeros64(zero)/8
}

// follow makes sequences of what repeats itself at an offset from one place on,
// until so many bytes don't, or up to another place. What begins before last may
// go on to the end.
func (s *search) follow(b *block, from, offset, to, gap, last, end int) {
	buf, anchor := s.buf, s.anchor
	most := end // literals before the first one
	for {
		same := equal64(buf[from:], buf[from-offset:])
		n := min(last-from, 64)
		same &= 1<<uint(n) - 1
		for runs := same & (same >> 1) & (same >> 2); runs != 0; {
			first := bits.TrailingZeros64(runs)
			at := from + first
			if at-anchor > most {
				break
			}
			length := bits.TrailingZeros64(^(same >> uint(first)))
			runs &= ^uint64(0) << uint(first+length)
			after := at + length
			if first+length == n {
				after = extend(buf, after, offset, end)
			}
			value := uint32(1)
			if offset != s.offset || at == anchor {
				value = uint32(offset) + 3
				s.offset = offset
			}
			b.add(buf, anchor, at, after, value)
			place := alignUp(at, alignment)
			s.places[hash6(load64(buf, place))] = uint32(place + s.base)
			anchor = after
			most = gap
		}
		from = max(anchor, from+64-minMatch)
		if from-anchor > gap || from >= to {
			break
		}
	}
	s.anchor = anchor
}

// extend returns where a match ends that has come to a place.
func extend(buf []byte, at, offset, end int) int {
	for at < end-8 {
		if x := load64(buf, at) ^ load64(buf, at-offset); x != 0 {
			return at + bits.TrailingZeros64(x)/8
		}
		at += 8
	}
	for at < end && buf[at] == buf[at-offset] {
		at++
	}
	return at
}
