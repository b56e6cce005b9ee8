package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

const (
	testSegmentSize = 1 << 20
	testBlockSize   = 8 << 10
	testSystemID    = 7312345678901234567
	infoNoop        = 0x20 // XLOG_NOOP
)

// walBuilder writes WAL as a server does, with the layout spelled out anew so
// that a mistake in the reader isn't shared.
type walBuilder struct {
	magic     uint16
	timeline  TimelineID
	systemID  uint64
	start     LSN // of data's first byte, at a segment's start
	data      []byte
	prev      LSN
	pageFlags uint16 // added to the next page's header
	records   []builtRecord
}

type builtRecord struct {
	lsn, prev LSN
	data      []byte
	times     []Timestamp // that can stop a recovery
	point     string      // of a restore point
	lost      bool        // its rest was overwritten
}

func newWAL(start LSN) *walBuilder {
	return &walBuilder{magic: 0xD110, timeline: 1, systemID: testSystemID, start: start}
}

func (w *walBuilder) position() LSN { return w.start + LSN(len(w.data)) }

// page starts a page if the last one is full.
func (w *walBuilder) page(remaining int) {
	if len(w.data)%testBlockSize != 0 {
		return
	}
	flags := w.pageFlags
	w.pageFlags = 0
	if remaining > 0 {
		flags |= 0x0001
	}
	long := len(w.data)%testSegmentSize == 0
	if long {
		flags |= 0x0002
	}
	address := uint64(w.position())
	w.data = binary.LittleEndian.AppendUint16(w.data, w.magic)
	w.data = binary.LittleEndian.AppendUint16(w.data, flags)
	w.data = binary.LittleEndian.AppendUint32(w.data, uint32(w.timeline))
	w.data = binary.LittleEndian.AppendUint64(w.data, address)
	w.data = binary.LittleEndian.AppendUint32(w.data, uint32(remaining))
	w.data = append(w.data, 0, 0, 0, 0)
	if long {
		w.data = binary.LittleEndian.AppendUint64(w.data, w.systemID)
		w.data = binary.LittleEndian.AppendUint32(w.data, testSegmentSize)
		w.data = binary.LittleEndian.AppendUint32(w.data, testBlockSize)
	}
}

// put writes bytes that may cross pages, of which none has been written yet.
func (w *walBuilder) put(data []byte) {
	for len(data) > 0 {
		w.page(len(data))
		n := min(len(data), testBlockSize-len(w.data)%testBlockSize)
		w.data = append(w.data, data[:n]...)
		data = data[n:]
	}
}

// record writes a record with this main data, and returns where it starts.
func (w *walBuilder) record(resource ResourceManager, info uint8, xid uint32, main []byte) LSN {
	return w.raw(resource, info, xid, mainData(main))
}

// raw writes a record with this content behind its header.
func (w *walBuilder) raw(resource ResourceManager, info uint8, xid uint32, content []byte) LSN {
	w.page(0)
	lsn := w.position()
	w.emit(lsn, resource, info, xid, content, -1)
	return lsn
}

// emit writes a record of which only so many bytes are left (-1 for all).
func (w *walBuilder) emit(lsn LSN, resource ResourceManager, info uint8, xid uint32, content []byte, keep int) {
	record := make([]byte, 24, 24+len(content))
	binary.LittleEndian.PutUint32(record[0:], uint32(24+len(content)))
	binary.LittleEndian.PutUint32(record[4:], xid)
	binary.LittleEndian.PutUint64(record[8:], uint64(w.prev))
	record[16], record[17] = info, uint8(resource)
	record = append(record, content...)
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	crc.Write(record[24:])
	crc.Write(record[:20])
	binary.LittleEndian.PutUint32(record[20:], crc.Sum32())
	w.records = append(w.records, builtRecord{lsn: lsn, prev: w.prev, data: record, lost: keep >= 0})
	if keep >= 0 {
		w.put(record[:keep])
		return
	}
	w.prev = lsn
	w.put(record)
	for len(w.data)%8 != 0 {
		w.data = append(w.data, 0)
	}
}

// mainData puts the header of the main data in front of it.
func mainData(main []byte) []byte {
	if len(main) == 0 {
		return nil
	}
	if len(main) < 256 {
		return append([]byte{255, uint8(len(main))}, main...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte{254}, uint32(len(main))), main...)
}

// parameters writes a change of them, XLOG_PARAMETER_CHANGE.
func (w *walBuilder) parameters(connections, workers, senders, prepared, locks, level uint32) LSN {
	var main []byte
	for _, n := range []uint32{connections, workers, senders, prepared, locks, level} {
		main = binary.LittleEndian.AppendUint32(main, n)
	}
	return w.record(ResourceXLOG, 0x60, 0, append(main, 0, 0, 0, 0))
}

// noop writes a record of exactly this length.
func (w *walBuilder) noop(length int) LSN {
	return w.raw(ResourceXLOG, infoNoop, 0, bytes.Repeat([]byte{0xAA}, length-24))
}

// fillTo writes records that end exactly at lsn.
func (w *walBuilder) fillTo(lsn LSN) {
	for w.position() < lsn {
		w.page(0)
		room := min(int(lsn-w.position()), testBlockSize-len(w.data)%testBlockSize)
		if room > 512 {
			room = min(room-256, 4096)
		}
		w.noop(room)
	}
}

// commit writes a plain commit record.
func (w *walBuilder) commit(xid uint32, at Timestamp) LSN {
	lsn := w.record(ResourceTransaction, 0x00, xid, binary.LittleEndian.AppendUint64(nil, uint64(at)))
	last := &w.records[len(w.records)-1]
	last.times = append(last.times, at)
	return lsn
}

// restorePoint writes a restore point.
func (w *walBuilder) restorePoint(name string, at Timestamp) LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(at))
	field := make([]byte, 64)
	copy(field, name)
	lsn := w.record(ResourceXLOG, 0x70, 0, append(main, field...))
	w.records[len(w.records)-1].point = name
	return lsn
}

// switchSegment ends the segment early.
func (w *walBuilder) switchSegment() LSN {
	lsn := w.raw(ResourceXLOG, 0x40, 0, nil)
	w.data = padded(w.data)
	return lsn
}

// abandon writes a record whose rest, from the next page on, a crash lost:
// WAL goes on there with a note of that.
func (w *walBuilder) abandon(length int) LSN {
	w.page(0)
	lsn := w.position()
	keep := testBlockSize - len(w.data)%testBlockSize
	w.emit(lsn, ResourceXLOG, infoNoop, 0, make([]byte, length-24), keep)
	w.pageFlags = 0x0008
	w.record(ResourceXLOG, 0xD0, 0, binary.LittleEndian.AppendUint64(
		binary.LittleEndian.AppendUint64(nil, uint64(lsn)), 0))
	return lsn
}

// padded fills the last segment with zeros.
func padded(data []byte) []byte {
	if rest := len(data) % testSegmentSize; rest != 0 {
		data = append(data, make([]byte, testSegmentSize-rest)...)
	}
	return data
}

// segments returns the segments written, the last one filled with zeros.
func (w *walBuilder) segments() [][]byte {
	var list [][]byte
	for data := padded(w.data); len(data) > 0; data = data[testSegmentSize:] {
		list = append(list, bytes.Clone(data[:testSegmentSize]))
	}
	return list
}

// segment returns the only segment.
func (w *walBuilder) segment(t testing.TB) []byte {
	t.Helper()
	list := w.segments()
	if len(list) != 1 {
		t.Fatalf("the WAL has %d segments, want 1", len(list))
	}
	return list[0]
}

// name names the segment that starts at an offset of data.
func (w *walBuilder) name(index int) FileName {
	return SegmentName(w.timeline, SegmentNumber(w.start, testSegmentSize)+uint64(index), testSegmentSize)
}
