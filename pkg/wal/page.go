package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The flags of a page header, XLP_… in src/include/access/xlog_internal.h.
const (
	// FirstIsContRecord: the page starts with the rest of a record that began
	// before it.
	FirstIsContRecord uint16 = 0x0001
	// LongHeader: the page is the first of its segment and has the long form
	// of the header.
	LongHeader uint16 = 0x0002
	// BackupRemovable: full page images that start in this page may be left
	// out.
	BackupRemovable uint16 = 0x0004
	// FirstIsOverwriteContRecord: a record that began before this page was
	// given up after a crash, and this page overwrites its rest.
	FirstIsOverwriteContRecord uint16 = 0x0008

	allPageFlags = FirstIsContRecord | LongHeader | BackupRemovable | FirstIsOverwriteContRecord
)

// The bytes that page headers take, alignment included, as SizeOfXLogShortPHD
// and SizeOfXLogLongPHD in src/include/access/xlog_internal.h.
const (
	ShortHeaderSize = 24
	LongHeaderSize  = 40
)

// The bounds of the size of a WAL page, in bytes.
const (
	minBlockSize = 1 << 10
	maxBlockSize = 1 << 16
)

// PageHeader is the header of a WAL page, as XLogPageHeaderData and
// XLogLongPageHeaderData in src/include/access/xlog_internal.h.
type PageHeader struct {
	Magic           uint16
	Info            uint16
	Timeline        TimelineID
	Address         LSN    // of the page's first byte
	RemainingLength uint32 // bytes still to come of a record that began before the page
	Long            bool   // the fields below are there

	SystemID    uint64 // of the cluster, from pg_control
	SegmentSize uint32 // bytes
	BlockSize   uint32 // bytes of a WAL page
}

// MajorVersion returns the major version of PostgreSQL that writes pages with
// this magic (XLOG_PAGE_MAGIC), of those that walship reads.
func MajorVersion(magic uint16) (major int, ok bool) {
	switch magic {
	case 0xD106:
		return 13, true
	case 0xD10D:
		return 14, true
	case 0xD110:
		return 15, true
	case 0xD113:
		return 16, true
	case 0xD116:
		return 17, true
	case 0xD118:
		return 18, true
	}
	return 0, false
}

// ParsePageHeader reads the header at the start of a page. It refuses what no
// supported version of PostgreSQL writes. Whether the page is the one that
// was looked for, or an old one in a recycled file, is for the caller to
// compare.
func ParsePageHeader(page []byte) (PageHeader, error) {
	if len(page) < ShortHeaderSize {
		return PageHeader{}, fmt.Errorf("parse page header: %d bytes are too few", len(page))
	}
	h := PageHeader{
		Magic:           binary.LittleEndian.Uint16(page[0:]),
		Info:            binary.LittleEndian.Uint16(page[2:]),
		Timeline:        TimelineID(binary.LittleEndian.Uint32(page[4:])),
		Address:         LSN(binary.LittleEndian.Uint64(page[8:])),
		RemainingLength: binary.LittleEndian.Uint32(page[16:]),
	}
	h.Long = h.Info&LongHeader != 0
	if _, ok := MajorVersion(h.Magic); !ok {
		return PageHeader{}, fmt.Errorf("parse page header: %s", unknownMagic(h.Magic))
	}
	if h.Info&^allPageFlags != 0 {
		return PageHeader{}, fmt.Errorf("parse page header: unknown flags %#04x", h.Info)
	}
	if h.Timeline == 0 {
		return PageHeader{}, errors.New("parse page header: there is no timeline 0")
	}
	if !h.Long {
		return h, nil
	}
	if len(page) < LongHeaderSize {
		return PageHeader{}, fmt.Errorf("parse page header: %d bytes are too few for a long one", len(page))
	}
	h.SystemID = binary.LittleEndian.Uint64(page[24:])
	h.SegmentSize = binary.LittleEndian.Uint32(page[32:])
	h.BlockSize = binary.LittleEndian.Uint32(page[36:])
	if !ValidSegmentSize(uint64(h.SegmentSize)) {
		return PageHeader{}, fmt.Errorf("parse page header: impossible segment size %d", h.SegmentSize)
	}
	if h.BlockSize < minBlockSize || h.BlockSize > maxBlockSize || h.BlockSize&(h.BlockSize-1) != 0 {
		return PageHeader{}, fmt.Errorf("parse page header: impossible page size %d", h.BlockSize)
	}
	return h, nil
}

// unknownMagic explains a first half-word that no supported version writes.
func unknownMagic(magic uint16) string {
	swapped := magic<<8 | magic>>8
	if _, ok := MajorVersion(swapped); ok {
		return "WAL of a big-endian machine isn't supported"
	}
	if magic>>8 == 0xD0 || magic>>8 == 0xD1 {
		return fmt.Sprintf("magic %#04x isn't that of PostgreSQL 13 to 18", magic)
	}
	return fmt.Sprintf("magic %#04x is not that of a WAL page", magic)
}

// AppendHeader appends the header as it stands at the start of a page.
func (h PageHeader) AppendHeader(page []byte) []byte {
	page = binary.LittleEndian.AppendUint16(page, h.Magic)
	page = binary.LittleEndian.AppendUint16(page, h.Info)
	page = binary.LittleEndian.AppendUint32(page, uint32(h.Timeline))
	page = binary.LittleEndian.AppendUint64(page, uint64(h.Address))
	page = binary.LittleEndian.AppendUint32(page, h.RemainingLength)
	page = append(page, 0, 0, 0, 0)
	if h.Long {
		page = binary.LittleEndian.AppendUint64(page, h.SystemID)
		page = binary.LittleEndian.AppendUint32(page, h.SegmentSize)
		page = binary.LittleEndian.AppendUint32(page, h.BlockSize)
	}
	return page
}

// Size returns the bytes that the header takes on its page.
func (h PageHeader) Size() int {
	if h.Long {
		return LongHeaderSize
	}
	return ShortHeaderSize
}

// ReadLongHeader reads the header at the start of a segment. A file that is
// too short, or doesn't start with a long page header, is an error.
func ReadLongHeader(r io.ReaderAt) (PageHeader, error) {
	var page [LongHeaderSize]byte
	if n, err := r.ReadAt(page[:], 0); n < len(page) {
		if err == io.EOF {
			return PageHeader{}, fmt.Errorf("read WAL segment's header: the file has only %d bytes", n)
		}
		return PageHeader{}, fmt.Errorf("read WAL segment's header: %w", err)
	}
	return parseLongHeader(page[:])
}

// parseLongHeader reads a header that must be a segment's first.
func parseLongHeader(page []byte) (PageHeader, error) {
	h, err := ParsePageHeader(page)
	if err != nil {
		return PageHeader{}, fmt.Errorf("read WAL segment's header: %w", err)
	}
	if !h.Long {
		return PageHeader{}, errors.New("read WAL segment's header: it isn't that of a segment's first page")
	}
	if uint64(h.Address)%uint64(h.SegmentSize) != 0 {
		return PageHeader{}, fmt.Errorf("read WAL segment's header: address %s isn't the start of a segment", h.Address)
	}
	return h, nil
}
