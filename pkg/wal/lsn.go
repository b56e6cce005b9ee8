package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL, in bytes from its beginning, as XLogRecPtr in
// src/include/access/xlogdefs.h. Zero is no position at all.
type LSN uint64

// String writes an LSN as PostgreSQL prints it: "0/3000028".
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads an LSN as PostgreSQL's pg_lsn type does: two hexadecimal
// numbers of at most 8 digits, of either case, with a slash between.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	h, errHigh := parseHex32(high)
	l, errLow := parseHex32(low)
	if !found || errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("parse LSN %s: it isn't of the form 0/3000028", quote(s))
	}
	return LSN(h)<<32 | LSN(l), nil
}

// parseHex32 reads 1 to 8 hexadecimal digits.
func parseHex32(s string) (uint32, error) {
	if len(s) > 8 {
		return 0, strconv.ErrRange
	}
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err
}

// TimelineID numbers a timeline, as TimeLineID in
// src/include/access/xlogdefs.h. Zero is no timeline.
type TimelineID uint32

// String writes a timeline as it stands in file names: 8 hexadecimal digits.
func (t TimelineID) String() string {
	return fmt.Sprintf("%08X", uint32(t))
}

// The bounds of a WAL segment's size, in bytes, as WalSegMinSize and
// WalSegMaxSize in src/include/access/xlog_internal.h.
const (
	MinSegmentSize = 1 << 20
	MaxSegmentSize = 1 << 30
)

// ValidSegmentSize tells whether PostgreSQL allows segments of this many
// bytes: a power of two from 1 MiB to 1 GiB.
func ValidSegmentSize(size uint64) bool {
	return size >= MinSegmentSize && size <= MaxSegmentSize && size&(size-1) == 0
}

// SegmentNumber returns the number of the segment that holds the byte at lsn,
// counted from the WAL's beginning. To find the segment of the last byte
// before an end position, give it that position minus one.
func SegmentNumber(lsn LSN, segmentSize uint64) uint64 {
	return uint64(lsn) / segmentSize
}

// quote shows a piece of input in an error, cut to a length fit for one.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
