package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Record is one WAL record whose CRC was right, as XLogRecord in
// src/include/access/xlogrecord.h.
type Record struct {
	LSN      LSN // of the record's first byte
	Next     LSN // behind the record, as PostgreSQL counts its end: aligned, and behind a switch the next segment
	Prev     LSN // of the record before it
	XID      uint32
	Info     uint8 // the resource manager's flags are the upper four bits
	Resource ResourceManager
	CRC      uint32
	Data     []byte // the whole record, header included

	magic uint16
}

// recordFlags are the bits of Info that don't belong to the resource manager
// (XLR_INFO_MASK).
const recordFlags = 0x0F

// ResourceManager says which part of PostgreSQL wrote a record, as RmgrId in
// src/include/access/rmgr.h.
type ResourceManager uint8

// The resource managers whose records walship looks into, numbered by their
// order in src/include/access/rmgrlist.h.
const (
	ResourceXLOG        ResourceManager = 0
	ResourceTransaction ResourceManager = 1
	ResourceStorage     ResourceManager = 2
	ResourceDatabase    ResourceManager = 4
	ResourceTablespace  ResourceManager = 5

	resourceNext        ResourceManager = 22  // behind the last built-in one (RM_NEXT_ID)
	resourceFirstCustom ResourceManager = 128 // of extensions (RM_MIN_CUSTOM_ID), from 15 on
	magic15                             = 0xD110
)

var resourceNames = [resourceNext]string{
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby",
	"Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs",
	"ReplicationOrigin", "Generic", "LogicalMessage",
}

// String names a resource manager as pg_waldump does.
func (m ResourceManager) String() string {
	switch {
	case m < resourceNext:
		return resourceNames[m]
	case m >= resourceFirstCustom:
		return fmt.Sprintf("custom%03d", uint8(m))
	}
	return fmt.Sprintf("unknown%03d", uint8(m))
}

// valid tells whether a server that writes pages with this magic can have
// written a record of m.
func (m ResourceManager) valid(magic uint16) bool {
	return m < resourceNext || m >= resourceFirstCustom && magic >= magic15
}

// RelFile names the file of a relation, as RelFileNode (RelFileLocator from
// 16 on) in src/include/storage/relfilelocator.h.
type RelFile struct {
	Tablespace uint32 // its OID
	Database   uint32 // its OID, 0 for a shared relation
	Number     uint32 // not the relation's OID
}

// String writes a relation file as pg_waldump does: 1663/5/16384.
func (f RelFile) String() string {
	return fmt.Sprintf("%d/%d/%d", f.Tablespace, f.Database, f.Number)
}

// Fork is one of the files that make a relation, as ForkNumber in
// src/include/common/relpath.h.
type Fork uint8

// The forks of a relation.
const (
	ForkMain Fork = iota
	ForkFreeSpaceMap
	ForkVisibilityMap
	ForkInit
)

// String names a fork as PostgreSQL does.
func (f Fork) String() string {
	switch f {
	case ForkMain:
		return "main"
	case ForkFreeSpaceMap:
		return "fsm"
	case ForkVisibilityMap:
		return "vm"
	case ForkInit:
		return "init"
	}
	return fmt.Sprintf("fork%d", uint8(f))
}

// Block is a reference of a record to a block that it changes.
type Block struct {
	ID       uint8 // the reference's number in its record
	Relation RelFile
	Fork     Fork
	Number   uint32 // of the block, in the relation
	WillInit bool   // replay makes the page anew

	HasImage   bool
	ApplyImage bool        // replay puts the image in place
	Compressed Compression // how the image is
	HoleOffset uint16      // bytes before the zeros that the image leaves out
	HoleLength uint16      // bytes of zeros left out; known for compressed images only
	Image      []byte      // as stored
	Data       []byte
}

// Compression is how a full page image is compressed.
type Compression uint8

// The compressions of full page images.
const (
	CompressionNone Compression = iota
	CompressionPGLZ
	CompressionLZ4
	CompressionZstd
)

const (
	maxBlockReference = 32 // XLR_MAX_BLOCK_ID

	idDataShort   = 255 // XLR_BLOCK_ID_DATA_SHORT
	idDataLong    = 254 // XLR_BLOCK_ID_DATA_LONG
	idOrigin      = 253 // XLR_BLOCK_ID_ORIGIN
	idTopLevelXID = 252 // XLR_BLOCK_ID_TOPLEVEL_XID, from 14 on

	blockForkMask = 0x0F // BKPBLOCK_FORK_MASK
	blockHasImage = 0x10 // BKPBLOCK_HAS_IMAGE
	blockHasData  = 0x20 // BKPBLOCK_HAS_DATA
	blockWillInit = 0x40 // BKPBLOCK_WILL_INIT
	blockSameRel  = 0x80 // BKPBLOCK_SAME_REL
)

// Contents is what a record holds behind its header. It may be used again for
// the next record, and then doesn't allocate.
type Contents struct {
	Blocks      []Block
	Main        []byte // the resource manager's own data
	Origin      uint16 // the replication origin, 0 for none
	TopLevelXID uint32 // of a subtransaction's record, where logical decoding needed it

	imageLengths [maxBlockReference + 1]uint16
	dataLengths  [maxBlockReference + 1]uint16
}

var errRecordLength = errors.New("the lengths in it don't agree with the record's")

// Decode reads what the record holds into c, as DecodeXLogRecord in
// src/backend/access/transam/xlogreader.c. The slices point into the record,
// and are valid as long as that is.
func (r *Record) Decode(c *Contents) error {
	if err := c.decode(r.Data[recordHeaderSize:], r.magic); err != nil {
		return fmt.Errorf("decode record at %s: %w", r.LSN, err)
	}
	return nil
}

func (c *Contents) decode(data []byte, magic uint16) error {
	c.Blocks, c.Main, c.Origin, c.TopLevelXID = c.Blocks[:0], nil, 0, 0
	cut := cutter{rest: data}
	payload, mainLength := 0, 0 // bytes behind the headers read so far
headers:
	for len(cut.rest) > payload && !cut.short {
		switch id := cut.byte(); {
		case id == idDataShort:
			mainLength = int(cut.byte())
			break headers // the main data is always last
		case id == idDataLong:
			mainLength = int(min(cut.uint32(), maxRecordSize))
			break headers
		case id == idOrigin:
			c.Origin = cut.uint16()
		case id == idTopLevelXID:
			c.TopLevelXID = cut.uint32()
		case id <= maxBlockReference:
			if err := c.blockHeader(&cut, id, magic); err != nil {
				return err
			}
			n := len(c.Blocks) - 1
			payload += int(c.imageLengths[n]) + int(c.dataLengths[n])
		default:
			return fmt.Errorf("unknown block reference %d", id)
		}
	}
	if cut.short || len(cut.rest) != payload+mainLength {
		return errRecordLength
	}
	for n := range c.Blocks {
		c.Blocks[n].Image = cut.bytes(int(c.imageLengths[n]))
		c.Blocks[n].Data = cut.bytes(int(c.dataLengths[n]))
	}
	c.Main = cut.rest
	return nil
}

// blockHeader reads an XLogRecordBlockHeader and what follows it.
func (c *Contents) blockHeader(cut *cutter, id uint8, magic uint16) error {
	n := len(c.Blocks)
	if n > 0 && id <= c.Blocks[n-1].ID {
		return fmt.Errorf("block reference %d comes after %d", id, c.Blocks[n-1].ID)
	}
	flags := cut.byte()
	block := Block{
		ID:       id,
		Fork:     Fork(flags & blockForkMask),
		WillInit: flags&blockWillInit != 0,
		HasImage: flags&blockHasImage != 0,
	}
	dataLength, imageLength := cut.uint16(), uint16(0)
	if (flags&blockHasData != 0) != (dataLength > 0) {
		return fmt.Errorf("block reference %d: its flag for data and its data's length don't agree", id)
	}
	if block.HasImage {
		imageLength = cut.uint16()
		if err := block.imageHeader(cut, magic); err != nil {
			return fmt.Errorf("block reference %d: %w", id, err)
		}
	}
	switch {
	case flags&blockSameRel == 0:
		block.Relation = cut.relFile()
	case n > 0:
		block.Relation = c.Blocks[n-1].Relation
	default:
		return fmt.Errorf("block reference %d is to the relation of the one before it, and there is none", id)
	}
	block.Number = cut.uint32()
	c.Blocks = append(c.Blocks, block)
	c.dataLengths[n], c.imageLengths[n] = dataLength, imageLength
	return nil
}

// imageHeader reads an XLogRecordBlockImageHeader, behind its length.
func (b *Block) imageHeader(cut *cutter, magic uint16) error {
	b.HoleOffset = cut.uint16()
	info := cut.byte()
	hasHole := info&0x01 != 0 // BKPIMAGE_HAS_HOLE
	if magic < magic15 {
		b.ApplyImage = info&0x04 != 0 // BKPIMAGE_APPLY until 14
		if info&0x02 != 0 {           // BKPIMAGE_IS_COMPRESSED
			b.Compressed = CompressionPGLZ
		}
	} else {
		b.ApplyImage = info&0x02 != 0 // BKPIMAGE_APPLY from 15 on
		switch {
		case info&0x04 != 0: // BKPIMAGE_COMPRESS_PGLZ
			b.Compressed = CompressionPGLZ
		case info&0x08 != 0: // BKPIMAGE_COMPRESS_LZ4
			b.Compressed = CompressionLZ4
		case info&0x10 != 0: // BKPIMAGE_COMPRESS_ZSTD
			b.Compressed = CompressionZstd
		}
	}
	if hasHole && b.Compressed != CompressionNone {
		b.HoleLength = cut.uint16()
	}
	if hasHole != (b.HoleOffset > 0) {
		return errors.New("its image's flag for a hole and the hole's offset don't agree")
	}
	return nil
}

// cutter cuts fields off the front of data. Where that is too short it
// returns zeros and remembers.
type cutter struct {
	rest  []byte
	short bool
}

func (c *cutter) bytes(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.short, c.rest = true, nil
		return nil
	}
	field := c.rest[:n:n]
	c.rest = c.rest[n:]
	return field
}

func (c *cutter) byte() uint8 {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cutter) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cutter) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cutter) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cutter) relFile() RelFile {
	return RelFile{Tablespace: c.uint32(), Database: c.uint32(), Number: c.uint32()}
}
