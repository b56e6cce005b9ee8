package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// FragmentStart is how many bytes of a fragment are kept: as many as a restore
// point's record has, with all that may stand before its data.
const FragmentStart = recordHeaderSize + 3 + 5 + 2 + 8 + restorePointNameSize

// Fragment is the piece of a record that a segment boundary cut off.
type Fragment struct {
	// Length is how many of the record's bytes are in this segment, 0 if no
	// record is cut.
	Length uint32
	// Remaining is how many of its bytes there are from this fragment's first
	// on, in this segment and the ones behind it.
	Remaining uint32
	// Start holds the fragment's first bytes. The first bytes of a record, put
	// together from its fragments, say all that matters of it: when its
	// transaction ended, or what its restore point is called.
	Start [FragmentStart]byte
	// CRC is the CRC-32C of all of its bytes.
	CRC uint32
}

// start returns those of the fragment's bytes that are kept.
func (f *Fragment) start() []byte { return f.Start[:min(f.Length, FragmentStart)] }

// add appends bytes to the fragment.
func (f *Fragment) add(data []byte) {
	if f.Length < FragmentStart {
		copy(f.Start[f.Length:], data)
	}
	f.Length += uint32(len(data))
	f.CRC = crc32.Update(f.CRC, castagnoli, data)
}

// unfinished tells whether the fragment's record goes on behind its segment.
func (f Fragment) unfinished() bool { return f.Length < f.Remaining }

// prev returns the predecessor that the record's header states, 0 if that
// part of it isn't in the fragment. The fragment must be a record's beginning.
func (f Fragment) prev() LSN {
	if f.Length < 16 {
		return 0
	}
	return LSN(binary.LittleEndian.Uint64(f.Start[8:]))
}

// extend returns f together with the fragment that continues it in the next
// segment.
func (f Fragment) extend(rest Fragment) (Fragment, error) {
	if rest.Remaining != f.Remaining-f.Length {
		return Fragment{}, errors.New("the record that the segment boundary cuts is continued by one of another length")
	}
	whole := f
	copy(whole.Start[len(f.start()):], rest.start())
	whole.Length += rest.Length
	whole.CRC = combineCRC(f.CRC, rest.CRC, int64(rest.Length))
	return whole, nil
}

// continues returns an error unless rest can continue the record that begins
// with f. The CRC of one that goes on in a third segment is left for when that
// has been appended.
func (f Fragment) continues(rest Fragment) error {
	whole, err := f.extend(rest)
	if err != nil || whole.unfinished() {
		return err
	}
	return whole.checkCRC()
}

// checkCRC checks the CRC of a whole record.
func (f Fragment) checkCRC() error {
	if f.Length < recordHeaderSize {
		return errRecordLength
	}
	// A record's CRC covers its data first, and then its header.
	header := f.Start[:recordHeaderSize]
	data := dataCRC(f.CRC, header, int64(f.Length))
	if crc32.Update(data, castagnoli, header[:recordCRCOffset]) != binary.LittleEndian.Uint32(header[recordCRCOffset:]) {
		return errors.New("the record that the segment boundary cuts is continued by another")
	}
	return nil
}

// count adds to s the record at lsn of which f is the whole.
func (f Fragment) count(s *Summary, lsn LSN) error {
	record := Record{LSN: lsn, Info: f.Start[16], Resource: ResourceManager(f.Start[17])}
	main, ok := mainStart(f.start()[recordHeaderSize:])
	s.Records++
	if !ok {
		return nil // no record that matters refers to blocks
	}
	contents := Contents{Main: main}
	xid := binary.LittleEndian.Uint32(f.Start[4:])
	switch action, ok := record.TransactionAction(); {
	case ok && action == ActionPrepare:
		s.Transactions.prepare(xid)
	case ok:
		s.Transactions.ended(action, record.Info, 0, xid, main)
		at, err := endTime(main)
		if err != nil {
			return fmt.Errorf("decode %s at %s: %w", action, lsn, err)
		}
		s.stop(action, at)
	}
	if s.addTablespace(&record, &contents) != nil {
		s.TablespaceCount++ // its path is longer than what is known of it
	}
	switch kind, _ := record.ControlKind(); kind {
	case ControlRestorePoint:
		point, err := record.RestorePoint(&contents)
		if err != nil {
			return err
		}
		s.list(point)
	case ControlParameterChange:
		parameters, err := record.ParameterChange(&contents)
		if err != nil {
			return err
		}
		s.Demands = s.Demands.Max(parameters.Demands())
	}
	return nil
}

// mainStart returns the main data of a record without block references, of
// which the first bytes behind the header are given.
func mainStart(content []byte) ([]byte, bool) {
	cut := cutter{rest: content}
	for !cut.short {
		switch cut.byte() {
		case idOrigin:
			cut.bytes(2)
		case idTopLevelXID:
			cut.bytes(4)
		case idDataShort:
			cut.bytes(1)
			return cut.rest, !cut.short
		case idDataLong:
			cut.bytes(4)
			return cut.rest, !cut.short
		default:
			return nil, false
		}
	}
	return nil, false
}
