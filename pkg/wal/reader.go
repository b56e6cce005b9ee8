package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrUnfinished is returned by Reader.Next when the WAL that was read ends
// inside a record: the record goes on in a segment that wasn't given.
var ErrUnfinished = errors.New("the last record goes on behind the WAL that was read")

// InvalidError tells why the bytes at a position aren't WAL that PostgreSQL
// would replay. That is how WAL ends, and also what damage looks like:
// PostgreSQL doesn't tell one from the other. See Summary.Ending for what can
// be told.
type InvalidError struct {
	LSN     LSN    // of the record, or of the page, that isn't valid
	Problem string // what is wrong with it
	// Damaged: the bytes can't be what an earlier use of the file left
	// behind. They are of exactly this place: a record whose link to its
	// predecessor is right and its checksum wrong, or a page that should
	// continue a record.
	Damaged bool
	// foreign: the page is of this place in another history.
	foreign bool
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("no valid WAL at %s: %s", e.LSN, e.Problem)
}

const (
	recordHeaderSize = 24      // SizeOfXLogRecord
	recordCRCOffset  = 20      // of xl_crc in XLogRecord
	maxRecordSize    = 1 << 30 // more than MaxAllocSize, which bounds every version's records
	readAhead        = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Reader reads records, in order, from consecutive segments, as
// src/backend/access/transam/xlogreader.c does: it checks each page's header,
// each record's header, link to its predecessor and CRC, and joins what page
// and segment boundaries cut. It allocates nothing per record.
type Reader struct {
	src   io.Reader
	first PageHeader
	// maxTimeline bounds the pages' timeline.
	maxTimeline TimelineID
	// partial: the segment isn't complete, so that pages of an ancestor may
	// stand behind its end, where the file was used for the same place before.
	partial bool

	chunk []byte // whole pages read from src
	next  int    // offset in chunk of the page behind the current one
	limit int    // bytes of chunk that are filled

	page   []byte     // the current page, empty before the first one
	header PageHeader // of the current page
	off    int        // where the next record starts in page
	addr   LSN        // of the page behind the current one
	jump   LSN        // pages before it are skipped unread: a segment switch

	record Record
	joined []byte // a record that crosses pages, put together
	start  LSN    // of the record in joined
	head   Fragment
	from   LSN   // where the first record may start, behind head
	srcErr error // of src, behind the bytes that are in chunk
	err    error // what Next returned last
}

// errOverwritten is how join says that a record ended unfinished.
var errOverwritten = errors.New("the record's rest was overwritten")

// NewReader returns a Reader of the segments whose bytes src yields, one
// after the other, whole. It reads the first page's header. Where src starts
// with the rest of a record that began before it, that rest is skipped.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{src: src, maxTimeline: 1<<32 - 1}
	var start [LongHeaderSize]byte
	if _, err := io.ReadFull(src, start[:]); err != nil {
		return nil, fmt.Errorf("read WAL segment's header: %w", noEOF(err))
	}
	first, err := parseLongHeader(start[:])
	if err != nil {
		return nil, err
	}
	r.begin(first, start[:])
	return r, nil
}

// begin starts at a segment of which src has already yielded start.
func (r *Reader) begin(first PageHeader, start []byte) {
	blockSize := int(first.BlockSize)
	r.first = first
	r.addr = first.Address
	r.chunk = make([]byte, max(readAhead, blockSize))
	r.limit = copy(r.chunk, start)
}

// Next returns the next record, which is valid until the following call.
//
// At the end it returns io.EOF if the last record ended inside what was read,
// ErrUnfinished if it didn't, and an *InvalidError where WAL isn't valid any
// more; any other error is the source's. An error is returned again by every
// later call.
func (r *Reader) Next() (*Record, error) {
	for r.err == nil {
		err := r.read()
		if err == nil {
			return &r.record, nil
		}
		if !errors.Is(err, errOverwritten) {
			r.err = err
		}
	}
	return nil, r.err
}

// Following returns where the record starts, at least, that follows the one which
// Next returned last: behind its end, and behind a page's header if that is
// there.
func (r *Reader) Following() LSN {
	next := r.record.Next
	switch {
	case next%LSN(r.first.SegmentSize) == 0:
		return next + LongHeaderSize
	case next%LSN(r.first.BlockSize) == 0:
		return next + ShortHeaderSize
	}
	return next
}

// Head describes what was skipped at the start: the rest of a record that
// began before. It is complete once Next has returned.
func (r *Reader) Head() Fragment { return r.head }

// Tail describes the record that ErrUnfinished was returned for, and returns
// where it starts.
func (r *Reader) Tail() (LSN, Fragment) {
	if !errors.Is(r.err, ErrUnfinished) || len(r.joined) == 0 {
		return 0, Fragment{}
	}
	tail := Fragment{Remaining: binary.LittleEndian.Uint32(r.joined)}
	tail.add(r.joined)
	return r.start, tail
}

// read reads the next record into r.record.
func (r *Reader) read() error {
	for r.off == len(r.page) {
		if err := r.nextPage(); err != nil {
			return err
		}
		if r.header.Info&FirstIsContRecord == 0 {
			continue
		}
		if r.addr-LSN(len(r.page)) != r.first.Address {
			return r.invalid(r.addr-LSN(len(r.page)), "the page continues a record that didn't begin")
		}
		if err := r.skipHead(); err != nil {
			return err
		}
	}
	lsn := r.position()
	if r.from == 0 {
		r.from = lsn
	}
	rest := r.page[r.off:]
	length := binary.LittleEndian.Uint32(rest) // records are aligned, so this much is on the page
	if len(rest) >= recordHeaderSize {
		if err := r.checkHeader(lsn, rest); err != nil {
			return err
		}
	} else if length < recordHeaderSize {
		return r.invalidLength(lsn, length)
	}
	if uint64(length) > uint64(len(rest)) {
		return r.join(lsn, length)
	}
	r.off += align(int(length))
	return r.finish(lsn, rest[:length])
}

// join puts a record together that crosses pages.
func (r *Reader) join(lsn LSN, length uint32) error {
	r.start = lsn
	r.joined = append(r.joined[:0], r.page[r.off:]...)
	checked := len(r.joined) >= recordHeaderSize
	for {
		remaining := length - uint32(len(r.joined))
		if remaining == 0 {
			return r.finish(lsn, r.joined)
		}
		if err := r.nextFragment(lsn, remaining); err != nil {
			return err
		}
		r.joined = append(r.joined, r.takeFragment(remaining)...)
		if !checked {
			checked = true
			if err := r.checkHeader(lsn, r.joined); err != nil {
				return err
			}
		}
	}
}

// skipHead passes over the rest of a record that began before the first page.
func (r *Reader) skipHead() error {
	remaining := r.header.RemainingLength
	if remaining == 0 {
		return r.invalid(r.first.Address, "the page continues a record of which nothing is left")
	}
	r.head.Remaining = remaining
	for {
		r.head.add(r.takeFragment(remaining))
		if remaining = r.head.Remaining - r.head.Length; remaining == 0 {
			return nil
		}
		if err := r.nextFragment(r.first.Address, remaining); err != nil {
			return err
		}
	}
}

// nextFragment goes to the page where the record at lsn continues, with so
// many bytes left. It returns errOverwritten if that page instead starts
// anew, over what a crash left unfinished.
func (r *Reader) nextFragment(lsn LSN, remaining uint32) error {
	err := r.nextPage()
	switch {
	case err == io.EOF:
		return ErrUnfinished
	case err != nil:
		return err
	case r.header.Info&FirstIsOverwriteContRecord != 0:
		return errOverwritten
	case r.header.Info&FirstIsContRecord == 0:
		return &InvalidError{LSN: lsn, Problem: "the record isn't continued on the next page", Damaged: true}
	case r.header.RemainingLength != remaining:
		return &InvalidError{LSN: lsn, Problem: "the record is continued by one of another length", Damaged: true}
	}
	return nil
}

// takeFragment returns the page's part of a record that continues on it, and
// goes behind that.
func (r *Reader) takeFragment(remaining uint32) []byte {
	data := r.page[r.off:]
	if uint64(len(data)) > uint64(remaining) {
		data = data[:remaining]
	}
	r.off += align(len(data))
	return data
}

// checkHeader holds a record's header against what must be there, as
// ValidXLogRecordHeader.
func (r *Reader) checkHeader(lsn LSN, header []byte) error {
	length := binary.LittleEndian.Uint32(header[0:])
	if length < recordHeaderSize || length > maxRecordSize {
		return r.invalidLength(lsn, length)
	}
	if !ResourceManager(header[17]).valid(r.first.Magic) {
		return r.invalid(lsn, "the record is of an unknown resource manager")
	}
	prev := LSN(binary.LittleEndian.Uint64(header[8:]))
	if r.record.LSN == 0 {
		if prev >= lsn {
			return r.invalid(lsn, "the record's link to its predecessor points forward")
		}
	} else if prev != r.record.LSN {
		return r.invalid(lsn, "the record's link to its predecessor is wrong")
	}
	return nil
}

// finish checks a whole record's CRC, and makes it the current one. The
// reader stands behind it.
func (r *Reader) finish(lsn LSN, data []byte) error {
	crc := crc32.Update(0, castagnoli, data[recordHeaderSize:])
	crc = crc32.Update(crc, castagnoli, data[:recordCRCOffset])
	stored := binary.LittleEndian.Uint32(data[recordCRCOffset:])
	if crc != stored {
		return &InvalidError{LSN: lsn, Problem: "the record's checksum is wrong", Damaged: r.record.LSN != 0}
	}
	rec := &r.record
	rec.LSN = lsn
	rec.Next = r.position()
	rec.Prev = LSN(binary.LittleEndian.Uint64(data[8:]))
	rec.XID = binary.LittleEndian.Uint32(data[4:])
	rec.Info = data[16]
	rec.Resource = ResourceManager(data[17])
	rec.CRC = stored
	rec.Data = data
	rec.magic = r.first.Magic
	if rec.Resource == ResourceXLOG && rec.Info&^recordFlags == infoXLOGSwitch {
		rec.Next = r.segmentEnd(rec.Next)
		r.jump, r.off = rec.Next, len(r.page)
	}
	return nil
}

// position returns the LSN at which the reader stands.
func (r *Reader) position() LSN {
	return r.addr - LSN(len(r.page)) + LSN(r.off)
}

// segmentEnd returns the end of the segment in which a record ends at lsn.
func (r *Reader) segmentEnd(lsn LSN) LSN {
	size := LSN(r.first.SegmentSize)
	return (lsn + size - 1) &^ (size - 1)
}

// nextPage goes to the next page, past its header. io.EOF means that there
// are no more.
func (r *Reader) nextPage() error {
	for {
		size := int(r.first.BlockSize)
		if r.limit-r.next < size {
			if err := r.fill(); err != nil {
				return err
			}
		}
		page := r.chunk[r.next : r.next+size]
		if r.addr >= r.jump {
			if err := r.checkPage(page); err != nil {
				return err
			}
		}
		r.next += size
		r.addr += LSN(size)
		r.page, r.off = page, r.header.Size()
		if r.addr > r.jump {
			return nil
		}
	}
}

// fill reads at least one more page.
func (r *Reader) fill() error {
	r.limit = copy(r.chunk, r.chunk[r.next:r.limit])
	r.next = 0
	if r.srcErr == nil {
		var n int
		n, r.srcErr = io.ReadFull(r.src, r.chunk[r.limit:])
		r.limit += n
	}
	switch {
	case r.limit >= int(r.first.BlockSize):
		return nil // an error behind these pages is for the next call
	case r.srcErr != io.EOF && r.srcErr != io.ErrUnexpectedEOF:
		return fmt.Errorf("read WAL at %s: %w", r.addr, r.srcErr)
	case r.limit > 0:
		return fmt.Errorf("read WAL at %s: the page is cut: %w", r.addr, io.ErrUnexpectedEOF)
	}
	return io.EOF
}

// checkPage holds the header of the page at r.addr against what must be
// there, as XLogReaderValidatePageHeader, and makes it the current one.
func (r *Reader) checkPage(page []byte) error {
	h, err := ParsePageHeader(page)
	segmentStart := r.addr&LSN(r.first.SegmentSize-1) == 0
	switch {
	case err != nil:
		return r.invalid(r.addr, err.Error())
	case h.Magic != r.first.Magic:
		return r.invalid(r.addr, "the page is of another version of PostgreSQL")
	case h.Address != r.addr:
		return r.invalid(r.addr, "the page is an old one")
	case h.Long != segmentStart:
		return r.invalid(r.addr, "the page's header is of the wrong form")
	case h.Long && (h.SystemID != r.first.SystemID || h.SegmentSize != r.first.SegmentSize || h.BlockSize != r.first.BlockSize):
		return &InvalidError{LSN: r.addr, Problem: "the page is of another cluster", foreign: true}
	case h.Timeline < r.header.Timeline && r.partial:
		return r.invalid(r.addr, "the page is an old one, of an earlier timeline")
	case h.Timeline < r.header.Timeline:
		return &InvalidError{LSN: r.addr, foreign: true, Problem: fmt.Sprintf(
			"the page goes back to timeline %d from timeline %d", h.Timeline, r.header.Timeline)}
	case h.Timeline > r.maxTimeline:
		return &InvalidError{LSN: r.addr, foreign: true, Problem: fmt.Sprintf(
			"the page is of timeline %d, the segment of timeline %d", h.Timeline, r.maxTimeline)}
	}
	r.header = h
	return nil
}

// writtenBehind reads on behind the end of valid WAL, to the end of src, and
// tells whether there is a page that was written for its place.
func (r *Reader) writtenBehind() bool {
	size := int(r.first.BlockSize)
	for {
		if r.limit-r.next < size && r.fill() != nil {
			return false // whoever owns src sees its error
		}
		h, err := ParsePageHeader(r.chunk[r.next : r.next+size])
		old := r.partial && h.Timeline < r.header.Timeline
		if err == nil && h.Magic == r.first.Magic && h.Address == r.addr && !old {
			return true
		}
		r.next += size
		r.addr += LSN(size)
	}
}

func (r *Reader) invalid(lsn LSN, problem string) error {
	return &InvalidError{LSN: lsn, Problem: problem}
}

func (r *Reader) invalidLength(lsn LSN, length uint32) error {
	if length == 0 {
		return r.invalid(lsn, "nothing is written there")
	}
	return r.invalid(lsn, fmt.Sprintf("a record can't have %d bytes", length))
}

// align rounds a length up to where the next record may start (MAXALIGN).
func align(n int) int { return (n + 7) &^ 7 }

// noEOF makes the end of a file an error where it isn't expected.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
