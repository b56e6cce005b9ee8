package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

const testBlock = 8 << 10

// server writes WAL as PostgreSQL 15 does.
type server struct {
	timeline wal.TimelineID
	size     uint64 // of a segment
	start    wal.LSN
	data     []byte
	prev     wal.LSN
}

func newServer(tli wal.TimelineID, segment, size uint64) *server {
	return &server{timeline: tli, size: size, start: wal.LSN(segment * size)}
}

// fork returns the server that is promoted where s stands, to a timeline. Its
// pages from there on are of that.
func (s *server) fork(tli wal.TimelineID) *server {
	child := *s
	child.timeline, child.data = tli, slices.Clone(s.data)
	return &child
}

func (s *server) position() wal.LSN { return s.start + wal.LSN(len(s.data)) }

// header starts a page if one is full.
func (s *server) header(remaining int) {
	if len(s.data)%testBlock != 0 {
		return
	}
	h := wal.PageHeader{Magic: 0xD110, Timeline: s.timeline, Address: s.position(), RemainingLength: uint32(remaining)}
	if remaining > 0 {
		h.Info |= wal.FirstIsContRecord
	}
	if uint64(len(s.data))%s.size == 0 {
		h.Info |= wal.LongHeader
		h.Long, h.SystemID, h.SegmentSize, h.BlockSize = true, testSystem, uint32(s.size), testBlock
	}
	s.data = h.AppendHeader(s.data)
}

// record writes one with this main data, and returns where it starts.
func (s *server) record(resource wal.ResourceManager, info uint8, xid uint32, main []byte) wal.LSN {
	s.header(0)
	lsn := s.position()
	record := make([]byte, 24)
	switch {
	case len(main) > 255:
		record = append(binary.LittleEndian.AppendUint32(append(record, 254), uint32(len(main))), main...)
	case len(main) > 0:
		record = append(append(record, 255, uint8(len(main))), main...)
	}
	binary.LittleEndian.PutUint32(record[0:], uint32(len(record)))
	binary.LittleEndian.PutUint32(record[4:], xid)
	binary.LittleEndian.PutUint64(record[8:], uint64(s.prev))
	record[16], record[17] = info, uint8(resource)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(record[20:], crc32.Update(crc32.Checksum(record[24:], table), table, record[:20]))
	s.prev = lsn
	for len(record) > 0 {
		s.header(len(record))
		n := min(len(record), testBlock-len(s.data)%testBlock)
		s.data, record = append(s.data, record[:n]...), record[n:]
	}
	for len(s.data)%8 != 0 {
		s.data = append(s.data, 0)
	}
	return lsn
}

// ended writes a record that ends a transaction: 0x00 commit, 0x20 abort.
func (s *server) ended(info uint8, xid uint32, at time.Time, subtransactions ...uint32) wal.LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at)))
	if len(subtransactions) > 0 {
		info |= 0x80
		main = binary.LittleEndian.AppendUint32(main, 1<<1)
		main = binary.LittleEndian.AppendUint32(main, uint32(len(subtransactions)))
		for _, sub := range subtransactions {
			main = binary.LittleEndian.AppendUint32(main, sub)
		}
	}
	return s.record(wal.ResourceTransaction, info, xid, main)
}

func (s *server) commit(xid uint32, at time.Time, subtransactions ...uint32) wal.LSN {
	return s.ended(0x00, xid, at, subtransactions...)
}

func (s *server) abort(xid uint32, at time.Time) wal.LSN { return s.ended(0x20, xid, at) }

// prepare writes an xl_xact_prepare of a transaction.
func (s *server) prepare(xid uint32, at time.Time, gid string) wal.LSN {
	main := make([]byte, 8)
	main = binary.LittleEndian.AppendUint32(main, xid)
	main = binary.LittleEndian.AppendUint32(main, 5) // database
	main = binary.LittleEndian.AppendUint64(main, uint64(wal.TimestampOf(at)))
	main = append(main, make([]byte, 4+4*3+8+6)...)
	main = binary.LittleEndian.AppendUint16(main, uint16(len(gid)+1))
	main = append(main, make([]byte, 16)...)
	main = append(append(main, gid...), 0)
	for len(main)%8 != 0 {
		main = append(main, 0)
	}
	return s.record(wal.ResourceTransaction, 0x10, xid, main)
}

// finish writes COMMIT PREPARED.
func (s *server) finish(xid uint32, at time.Time, gid string) wal.LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at)))
	main = binary.LittleEndian.AppendUint32(main, 1<<4|1<<7)
	main = binary.LittleEndian.AppendUint32(main, xid)
	return s.record(wal.ResourceTransaction, 0x30|0x80, 0, append(append(main, gid...), 0))
}

func (s *server) restorePoint(name string, at time.Time) wal.LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at)))
	return s.record(wal.ResourceXLOG, 0x70, 0, append(main, append([]byte(name), make([]byte, 64-len(name))...)...))
}

// noopTo writes records that end at an LSN, on the page.
func (s *server) noopTo(lsn wal.LSN) {
	s.header(0)
	for s.position() < lsn {
		room := int(lsn - s.position())
		if room > 250 {
			room = min(room-64, 240) &^ 7
		}
		s.record(wal.ResourceXLOG, 0x20, 0, bytes.Repeat([]byte{1}, room-26))
	}
}

// fillTo writes records up to a position, across pages; it may end some bytes
// before.
func (s *server) fillTo(lsn wal.LSN) {
	for s.position()+4200 < lsn {
		s.record(wal.ResourceXLOG, 0x20, 0, make([]byte, 4000))
	}
	for s.position()+64 < lsn {
		s.record(wal.ResourceXLOG, 0x20, 0, make([]byte, 8))
	}
}

// switchSegment ends the segment early.
func (s *server) switchSegment() {
	s.record(wal.ResourceXLOG, 0x40, 0, nil)
	s.data = append(s.data, make([]byte, -len(s.data)&int(s.size-1))...)
}

// archive stores the segments that are complete, with their summaries, as
// their timeline has them, from a number on.
func (s *server) archive(t testing.TB, r *repo.Repository, from uint64) {
	t.Helper()
	for n := from; (n+1)*s.size <= uint64(s.position()); n++ {
		begin := n*s.size - uint64(s.start)
		content := s.data[begin : begin+s.size]
		name := wal.SegmentName(s.timeline, n, s.size)
		summary, err := wal.Check(bytes.NewReader(content), name, int64(s.size), testSystem)
		if err != nil {
			t.Fatal(err)
		}
		h := repo.Header(testSystem, name)
		h.PlainSize, h.Digest, h.Fields = int64(s.size), object.DigestOf(content), summary.Fields()
		var stored bytes.Buffer
		w, err := r.Sealer.Seal(&stored, h)
		if err == nil {
			_, err = w.Write(content)
		}
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			_, err = r.Store.Put(context.Background(), repo.WALKey(testSystem, name)+r.Suffix(), &stored)
		}
		if err != nil {
			t.Fatalf("archive %s: %v", name, err)
		}
	}
}

// archiveOf stores the WAL that the backup of a fixture needs.
func archiveOf(t testing.TB, r *repo.Repository, b *repo.Backup) {
	t.Helper()
	ctx, key := context.Background(), fmt.Sprint(r.Info.ID, b.Timeline, b.StartLSN, b.Checkpoint, b.StopLSN)
	if kept, ok := archivedWAL.Load(key); ok {
		for name, stored := range kept.(map[string][]byte) {
			if _, err := r.Store.Put(ctx, name, bytes.NewReader(stored)); err != nil && !errors.Is(err, storage.ErrExist) {
				t.Fatal(err)
			}
		}
		return
	}
	s := newServer(b.Timeline, wal.SegmentNumber(b.StartLSN, b.SegmentSize), b.SegmentSize)
	s.noopTo(b.Checkpoint)
	s.fillTo(b.StopLSN - 256)
	s.noopTo(b.StopLSN)
	s.switchSegment()
	made := *r
	made.Store = mem.New()
	s.archive(t, &made, uint64(s.start)/s.size)
	stored := map[string][]byte{}
	for info, err := range made.Store.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := made.Store.Get(ctx, info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if stored[info.Key], err = io.ReadAll(body); err != nil {
			t.Fatal(err)
		}
	}
	archivedWAL.Store(key, stored)
	archiveOf(t, r, b)
}

// archivedWAL keeps what archiveOf made: sealing segments takes time.
var archivedWAL sync.Map
