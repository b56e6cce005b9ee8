// Package waltest writes WAL for tests, as PostgreSQL 15 does.
package waltest

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// BlockSize is the size of a page of WAL, in bytes.
const BlockSize = 8 << 10

// Writer is a server's WAL, of whatever length, from the start of a segment on.
// SystemID, SegmentSize and Start are set before the first record.
type Writer struct {
	SystemID    uint64
	SegmentSize uint64         // bytes
	Timeline    wal.TimelineID // of the pages that are begun from now on
	Start       wal.LSN        // of the first byte of Data
	Data        []byte
	Prev        wal.LSN // where the last record starts
}

// Position is where the WAL ends.
func (w *Writer) Position() wal.LSN { return w.Start + wal.LSN(len(w.Data)) }

// Page begins a page if the last one is full, as the next record would.
func (w *Writer) Page() { w.page(0) }

// page is Page for a page that goes on with so many bytes of a record
// (src/include/access/xlog_internal.h).
func (w *Writer) page(remaining int) {
	if len(w.Data)%BlockSize != 0 {
		return
	}
	h := wal.PageHeader{Magic: 0xD110, Timeline: w.Timeline, Address: w.Position(), RemainingLength: uint32(remaining)}
	if remaining > 0 {
		h.Info |= wal.FirstIsContRecord
	}
	if uint64(len(w.Data))%w.SegmentSize == 0 {
		h.Info |= wal.LongHeader
		h.Long, h.SystemID, h.SegmentSize, h.BlockSize = true, w.SystemID, uint32(w.SegmentSize), BlockSize
	}
	w.Data = h.AppendHeader(w.Data)
}

// Record writes a record with this main data, and returns where it starts
// (src/include/access/xlogrecord.h).
func (w *Writer) Record(resource wal.ResourceManager, info uint8, xid uint32, main []byte) wal.LSN {
	w.Page()
	lsn := w.Position()
	record := make([]byte, 24)
	switch {
	case len(main) > 255:
		record = append(binary.LittleEndian.AppendUint32(append(record, 254), uint32(len(main))), main...)
	case len(main) > 0:
		record = append(append(record, 255, uint8(len(main))), main...)
	}
	binary.LittleEndian.PutUint32(record[0:], uint32(len(record)))
	binary.LittleEndian.PutUint32(record[4:], xid)
	binary.LittleEndian.PutUint64(record[8:], uint64(w.Prev))
	record[16], record[17] = info, uint8(resource)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(record[20:], crc32.Update(crc32.Checksum(record[24:], table), table, record[:20]))
	w.Prev = lsn
	for len(record) > 0 {
		w.page(len(record))
		n := min(len(record), BlockSize-len(w.Data)%BlockSize)
		w.Data, record = append(w.Data, record[:n]...), record[n:]
	}
	for len(w.Data)%8 != 0 {
		w.Data = append(w.Data, 0)
	}
	return lsn
}

// RestorePoint writes XLOG_RESTORE_POINT.
func (w *Writer) RestorePoint(name string, at time.Time) wal.LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at)))
	return w.Record(wal.ResourceXLOG, 0x70, 0, append(main, append([]byte(name), make([]byte, 64-len(name))...)...))
}

// SwitchSegment ends the segment early, with XLOG_SWITCH.
func (w *Writer) SwitchSegment() {
	w.Record(wal.ResourceXLOG, 0x40, 0, nil)
	w.Data = append(w.Data, make([]byte, -len(w.Data)&int(w.SegmentSize-1))...)
}
