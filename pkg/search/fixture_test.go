package search

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/pkg/wal/waltest"
)

const (
	cluster     = 7431000000000000001
	segmentSize = 1 << 20
)

var quiet = slog.New(slog.DiscardHandler)

// server writes WAL.
type server struct{ waltest.Writer }

func newServer(segment uint64) *server {
	return &server{waltest.Writer{SystemID: cluster, SegmentSize: segmentSize, Timeline: 1, Start: wal.LSN(segment * segmentSize)}}
}

func (s *server) commit(xid uint32, at time.Time) wal.LSN {
	return s.Record(wal.ResourceTransaction, 0, xid, binary.LittleEndian.AppendUint64(nil, uint64(wal.TimestampOf(at))))
}

func (s *server) checkpoint(at time.Time) {
	s.Page()
	main := make([]byte, 88)
	binary.LittleEndian.PutUint64(main, uint64(s.Position()))
	binary.LittleEndian.PutUint32(main[8:], uint32(s.Timeline))
	binary.LittleEndian.PutUint32(main[12:], uint32(s.Timeline))
	binary.LittleEndian.PutUint64(main[64:], uint64(at.Unix()))
	s.Record(wal.ResourceXLOG, 0x10, 0, main)
}

// forget keeps nothing of the WAL so far, which ends with a segment.
func (s *server) forget() { s.Start, s.Data = s.Position(), s.Data[:0] }

// fill writes records up to so many bytes before the segment's end.
func (s *server) fill(left int) {
	for {
		room := segmentSize - len(s.Data)%segmentSize - left
		if page := waltest.BlockSize - len(s.Data)%waltest.BlockSize; room > page {
			room = page
		}
		if len(s.Data)%waltest.BlockSize == 0 {
			s.Page()
			continue
		}
		if room < 64 {
			if room > 24 {
				s.Record(wal.ResourceXLOG, 0x20, 0, bytes.Repeat([]byte{1}, room-26))
				continue
			}
			return
		}
		s.Record(wal.ResourceXLOG, 0x20, 0, bytes.Repeat([]byte{1}, min(room, 4096)-32))
	}
}

// site is a repository that counts what is asked of it.
type site struct {
	*repo.Repository
	store *counting
}

// counting is a storage that counts.
type counting struct {
	*mem.Store
	mu         sync.Mutex
	heads      int            // ranged reads of segments
	whole      map[string]int // whole reads of segments, by their names
	open, most int            // of those at once
	rollups    int            // reads of them
	deny       bool           // roll-ups can't be written
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	body, info, err := c.Store.Get(ctx, key, offset, length)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && !strings.Contains(key, "/summaries/"):
	case strings.Contains(key, "/summaries/"):
		c.rollups++
	case length >= 0:
		c.heads++
	case strings.Contains(key, "/wal/") && !strings.HasSuffix(key, ".history"):
		c.whole[key[strings.LastIndexByte(key, '/')+1:][:24]]++
		c.open++
		c.most = max(c.most, c.open)
		body = &closing{body, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.open--
		}}
	}
	return body, info, err
}

func (c *counting) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if c.deny && strings.Contains(key, "/summaries/") {
		return storage.Info{}, storage.ErrDenied
	}
	return c.Store.Put(ctx, key, body)
}

type closing struct {
	io.ReadCloser
	closed func()
}

func (c *closing) Close() error {
	c.closed()
	return c.ReadCloser.Close()
}

func (c *counting) reset() {
	c.heads, c.rollups, c.most, c.whole = 0, 0, 0, map[string]int{}
}

// downloaded are the segments that were read whole, in order.
func (c *counting) downloaded() []string {
	var names []string
	for name := range c.whole {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{store: &counting{Store: mem.New(), whole: map[string]int{}}}
	info := repo.Info{Format: repo.Format, ID: strings.Repeat("5a", 16), Encryption: "none"}
	var err error
	if s.Repository, err = repo.New(s.store, info, repo.Keys{Level: compress.Fastest}); err != nil {
		t.Fatal(err)
	}
	return s
}

// archive stores the segments that a server filled.
func (s *site) archive(t *testing.T, v *server) {
	t.Helper()
	for at := 0; at+segmentSize <= len(v.Data); at += segmentSize {
		name := wal.SegmentName(v.Timeline, wal.SegmentNumber(v.Start, segmentSize)+uint64(at/segmentSize), segmentSize)
		s.put(t, name, v.Data[at:at+segmentSize])
	}
}

func (s *site) put(t *testing.T, name wal.FileName, data []byte) {
	t.Helper()
	summary, err := wal.Check(bytes.NewReader(data), name, segmentSize, cluster)
	if err != nil {
		t.Fatal(err)
	}
	header := repo.Header(cluster, name)
	header.PlainSize, header.Digest, header.Fields = segmentSize, object.DigestOf(data), summary.Fields()
	var sealed bytes.Buffer
	w, err := s.Sealer.Seal(&sealed, header)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		_, err = s.Store.Put(t.Context(), s.FileKey(cluster, name), bytes.NewReader(sealed.Bytes()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// corrupt changes a byte of a segment's object: one at an offset, if that is
// negative from its end.
func (s *site) corrupt(t *testing.T, segment uint64, at int) {
	t.Helper()
	key := s.FileKey(cluster, wal.SegmentName(1, segment, segmentSize))
	body, _, err := s.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(content)
	}
	content[at] ^= 1
	if err := s.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Put(t.Context(), key, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// search runs a query along the newest path.
func (s *site) search(t *testing.T, q Query) ([]Event, *Report) {
	t.Helper()
	var err error
	q.SystemID = cluster
	if q.History, err = Path(t.Context(), s.Repository, cluster, 0); err != nil {
		t.Fatal(err)
	}
	var events []Event
	report, err := Run(t.Context(), s.Repository, q, Options{Log: quiet}, func(e Event) error {
		events = append(events, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events, report
}

func xids(events []Event) []uint32 {
	var list []uint32
	for _, e := range events {
		list = append(list, e.XID)
	}
	return list
}
