package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxPageSize is the greatest size of a data page that PostgreSQL can be
// built with, in bytes.
const maxPageSize = 32 << 10

// Sizes of a data page's parts, as in src/include/storage/bufpage.h.
const (
	pageHeaderSize  = 24 // SizeOfPageHeaderData
	pageUpperOffset = 14 // of pd_upper in PageHeaderData
)

var errImage = errors.New("the page image is malformed")

// RestoreImage returns the data page whose image the block carries, the hole
// filled with zeros, as RestoreBlockImage in
// src/backend/access/transam/xlogreader.c does. zstd decompresses a frame
// whose content has at most so many bytes.
func (b *Block) RestoreImage(zstd func(frame []byte, most int) ([]byte, error)) ([]byte, error) {
	stored, err := b.image(zstd)
	if err != nil {
		return nil, fmt.Errorf("restore image of block %d of %s: %w", b.Number, b.Relation, err)
	}
	if b.HoleOffset == 0 {
		return append([]byte(nil), stored...), nil
	}
	hole, offset := int(b.HoleLength), int(b.HoleOffset)
	if hole == 0 && len(stored) >= pageHeaderSize {
		// The hole is the free space, up to what the page's header says.
		hole = int(binary.LittleEndian.Uint16(stored[pageUpperOffset:])) - offset
	}
	if hole <= 0 || offset > len(stored) || len(stored)+hole > maxPageSize {
		return nil, fmt.Errorf("restore image of block %d of %s: %w", b.Number, b.Relation, errImage)
	}
	page := make([]byte, len(stored)+hole)
	copy(page, stored[:offset])
	copy(page[offset+hole:], stored[offset:])
	return page, nil
}

// image returns the image without its hole, decompressed.
func (b *Block) image(zstd func(frame []byte, most int) ([]byte, error)) ([]byte, error) {
	most := maxPageSize - int(b.HoleLength)
	switch b.Compressed {
	case CompressionNone:
		return b.Image, nil
	case CompressionPGLZ:
		return decodePGLZ(b.Image, most)
	case CompressionLZ4:
		return decodeLZ4(b.Image, most)
	}
	return zstd(b.Image, most)
}

// decodePGLZ decompresses PostgreSQL's own format, as pglz_decompress in
// src/common/pg_lzcompress.c: a control byte says, a bit at a time, whether a
// byte follows that stands for itself, or two or three that repeat what was
// there before.
func decodePGLZ(src []byte, most int) ([]byte, error) {
	dst := make([]byte, 0, min(most, 8<<10))
	cut := cutter{rest: src}
	for len(cut.rest) > 0 {
		control := cut.byte()
		for range 8 {
			if len(cut.rest) == 0 {
				break
			}
			if control&1 == 0 {
				dst = append(dst, cut.byte())
			} else {
				first, second := cut.byte(), cut.byte()
				length, distance := int(first&0x0F)+3, int(first&0xF0)<<4|int(second)
				if length == 18 {
					length += int(cut.byte())
				}
				var ok bool
				if dst, ok = repeat(dst, distance, length, most); !ok {
					return nil, errImage
				}
			}
			control >>= 1
		}
		if len(dst) > most || cut.short {
			return nil, errImage
		}
	}
	return dst, nil
}

// decodeLZ4 decompresses one block of the LZ4 format: sequences of literal
// bytes and a repetition, the last without one.
func decodeLZ4(src []byte, most int) ([]byte, error) {
	dst := make([]byte, 0, min(most, 8<<10))
	cut := cutter{rest: src}
	for {
		token := cut.byte()
		literals := cut.bytes(cut.lz4Length(int(token >> 4)))
		if cut.short || len(dst)+len(literals) > most {
			return nil, errImage
		}
		dst = append(dst, literals...)
		if len(cut.rest) == 0 {
			return dst, nil
		}
		distance := int(cut.uint16())
		length := cut.lz4Length(int(token&0x0F)) + 4
		var ok bool
		if dst, ok = repeat(dst, distance, length, most); !ok || cut.short {
			return nil, errImage
		}
	}
}

// lz4Length reads the rest of a length of which the token has the first part.
func (c *cutter) lz4Length(length int) int {
	if length < 15 {
		return length
	}
	for !c.short {
		more := c.byte()
		length += int(more)
		if more != 255 {
			break
		}
	}
	return length
}

// repeat appends length bytes that stand distance bytes before dst's end; they
// may overlap what they make.
func repeat(dst []byte, distance, length, most int) ([]byte, bool) {
	if distance == 0 || distance > len(dst) || len(dst)+length > most {
		return nil, false
	}
	for range length {
		dst = append(dst, dst[len(dst)-distance])
	}
	return dst, true
}
