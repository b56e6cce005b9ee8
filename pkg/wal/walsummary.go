package wal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
)

// ServerSummary names a file in which PostgreSQL 17 and later keep what the WAL
// of a timeline changes from one LSN up to another, as GetWalSummaries in
// src/backend/backup/walsummary.c reads the names in pg_wal/summaries.
type ServerSummary struct {
	Timeline   TimelineID
	Start, End LSN
}

const (
	serverSummarySuffix = ".summary"
	serverSummaryMagic  = 0x652b137b // BLOCKREFTABLE_MAGIC

	summaryChunk  = 1 << 16 // blocks in a chunk of a relation
	summaryBitmap = 4096    // numbers of a chunk that is a bitmap
	summaryEntry  = 24      // bytes of BlockRefTableSerializedEntry
	noBlock       = 1<<32 - 1
)

// ParseServerSummary reads a file's name; ok is false for any other file.
func ParseServerSummary(name string) (s ServerSummary, ok bool) {
	const digits = 40
	if len(name) != digits+len(serverSummarySuffix) || name[digits:] != serverSummarySuffix {
		return s, false
	}
	timeline, err1 := strconv.ParseUint(name[:8], 16, 32)
	start, err2 := strconv.ParseUint(name[8:24], 16, 64)
	end, err3 := strconv.ParseUint(name[24:40], 16, 64)
	s = ServerSummary{TimelineID(timeline), LSN(start), LSN(end)}
	return s, errors.Join(err1, err2, err3) == nil && s.String() == name
}

// String is the file's name.
func (s ServerSummary) String() string {
	return fmt.Sprintf("%08X%016X%016X%s", uint32(s.Timeline), uint64(s.Start), uint64(s.End), serverSummarySuffix)
}

// AddServerSummary takes in the content of such a file, as
// src/common/blkreftable.c writes it. After an error the changes are of no use.
func (c *Changes) AddServerSummary(src io.Reader) error {
	r := summaryReader{src: bufio.NewReader(src)}
	if magic := r.numbers(4); r.err == nil && binary.LittleEndian.Uint32(magic) != serverSummaryMagic {
		r.err = errors.New("it is no WAL summary")
	}
	for r.err == nil {
		entry := r.numbers(summaryEntry)
		if r.err != nil {
			break
		}
		cut := cutter{rest: entry}
		file, fork, limit, chunks := cut.relFile(), Fork(cut.uint32()), cut.uint32(), cut.uint32()
		if file == (RelFile{}) {
			crc := r.crc
			if stored := r.numbers(4); r.err == nil && binary.LittleEndian.Uint32(stored) != crc {
				r.err = errors.New("its checksum is wrong")
			}
			break
		}
		c.addSummarized(&r, file, fork, limit, chunks)
	}
	if r.err != nil {
		return fmt.Errorf("read WAL summary: %w", r.err)
	}
	return nil
}

// addSummarized takes in one fork of a relation. Relation 0 stands for all of a
// database.
func (c *Changes) addSummarized(r *summaryReader, file RelFile, fork Fork, limit, chunks uint32) {
	if chunks > (noBlock+1)/summaryChunk {
		r.err = fmt.Errorf("%s has %d chunks", file, chunks)
		return
	}
	main := fork == ForkMain
	switch {
	case main && file.Number == 0:
		c.databases[databaseFiles{file.Tablespace, file.Database}] = struct{}{}
	case main && limit != noBlock:
		c.relation(file).replace(limit)
	default:
		c.relation(file) // is touched
	}
	sizes := append([]byte(nil), r.numbers(2*int(chunks))...)
	for at := uint32(0); at < chunks && r.err == nil; at++ {
		size := binary.LittleEndian.Uint16(sizes[2*at:])
		if size > summaryBitmap {
			r.err = fmt.Errorf("%s has a chunk of %d numbers", file, size)
			return
		}
		data := r.numbers(2 * int(size))
		if r.err != nil || !main {
			continue
		}
		for i := range uint32(size) {
			n := binary.LittleEndian.Uint16(data[2*i:])
			if size < summaryBitmap {
				c.relation(file).touch(at*summaryChunk + uint32(n))
				continue
			}
			for bit := range uint32(16) {
				if n&(1<<bit) != 0 {
					c.relation(file).touch(at*summaryChunk + 16*i + bit)
				}
			}
		}
	}
}

// summaryReader reads a WAL summary, and keeps the first error and the checksum
// of what was read.
type summaryReader struct {
	src    io.Reader
	buffer []byte
	crc    uint32
	err    error
}

// numbers reads so many bytes, which are valid until the next call.
func (r *summaryReader) numbers(size int) []byte {
	if r.err != nil {
		return nil
	}
	if cap(r.buffer) < size {
		r.buffer = make([]byte, size)
	}
	data := r.buffer[:size]
	if _, err := io.ReadFull(r.src, data); err != nil {
		r.err = noEOF(err)
		return nil
	}
	r.crc = crc32.Update(r.crc, castagnoli, data)
	return data
}
