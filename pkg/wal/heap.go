package wal

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// The resource managers whose records say how rows of a catalogue change.
const (
	ResourceRelationMap ResourceManager = 7
	ResourceHeap        ResourceManager = 10
)

// HeapKind says what a record of the resource manager Heap does to a row.
type HeapKind uint8

// The kinds of heap records that change what a row says.
const (
	HeapInsert HeapKind = iota + 1
	HeapDelete
	HeapUpdate  // a heap-only one too
	HeapInplace // a row is changed where it is, outside of any transaction
	HeapTruncate
)

// HeapKind tells what a record does to rows, or false for a record that leaves
// them as they are. It looks at the record's header alone.
func (r *Record) HeapKind() (HeapKind, bool) {
	if r.Resource != ResourceHeap {
		return 0, false
	}
	switch r.Info & 0x70 { // XLOG_HEAP_OPMASK in src/include/access/heapam_xlog.h
	case 0x00: // XLOG_HEAP_INSERT
		return HeapInsert, true
	case 0x10: // XLOG_HEAP_DELETE
		return HeapDelete, true
	case 0x20, 0x40: // XLOG_HEAP_UPDATE, XLOG_HEAP_HOT_UPDATE
		return HeapUpdate, true
	case 0x30: // XLOG_HEAP_TRUNCATE
		return HeapTruncate, true
	case 0x70: // XLOG_HEAP_INPLACE
		return HeapInplace, true
	}
	return 0, false
}

// RowPlace is where a row version stands in its relation's main fork.
type RowPlace struct {
	Block  uint32
	Offset uint16 // of its line pointer, from 1
}

// Row is one version of a row: its null bitmap isn't kept, only the columns'
// data from the first one on.
type Row []byte

// HeapChange is what a heap record does to one row.
type HeapChange struct {
	Kind     HeapKind
	Relation RelFile
	Old      RowPlace // HeapDelete, HeapUpdate, HeapInplace
	New      RowPlace // HeapInsert, HeapUpdate

	data   []byte // of the new version, as far as the record says it
	hasRow bool
	prefix int // bytes that the new version takes over from the old one
	suffix int
}

// The flags of xl_heap_update, in src/include/access/heapam_xlog.h.
const (
	updatePrefixFromOld = 1 << 5
	updateSuffixFromOld = 1 << 6
)

// heapTupleHeaderSize is SizeofHeapTupleHeader in
// src/include/access/htup_details.h.
const heapTupleHeaderSize = 23

// HeapChange decodes a record for which HeapKind reports true, apart from
// HeapTruncate; c is the record's contents. The result's rows are valid as
// long as those.
func (r *Record) HeapChange(c *Contents) (HeapChange, error) {
	change, err := r.heapChange(c)
	if err != nil {
		return HeapChange{}, fmt.Errorf("decode heap record at %s: %w", r.LSN, err)
	}
	return change, nil
}

func (r *Record) heapChange(c *Contents) (HeapChange, error) {
	kind, ok := r.HeapKind()
	if !ok || kind == HeapTruncate || len(c.Blocks) == 0 || c.Blocks[0].ID != 0 {
		return HeapChange{}, errNotThatRecord
	}
	change := HeapChange{Kind: kind, Relation: c.Blocks[0].Relation}
	place := RowPlace{Block: c.Blocks[0].Number}
	cut := cutter{rest: c.Main}
	data := cutter{rest: c.Blocks[0].Data}
	change.hasRow = len(data.rest) > 0
	switch kind {
	case HeapInsert: // xl_heap_insert
		place.Offset = cut.uint16()
		change.New = place
		change.row(&data)
	case HeapDelete: // xl_heap_delete
		cut.uint32()
		place.Offset = cut.uint16()
		change.Old = place
	case HeapInplace: // xl_heap_inplace
		place.Offset = cut.uint16()
		change.Old = place
		change.data = data.rest
	case HeapUpdate: // xl_heap_update
		cut.uint32()
		change.Old = RowPlace{place.Block, cut.uint16()}
		cut.byte()
		flags := cut.byte()
		cut.uint32()
		place.Offset = cut.uint16()
		change.New = place
		if len(c.Blocks) > 1 && c.Blocks[1].ID == 1 {
			change.Old.Block = c.Blocks[1].Number
		}
		if change.hasRow && flags&updatePrefixFromOld != 0 {
			change.prefix = int(data.uint16())
		}
		if change.hasRow && flags&updateSuffixFromOld != 0 {
			change.suffix = int(data.uint16())
		}
		change.row(&data)
	}
	if cut.short || data.short {
		return HeapChange{}, errRecordLength
	}
	return change, nil
}

// row cuts off an xl_heap_header and the columns behind it.
func (h *HeapChange) row(data *cutter) {
	if !h.hasRow {
		return
	}
	data.bytes(4) // t_infomask2, t_infomask
	data.bytes(int(data.byte()) - heapTupleHeaderSize)
	h.data = data.rest
}

// NewRow returns the row version that the change makes; old is the one that
// it changes. It reports false where the record doesn't say it: the page's
// image does, or old is needed and isn't known.
func (h *HeapChange) NewRow(old Row) (Row, bool) {
	if !h.hasRow || h.prefix+h.suffix > len(old) {
		return nil, false
	}
	row := make(Row, 0, h.prefix+len(h.data)+h.suffix)
	row = append(row, old[:h.prefix]...)
	row = append(row, h.data...)
	return append(row, old[len(old)-h.suffix:]...), true
}

// TruncatedRelations decodes a record of HeapTruncate, which a server with
// wal_level = logical writes: the database and the OIDs of the tables, as
// xl_heap_truncate in src/include/access/heapam_xlog.h.
func (r *Record) TruncatedRelations(c *Contents) (database uint32, oids []uint32, err error) {
	if kind, _ := r.HeapKind(); kind != HeapTruncate {
		return 0, nil, fmt.Errorf("decode record at %s: %w", r.LSN, errNotThatRecord)
	}
	cut := cutter{rest: c.Main}
	database = cut.uint32()
	count := cut.uint32()
	cut.bytes(4) // flags, padding
	oids = cut.numbers(count)
	return database, oids, r.decoded(cut)
}

// RowVersion is a row on a page, with what its header says.
type RowVersion struct {
	Offset  uint16 // of its line pointer, from 1
	Row     Row
	Deleted bool // a transaction deleted or replaced it, or tried to
}

// Bits of t_infomask, in src/include/access/htup_details.h.
const (
	rowLockedOnly   = 0x0080 // HEAP_XMAX_LOCK_ONLY
	rowNeverDeleted = 0x0800 // HEAP_XMAX_INVALID
)

// Rows yields the row versions on a heap page, as src/include/storage/bufpage.h
// and itemid.h lay it out: dead ones too, as long as their bytes are there.
func Rows(page []byte) iter.Seq[RowVersion] {
	return func(yield func(RowVersion) bool) {
		if len(page) < pageHeaderSize {
			return
		}
		end := min(int(binary.LittleEndian.Uint16(page[12:])), len(page)) // pd_lower
		for at, offset := pageHeaderSize, uint16(1); at+4 <= end; at, offset = at+4, offset+1 {
			item := binary.LittleEndian.Uint32(page[at:])
			start, state, length := int(item&0x7FFF), item>>15&3, int(item>>17)
			if state != 1 || length < heapTupleHeaderSize || start+length > len(page) { // LP_NORMAL
				continue
			}
			tuple := page[start : start+length]
			header := int(tuple[heapTupleHeaderSize-1])
			if header < heapTupleHeaderSize || header > length {
				continue
			}
			xmax, flags := binary.LittleEndian.Uint32(tuple[4:]), binary.LittleEndian.Uint16(tuple[20:])
			deleted := xmax != 0 && flags&(rowLockedOnly|rowNeverDeleted) == 0
			if !yield(RowVersion{offset, Row(tuple[header:]), deleted}) {
				return
			}
		}
	}
}
