package wal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Ending says how the valid WAL of a segment ends.
type Ending uint8

// The endings. A complete segment has one of the first three; otherwise it is
// damaged, unless its timeline ends in it (a fork, a partial segment).
const (
	// EndingFull: the last record ends where the segment does.
	EndingFull Ending = iota + 1
	// EndingSwitch: a segment switch ends it, and the rest is unused.
	EndingSwitch
	// EndingCrossing: the last record goes on in the next segment.
	EndingCrossing
	// EndingOpen: behind the last record nothing is written, or what an
	// earlier use of the file left, or a record that a crash cut short.
	EndingOpen
	// EndingDamaged: behind the last valid record stands what was written for
	// that place, but isn't right; or further behind, pages that were written
	// for theirs.
	EndingDamaged
)

var endingNames = []string{"", "full", "switch", "crossing", "open", "damaged"}

// String names an ending as context headers do.
func (e Ending) String() string {
	if int(e) < len(endingNames) {
		return endingNames[e]
	}
	return ""
}

// Complete tells whether this is how a segment ends that PostgreSQL filled.
func (e Ending) Complete() bool { return e >= EndingFull && e <= EndingCrossing }

// ChainDigest is the SHA-256 of the lengths and the CRCs, as their headers have
// them, of all records that start in a segment and end in it, in order. A CRC
// covers all else that a record says, its header and so its predecessor
// included.
type ChainDigest [sha256.Size]byte

// MaxRestorePoints bounds the restore points that a summary lists.
const MaxRestorePoints = 64

// Summary is what the WAL of one segment says, in short. A record belongs to
// the segment where it starts; a record that ends in a later segment is not
// counted, but described by Tail.
type Summary struct {
	Records uint64 // that start and end in the segment
	First   LSN    // of the first record that starts here, 0 if none does
	Prev    LSN    // of the record before First
	Last    LSN    // of the last record that starts here, 0 if none does
	End     LSN    // of the valid WAL: the segment's end unless Ending is open or damaged
	Ending  Ending
	Problem string // what is wrong at End, where Ending is open or damaged; not kept in a context header
	Chain   ChainDigest
	// Overwritten is where the record started whose rest the segment's first
	// page overwrites, because a crash had left it unfinished; usually 0.
	Overwritten LSN

	// Head is the rest of a record that began before the segment, Tail the
	// beginning of one that ends behind it.
	Head, Tail Fragment

	Commits uint64 // committed transactions, prepared ones included
	// MinTime and MaxTime span the times of the Stops records that can stop a
	// recovery by time: commits and aborts, of both forms, and aborts of
	// subtransactions. They aren't ordered within a segment or across
	// segments. An unfinished Tail may be one more.
	Stops            uint64
	MinTime, MaxTime Timestamp

	Transactions Transactions // that end or are prepared

	Demands Demands // of the changes of parameters

	// RestorePoints lists the first of the segment's restore points, as many
	// as there is room for; RestorePointCount counts all.
	RestorePoints     []RestorePoint
	RestorePointCount uint64

	// Tablespaces lists the first of the tablespaces that are created, as
	// many as there is room for; TablespaceCount counts all.
	Tablespaces     []CreatedTablespace
	TablespaceCount uint64
}

// stop counts a record that can stop a recovery by time.
func (s *Summary) stop(action TransactionAction, at Timestamp) {
	if action == ActionCommit || action == ActionCommitPrepared {
		s.Commits++
	}
	s.span(at, at)
	s.Stops++
}

// span widens the span of times; Stops must not count them yet.
func (s *Summary) span(least, most Timestamp) {
	if s.Stops == 0 {
		s.MinTime, s.MaxTime = least, most
	}
	s.MinTime, s.MaxTime = min(s.MinTime, least), max(s.MaxTime, most)
}

// list counts a restore point, and lists it if there is room.
func (s *Summary) list(point RestorePoint) {
	enlist(&s.RestorePoints, &s.RestorePointCount, point, MaxRestorePoints, maxRestorePointBytes)
}

// enlist counts an item, and lists it if all before it are listed, with fewer than
// most of them, and there is room for the bytes of their encodings.
func enlist[T interface{ encode() string }](list *[]T, count *uint64, item T, most, room int) {
	complete := uint64(len(*list)) == *count
	*count++
	size := len(item.encode())
	for _, listed := range *list {
		size += len(listed.encode())
	}
	if complete && len(*list) < most && size <= room {
		*list = append(*list, item)
	}
}

// SameWAL tells whether two copies of one segment hold the same WAL: the same
// records, to the same end. They may differ behind that.
func (s Summary) SameWAL(other Summary) bool {
	return s.End == other.End && s.First == other.First && s.Prev == other.Prev && s.Records == other.Records &&
		s.Ending == other.Ending && s.Chain == other.Chain && s.Head == other.Head && s.Tail == other.Tail
}

// Empty tells whether a copy of a segment holds no valid WAL: no record, nor the
// end of one.
func (s Summary) Empty() bool {
	return s.Records == 0 && s.Tail.Length == 0 && (s.Head.Length == 0 || s.Head.unfinished())
}

// Begins tells whether another copy of the segment, which r reads from its
// start, has all the WAL of the copy that s describes, and may have more behind
// it. An error is r's.
func (s Summary) Begins(r io.Reader) (bool, error) {
	reader, err := NewReader(r)
	other := newSummarizer()
	for err == nil && other.Records < s.Records {
		var record *Record
		if record, err = reader.Next(); err == nil {
			other.link(record)
		}
	}
	if err == nil && s.Records == 0 {
		return s.headBegins(reader)
	}
	if err != nil {
		return false, sourceError(err)
	}
	other.hash.Write(other.links)
	other.hash.Sum(other.Chain[:0])
	return s.Tail.Length == 0 && s.First == other.First && s.Prev == other.Prev && s.End == other.End &&
		s.Chain == other.Chain && s.Head == reader.Head(), nil
}

// headBegins is Begins for a copy that has only the end of a record, which began
// in the segment before.
func (s Summary) headBegins(reader *Reader) (bool, error) {
	if _, err := reader.Next(); err != nil && sourceError(err) != nil {
		return false, sourceError(err)
	}
	return !s.Empty() && s.Tail.Length == 0 && s.Head == reader.Head(), nil
}

// sourceError returns what a Reader's source failed with; nil where WAL ends.
func sourceError(err error) error {
	if _, invalid := errors.AsType[*InvalidError](err); invalid || err == io.EOF || errors.Is(err, ErrUnfinished) {
		return nil
	}
	return fmt.Errorf("read the other copy: %w", err)
}

// Follows returns an error unless the segment that s describes can continue
// the WAL of the one before it: positions, the link of its first record, and
// the length and checksum of a record that the boundary cuts agree.
func (s Summary) Follows(before Summary) error {
	crosses := before.Ending == EndingCrossing
	switch {
	case !before.Ending.Complete():
		return fmt.Errorf("the WAL before the segment ends at %s", before.End)
	case s.End <= before.End || s.First != 0 && s.First < before.End:
		return fmt.Errorf("the segment isn't behind %s", before.End)
	case s.Overwritten != 0:
		return s.overwrites(before)
	case s.Head.Length == 0 && crosses:
		return errors.New("the record that the segment boundary cuts isn't continued")
	case s.Head.Length > 0 && !crosses:
		return errors.New("the segment continues a record that the one before it doesn't begin")
	case s.Prev != 0 && before.Last != 0 && s.Prev != before.Last:
		return fmt.Errorf("the first record's predecessor is at %s, not at %s", s.Prev, before.Last)
	case crosses && before.Tail.Length > 0:
		return before.Tail.continues(s.Head)
	case crosses:
		_, err := before.Head.extend(s.Head)
		return err
	}
	return nil
}

// overwrites checks a segment that starts anew over the rest of a record that
// a crash left unfinished.
func (s Summary) overwrites(before Summary) error {
	if s.Overwritten != before.Last || before.Ending != EndingCrossing {
		return fmt.Errorf("the segment overwrites the rest of a record at %s, which the one before it doesn't end with", s.Overwritten)
	}
	if tail := before.Tail; tail.prev() != 0 && s.Prev != tail.prev() {
		return fmt.Errorf("the first record's predecessor is at %s, not at %s", s.Prev, tail.prev())
	}
	return nil
}

// summarizer builds a summary from the records of one segment.
type summarizer struct {
	Summary
	hash     hash.Hash
	links    []byte // gathered for hash
	contents Contents
	// overwriting: the record is on the segment's first page, and that starts anew.
	overwriting bool
}

const (
	linkSize    = 4 + 4 // bytes of a record's length and CRC
	linksAtOnce = 512   // records that are hashed at a time
)

func newSummarizer() *summarizer {
	return &summarizer{
		hash:  sha256.New(),
		links: make([]byte, 0, linksAtOnce*linkSize),
	}
}

// add takes in one record.
func (s *summarizer) add(r *Record) error {
	if err := s.decode(r); err != nil {
		return err
	}
	s.link(r)
	return nil
}

// link makes a record part of the chain.
func (s *summarizer) link(r *Record) {
	if s.Records == 0 {
		s.First, s.Prev = r.LSN, r.Prev
	}
	s.Records++
	s.Last = r.LSN
	s.End = r.Next
	s.links = append(append(s.links, r.Data[:4]...), r.Data[recordCRCOffset:recordHeaderSize]...)
	if len(s.links) == cap(s.links) {
		s.hash.Write(s.links)
		s.links = s.links[:0]
	}
}

// decode takes in what a record says, of those records that matter.
func (s *summarizer) decode(r *Record) error {
	switch r.Resource {
	case ResourceTransaction:
		return s.addTransaction(r)
	case ResourceXLOG:
		return s.addControl(r)
	case ResourceTablespace:
		if err := r.Decode(&s.contents); err != nil {
			return err
		}
		return s.addTablespace(r, &s.contents)
	}
	return nil
}

func (s *summarizer) addTransaction(r *Record) error {
	action, ok := r.TransactionAction()
	switch {
	case !ok:
		return nil
	case action == ActionPrepare:
		s.Transactions.prepare(r.XID)
		return nil
	}
	if err := r.Decode(&s.contents); err != nil {
		return err
	}
	s.Transactions.ended(action, r.Info, r.magic, r.XID, s.contents.Main)
	at, err := endTime(s.contents.Main)
	if err != nil {
		return fmt.Errorf("decode %s at %s: %w", action, r.LSN, err)
	}
	s.stop(action, at)
	return nil
}

func (s *summarizer) addControl(r *Record) error {
	kind, _ := r.ControlKind()
	switch kind {
	case ControlSwitch:
		s.Ending = EndingSwitch
		return nil
	case ControlRestorePoint:
		return s.addRestorePoint(r)
	case ControlParameterChange:
		return s.addParameters(r)
	case ControlOverwriteContRecord:
		if s.Records == 0 && s.overwriting {
			return s.addOverwritten(r)
		}
	}
	return nil
}

func (s *summarizer) addOverwritten(r *Record) error {
	err := r.Decode(&s.contents)
	if err == nil {
		s.Overwritten, err = r.OverwrittenContRecord(&s.contents)
	}
	return err
}

func (s *summarizer) addParameters(r *Record) error {
	if err := r.Decode(&s.contents); err != nil {
		return err
	}
	parameters, err := r.ParameterChange(&s.contents)
	if err != nil {
		return err
	}
	s.Demands = s.Demands.Max(parameters.Demands())
	return nil
}

func (s *summarizer) addRestorePoint(r *Record) error {
	if err := r.Decode(&s.contents); err != nil {
		return err
	}
	point, err := r.RestorePoint(&s.contents)
	if err != nil {
		return err
	}
	s.list(point)
	return nil
}

// summarize reads one segment's records, as far as they are valid. An error
// that isn't about the end of valid WAL is returned.
func summarize(r *Reader) (Summary, error) {
	s := newSummarizer()
	s.Transactions.Known = true
	for {
		record, err := r.Next()
		if err == nil {
			s.overwriting = r.header.Info&FirstIsOverwriteContRecord != 0 && r.addr == r.first.Address+LSN(r.first.BlockSize)
			if err = s.add(record); err == nil {
				continue
			}
			err = &InvalidError{LSN: record.LSN, Problem: err.Error(), Damaged: true}
		}
		s.hash.Write(s.links)
		s.hash.Sum(s.Chain[:0])
		s.Head = r.Head()
		return s.Summary, s.end(r, err)
	}
}

// end notes how the WAL ends that r has read.
func (s *summarizer) end(r *Reader, err error) error {
	start := r.first.Address
	segmentEnd := start + LSN(r.first.SegmentSize)
	var invalid *InvalidError
	switch {
	case err == io.EOF:
		s.End = segmentEnd
		if s.Ending != EndingSwitch {
			s.Ending = EndingFull
		}
	case errors.Is(err, ErrUnfinished):
		s.End, s.Ending = segmentEnd, EndingCrossing
		var lsn LSN
		if lsn, s.Tail = r.Tail(); lsn != 0 {
			s.addTail(lsn)
		}
	case errors.As(err, &invalid) && !invalid.foreign:
		s.Ending, s.Problem = EndingOpen, err.Error()
		if invalid.Damaged || r.writtenBehind() {
			s.Ending = EndingDamaged
		}
		if s.Records == 0 {
			s.End = max(start, r.from)
		}
	default:
		return err
	}
	return nil
}

// addTail notes where the record starts that crosses the segment's end.
func (s *summarizer) addTail(lsn LSN) {
	s.Last = lsn
	if s.First != 0 {
		return
	}
	s.First = lsn
	s.Prev = s.Tail.prev()
}
