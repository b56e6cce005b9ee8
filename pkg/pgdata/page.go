package pgdata

import (
	"encoding/binary"

	"github.com/walship/walship/pkg/wal"
)

// Offsets in PageHeaderData (src/include/storage/bufpage.h), of numbers in the
// byte order of the machine, which is taken to be little-endian.
const (
	pageLSNHigh  = 0
	pageLSNLow   = 4
	pageChecksum = 8
	pageUpper    = 14
)

// checksumLanes is how many checksums are carried on side by side: a page is
// taken as rows of that many 32-bit numbers (N_SUMS in
// src/include/storage/checksum_impl.h).
const (
	checksumLanes = 32
	checksumRow   = 4 * checksumLanes
	checksumPrime = 16777619
)

// checksumBasis is where each lane starts (checksumBaseOffsets in
// src/include/storage/checksum_impl.h).
var checksumBasis = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// closingRows are the two rows of zeros that end every checksum.
var closingRows [2 * checksumRow]byte

// PageChecksum computes what belongs in pd_checksum of a page: what
// pg_checksum_page does in src/include/storage/checksum_impl.h. The page's size
// is a multiple of 128 bytes; block is its number in the fork, across segments.
func PageChecksum(page []byte, block uint32) uint16 {
	sums := checksumBasis
	// The first row has the field for the checksum itself, which counts as
	// zero.
	first := [checksumRow]byte(page)
	first[pageChecksum], first[pageChecksum+1] = 0, 0
	mixRows(&sums, first[:])
	mixRows(&sums, page[checksumRow:])
	mixRows(&sums, closingRows[:])
	result := block
	for _, sum := range sums {
		result ^= sum
	}
	return uint16(result%65535 + 1)
}

// mixRowsGeneric is mixRows for every machine. It goes down eight lanes at a
// time, which fit into registers.
func mixRowsGeneric(sums *[checksumLanes]uint32, rows []byte) {
	for lane := 0; lane < checksumLanes; lane += 8 {
		s := (*[8]uint32)(sums[lane:])
		a, b, c, d, e, f, g, h := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
		for at := 4 * lane; at+32 <= len(rows); at += checksumRow {
			v := (*[32]byte)(rows[at:])
			a, b = mix(a, v[0:4]), mix(b, v[4:8])
			c, d = mix(c, v[8:12]), mix(d, v[12:16])
			e, f = mix(e, v[16:20]), mix(f, v[20:24])
			g, h = mix(g, v[24:28]), mix(h, v[28:32])
		}
		*s = [8]uint32{a, b, c, d, e, f, g, h}
	}
}

func mix(sum uint32, value []byte) uint32 {
	sum ^= binary.LittleEndian.Uint32(value)
	return sum*checksumPrime ^ sum>>17
}

// PageIsSound says whether a page of a cluster with data checksums has the
// right one. A page that was never used has none and is all zeros; see
// PageIsVerified in src/backend/storage/page/bufpage.c.
func PageIsSound(page []byte, block uint32) bool {
	if binary.LittleEndian.Uint16(page[pageUpper:]) == 0 {
		return isZero(page)
	}
	return binary.LittleEndian.Uint16(page[pageChecksum:]) == PageChecksum(page, block)
}

// isZero says whether data, whose size is a multiple of 8 bytes, is all zeros.
func isZero(data []byte) bool {
	var bits uint64
	for at := 0; at+8 <= len(data); at += 8 {
		bits |= binary.LittleEndian.Uint64(data[at:])
	}
	return bits == 0
}

// PageLSN is the end of the last WAL record that changed the page; 0 for one
// that was never used.
func PageLSN(page []byte) wal.LSN {
	return wal.LSN(binary.LittleEndian.Uint32(page[pageLSNHigh:]))<<32 | wal.LSN(binary.LittleEndian.Uint32(page[pageLSNLow:]))
}
