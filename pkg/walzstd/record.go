package walzstd

import "math/bits"

const (
	// pageSize is that of WAL as PostgreSQL is usually built, XLOG_BLCKSZ.
	pageSize = 8192
	// Sizes in bytes and flags of page headers (access/xlog_internal.h), and the
	// size of a record's (access/xlogrecord.h).
	shortHeader    = 24
	longHeader     = 40
	firstContinues = 0x0001
	hasLongHeader  = 0x0002
	recordHeader   = 24

	// recordLog is the binary logarithm of how many kinds of records are
	// remembered.
	recordLog = 11
	// alike is how many bytes of a record are compared with another one. What follows
	// in a longer one is a page image most often.
	alike = 128
	// distant is how many bytes may differ in records of a kind before what they have is
	// looked for elsewhere.
	distant = 12
)

// recordKind has the positions of the last records of a kind, the last one first.
type recordKind [3]uint32

// page looks for repetitions in a page. That it is one of WAL is a guess.
func (s *search) page(b *block, page, end int) {
	pageEnd := min(page+pageSize, end)
	at := min(s.firstRecord(page), pageEnd)
	s.between(b, page, at, alignment, end)
	for at+recordHeader+16 <= pageEnd {
		length := load32(s.buf, at)
		if length < recordHeader {
			break // the end of WAL, or none
		}
		next := pageEnd
		if length < pageSize {
			next = min(at+alignUp(int(length), 8), pageEnd)
		}
		s.record(b, at, next, end)
		at = next
	}
	s.between(b, at, pageEnd, alignment, end)
}

// firstRecord is where the first record begins whose header stands on a page.
func (s *search) firstRecord(page int) int {
	flags := s.buf[page+2] // the lower byte of xlp_info
	at := page + shortHeader
	if flags&hasLongHeader != 0 {
		at = page + longHeader
	}
	if flags&firstContinues != 0 {
		at += alignUp(int(min(load32(s.buf, page+16), pageSize)), 8) // xlp_rem_len
	}
	return at
}

// record compares a record with the last one of its kind: of the same length,
// resource manager and operation, with the same 8 bytes where the first block's
// database and relation stand, if it has one. What differs over some length is looked
// for elsewhere, at every byte: a value may stand in records of other kinds, too.
func (s *search) record(b *block, at, next, end int) {
	if next <= s.anchor {
		return
	}
	buf, low := s.buf, s.low
	length := load32(buf, at)
	operation := load32(buf, at+16) & 0xffff // xl_info and xl_rmid
	relation := load64(buf, at+32)
	known := &s.records[(uint64(length)<<48^uint64(operation)<<32^relation)*0x9e3779b185ebca87>>(64-recordLog)]
	before := int(known[0]) - s.base
	if s.deep {
		before = s.best(known, at)
		known[2], known[1] = known[1], known[0]
	}
	known[0] = uint32(at + s.base)
	if before < low+8 {
		s.between(b, at, next, alignment, end)
		return
	}
	offset := at - before
	// One at the distance of the last sequence does as well, and its offset costs nothing.
	if other := at - s.offset; other >= low+8 && load32(buf, other) == length &&
		load32(buf, other+16)&0xffff == operation && load64(buf, other+32) == relation {
		offset = s.offset
	}
	to := min(next, at+alike)
	for from := max(at, s.anchor); from < to; from = max(from, s.anchor) {
		s.follow(b, from, offset, to, distant, to, end)
		if s.anchor+distant >= to {
			break
		}
		differs := max(from, s.anchor)
		from = min(differs+2*distant, to)
		s.between(b, differs, from, 1, end)
	}
	if next > to {
		s.between(b, to, next, alignment, end)
	}
}

// best returns which of the records of a kind has most in common with the one
// at a place.
func (s *search) best(known *recordKind, at int) int {
	best, most := -1, -1
	for _, position := range known {
		before := int(position) - s.base
		if before < s.low+8 {
			break
		}
		if same := bits.OnesCount64(equal64(s.buf[at:], s.buf[before:])); same > most {
			best, most = before, same
		}
	}
	return best
}
