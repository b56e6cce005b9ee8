package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	"github.com/walship/walship/pkg/wal/waltest"
)

// server writes WAL.
type server struct{ waltest.Writer }

func newServer(tli wal.TimelineID, segment, size uint64) *server {
	return &server{waltest.Writer{SystemID: testSystem, SegmentSize: size, Timeline: tli, Start: wal.LSN(segment * size)}}
}

// fork returns the server that is promoted where s stands, to a timeline. Its
// pages from there on are of that.
func (s *server) fork(tli wal.TimelineID) *server {
	child := *s
	child.Timeline, child.Data = tli, slices.Clone(s.Data)
	return &child
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
	return s.Record(wal.ResourceTransaction, info, xid, main)
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
	return s.Record(wal.ResourceTransaction, 0x10, xid, main)
}

// finish writes COMMIT PREPARED.
func (s *server) finish(xid uint32, at time.Time, gid string) wal.LSN {
	main := binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at)))
	main = binary.LittleEndian.AppendUint32(main, 1<<4|1<<7)
	main = binary.LittleEndian.AppendUint32(main, xid)
	return s.Record(wal.ResourceTransaction, 0x30|0x80, 0, append(append(main, gid...), 0))
}

// noopTo writes records that end at an LSN, on the page.
func (s *server) noopTo(lsn wal.LSN) {
	s.Page()
	for s.Position() < lsn {
		room := int(lsn - s.Position())
		if room > 250 {
			room = min(room-64, 240) &^ 7
		}
		s.Record(wal.ResourceXLOG, 0x20, 0, bytes.Repeat([]byte{1}, room-26))
	}
}

// fillTo writes records up to a position, across pages; it may end some bytes
// before.
func (s *server) fillTo(lsn wal.LSN) {
	for s.Position()+4200 < lsn {
		s.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 4000))
	}
	for s.Position()+64 < lsn {
		s.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 8))
	}
}

// archive stores the segments that are complete, with their summaries, as
// their timeline has them, from a number on.
func (s *server) archive(t testing.TB, r *repo.Repository, from uint64) {
	t.Helper()
	for n := from; (n+1)*s.SegmentSize <= uint64(s.Position()); n++ {
		begin := n*s.SegmentSize - uint64(s.Start)
		content := s.Data[begin : begin+s.SegmentSize]
		name := wal.SegmentName(s.Timeline, n, s.SegmentSize)
		summary, err := wal.Check(bytes.NewReader(content), name, int64(s.SegmentSize), testSystem)
		if err != nil {
			t.Fatal(err)
		}
		h := repo.Header(testSystem, name)
		h.PlainSize, h.Digest, h.Fields = int64(s.SegmentSize), object.DigestOf(content), summary.Fields()
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
	s.SwitchSegment()
	made := *r
	made.Store = mem.New()
	s.archive(t, &made, uint64(s.Start)/s.SegmentSize)
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
