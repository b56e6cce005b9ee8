package pgdata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// BlockSize and SegmentBlocks are BLCKSZ and RELSEG_SIZE as PostgreSQL is
// usually built: bytes of a block, and blocks of a relation's segment.
const (
	BlockSize     = 8192
	SegmentBlocks = 131072
)

// incrementalPrefix stands before the name of a file that is stored
// incrementally.
const incrementalPrefix = "INCREMENTAL."

// IncrementalName is where an incremental backup keeps the changed blocks of
// the file at name.
func IncrementalName(name string) string {
	dir, base := path.Split(name)
	return dir + incrementalPrefix + base
}

// CutIncremental returns the path of the file whose changed blocks are kept
// at name, or false if name isn't that of an incremental file.
func CutIncremental(name string) (string, bool) {
	dir, base := path.Split(name)
	base, found := strings.CutPrefix(base, incrementalPrefix)
	if !found || ClassifyPath(dir+base).Kind != KindRelation {
		return "", false
	}
	return dir + base, true
}

// Incremental is the header of an incremental file: which blocks of a
// relation's segment follow it. See sendFile and GetIncrementalFileSize in
// src/backend/backup, and make_incremental_rfile in
// src/bin/pg_combinebackup/reconstruct.c, of PostgreSQL 17 and later.
type Incremental struct {
	// Blocks are the blocks that follow, in order: their numbers within the
	// segment, ascending, below SegmentBlocks.
	Blocks []uint32
	// Length is how many blocks the file has at least (truncation_block_length),
	// at most SegmentBlocks. A block before it that isn't in Blocks is the
	// parent's, and zero where the parent has none.
	Length uint32
}

const (
	incrementalMagic  = 0xd3ae1f0d
	incrementalFixed  = 12 // magic, number of blocks, Length
	blockNumberLength = 4
)

// HeaderSize is the size in bytes of the header: a multiple of BlockSize
// where blocks follow.
func (i Incremental) HeaderSize() int64 {
	size := int64(incrementalFixed + blockNumberLength*len(i.Blocks))
	if over := size % BlockSize; len(i.Blocks) > 0 && over > 0 {
		size += BlockSize - over
	}
	return size
}

// Size is the size in bytes of the whole incremental file.
func (i Incremental) Size() int64 { return i.HeaderSize() + BlockSize*int64(len(i.Blocks)) }

// FileBlocks is how many blocks the file has that is put together with it.
func (i Incremental) FileBlocks() uint32 {
	if n := len(i.Blocks); n > 0 {
		return max(i.Length, i.Blocks[n-1]+1)
	}
	return i.Length
}

// AppendHeader appends the encoded header to dst.
func (i Incremental) AppendHeader(dst []byte) []byte {
	begin := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, incrementalMagic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(i.Blocks)))
	dst = binary.LittleEndian.AppendUint32(dst, i.Length)
	for _, block := range i.Blocks {
		dst = binary.LittleEndian.AppendUint32(dst, block)
	}
	return append(dst, make([]byte, i.HeaderSize()-int64(len(dst)-begin))...)
}

// ReadIncremental reads the header of an incremental file; src then yields the
// blocks. It takes exactly what AppendHeader writes.
func ReadIncremental(src io.Reader) (Incremental, error) {
	i, err := readIncremental(src)
	if err != nil {
		return Incremental{}, fmt.Errorf("read incremental file's header: %w", err)
	}
	return i, nil
}

func readIncremental(src io.Reader) (Incremental, error) {
	var fixed [incrementalFixed]byte
	if _, err := io.ReadFull(src, fixed[:]); err != nil {
		return Incremental{}, cut(err)
	}
	if magic := binary.LittleEndian.Uint32(fixed[0:]); magic != incrementalMagic {
		return Incremental{}, fmt.Errorf("its magic number is %#x, not %#x", magic, uint32(incrementalMagic))
	}
	count := binary.LittleEndian.Uint32(fixed[4:])
	i := Incremental{Length: binary.LittleEndian.Uint32(fixed[8:])}
	if count > SegmentBlocks || i.Length > SegmentBlocks {
		return Incremental{}, fmt.Errorf("it has %d blocks of %d, and a segment has %d", count, i.Length, SegmentBlocks)
	}
	if count == 0 {
		return i, nil
	}
	i.Blocks = make([]uint32, count)
	rest := make([]byte, i.HeaderSize()-incrementalFixed)
	if _, err := io.ReadFull(src, rest); err != nil {
		return Incremental{}, cut(err)
	}
	for n := range i.Blocks {
		i.Blocks[n] = binary.LittleEndian.Uint32(rest[blockNumberLength*n:])
		if i.Blocks[n] >= SegmentBlocks || n > 0 && i.Blocks[n] <= i.Blocks[n-1] {
			return Incremental{}, fmt.Errorf("block %d in it is out of order", i.Blocks[n])
		}
	}
	for _, b := range rest[blockNumberLength*len(i.Blocks):] {
		if b != 0 {
			return Incremental{}, errors.New("it is followed by something else than zeros")
		}
	}
	return i, nil
}

// cut makes the end of a file an error where more is expected.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
