package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// server is a folder with segments that wait, as PostgreSQL has it, and a
// repository to push them to.
type server struct {
	*site
	state  *os.Root
	folder *os.Root // of the records
	row    []string // the names of its segments, in order
	mu     sync.Mutex
	puts   []string // the names of what was stored, in order
}

// newServer has so many segments ready, the first being 1/10 of a timeline.
// Their WAL hangs together; text makes it another server's.
func newServer(t *testing.T, n int, text string) *server {
	t.Helper()
	s := &server{site: newSite(t, true)}
	s.watch()
	if err := os.Mkdir(filepath.Join(s.dir, statusFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.state, err = os.OpenRoot(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.state.Close() })
	if s.folder, err = os.OpenRoot(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.folder.Close() })
	s.fill(t, n, text)
	return s
}

// watch notes what is stored.
func (s *server) watch() {
	s.store.put = func(key string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if strings.Contains(key, "/wal/") {
			s.puts = append(s.puts, strings.TrimSuffix(filepath.Base(key), ".zst.age"))
		}
		return nil
	}
}

// fill writes the server's segments anew, ready to be archived.
func (s *server) fill(t *testing.T, n int, text string) {
	t.Helper()
	s.row = nil
	name := wal.SegmentName(1, 16, segmentSize)
	prev := wal.LSN(0)
	for range n {
		var data []byte
		data, prev = chained(name, prev, text)
		s.write(t, name.String(), data)
		s.ready(t, name.String())
		s.row = append(s.row, name.String())
		name = name.Next(segmentSize)
	}
}

func (s *server) ready(t *testing.T, name string) {
	t.Helper()
	s.write(t, filepath.Join(statusFolder, name+readySuffix), nil)
}

// chained makes a segment of which a record and a switch are all the WAL, and
// returns where its last record starts. prev is where that of the segment
// before it does.
func chained(name wal.FileName, prev wal.LSN, text string) ([]byte, wal.LSN) {
	return filled(name, prev, []byte(text), nil)
}

// filled makes a segment whose WAL is these records, on one page: a NOOP with
// data, a switch where that is nil. It returns where the last one starts.
func filled(name wal.FileName, prev wal.LSN, records ...[]byte) ([]byte, wal.LSN) {
	start := name.Start(segmentSize)
	h := wal.PageHeader{
		Magic: magic15, Info: wal.LongHeader, Timeline: name.Timeline, Address: start,
		Long: true, SystemID: cluster, SegmentSize: segmentSize, BlockSize: pageSize,
	}
	page := h.AppendHeader(nil)
	for _, data := range records {
		for len(page)%8 != 0 {
			page = append(page, 0)
		}
		at := start + wal.LSN(len(page))
		info, body := byte(0x40), []byte(nil) // XLOG_SWITCH
		if data != nil {
			info, body = 0x20, append([]byte{255, byte(len(data))}, data...) // XLOG_NOOP, its main data short
		}
		header := binary.LittleEndian.AppendUint32(nil, uint32(24+len(body)))
		header = binary.LittleEndian.AppendUint32(header, 0)
		header = binary.LittleEndian.AppendUint64(header, uint64(prev))
		header = append(header, info, 0, 0, 0)
		table := crc32.MakeTable(crc32.Castagnoli)
		crc := crc32.Update(crc32.Checksum(body, table), table, header)
		page = append(binary.LittleEndian.AppendUint32(append(page, header...), crc), body...)
		prev = at
	}
	return append(page, make([]byte, segmentSize-len(page))...), prev
}

func (s *server) done() *Done { return &Done{State: s.state, Folder: s.folder} }

func (s *server) batch() *Batch {
	return &Batch{Done: s.done(), Concurrency: 3, Begin: time.Minute, End: time.Minute}
}

// call does what a call of the command does: it asks the records, and pushes
// if they don't have it. It says whether the records had it.
func (s *server) call(t *testing.T, name string) (Pushed, bool, error) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if s.done().Take(s.Info.ID, path, parse(t, name)) {
		return Pushed{}, true, nil
	}
	pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Batch: s.batch(), Log: quiet})
	return pushed, false, err
}

// records lists the names of which there are records.
func (s *server) records(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(s.folder.Name())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestBatch(t *testing.T) {
	s := newServer(t, 40, "a")
	pushed, had, err := s.call(t, s.row[0])
	if err != nil || had || pushed.Along != 39 || pushed.Name.String() != s.row[0] {
		t.Fatalf("the first call: %+v, %t, %v", pushed, had, err)
	}
	if !slices.Equal(s.puts, s.row) {
		t.Errorf("stored in the order %v", s.puts)
	}
	for _, name := range s.row[1:] {
		if _, had, err := s.call(t, name); err != nil || !had {
			t.Errorf("%s, which was taken along: %t, %v", name, had, err)
		}
	}
	if len(s.puts) != 40 || len(s.records(t)) != 0 {
		t.Errorf("%d puts, records left: %v", len(s.puts), s.records(t))
	}
	// A record serves once: who asks again is told by the repository.
	if pushed, had, err := s.call(t, s.row[7]); err != nil || had || !pushed.Already {
		t.Errorf("asked for the second time: %+v, %t, %v", pushed, had, err)
	}
	for _, name := range s.row {
		got, err := s.fetch(t, name, FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := os.ReadFile(filepath.Join(s.dir, name))
		if data, err := os.ReadFile(got); err != nil || !bytes.Equal(data, want) {
			t.Errorf("%s comes back as something else (%v)", name, err)
		}
	}
}

// What PostgreSQL hands over before a segment isn't overtaken, whatever the
// order in which the folder lists it.
func TestBatchEndsAt(t *testing.T) {
	for what, c := range map[string]struct {
		prepare func(t *testing.T, s *server)
		along   int
	}{
		"nothing":           {func(*testing.T, *server) {}, 7},
		"a gap":             {func(t *testing.T, s *server) { s.unready(t, s.row[3]) }, 2},
		"a missing segment": {func(t *testing.T, s *server) { s.remove(t, s.row[3]) }, 2},
		"a history file":    {func(t *testing.T, s *server) { s.ready(t, "00000002.history") }, 0},
		"a backup history file": {func(t *testing.T, s *server) {
			s.ready(t, s.row[2]+".00000028.backup")
		}, 2},
		"a partial segment": {func(t *testing.T, s *server) { s.ready(t, s.row[1]+".partial") }, 1},
		"another timeline": {func(t *testing.T, s *server) {
			s.ready(t, "0000000200000000000000A0")
			s.ready(t, "000000010000000000000001")
		}, 7},
		"not ready itself": {func(t *testing.T, s *server) { s.unready(t, s.row[0]) }, 0},
		"no status folder": {func(t *testing.T, s *server) {
			if err := os.RemoveAll(filepath.Join(s.dir, statusFolder)); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"other files": {func(t *testing.T, s *server) {
			s.ready(t, "notes")
			s.write(t, filepath.Join(statusFolder, s.row[1]+".done"), nil)
		}, 7},
		"another size": {func(t *testing.T, s *server) {
			s.write(t, s.row[4], segment(t, s.row[4], 2*segmentSize, cluster, 0))
		}, 3},
		"another cluster's": {func(t *testing.T, s *server) {
			s.write(t, s.row[4], segment(t, s.row[4], segmentSize, cluster+1, 0))
		}, 3},
		"damage": {func(t *testing.T, s *server) {
			data := segment(t, s.row[5], segmentSize, cluster, 0)
			data[40+17] = 99 // a resource manager that there isn't
			s.write(t, s.row[5], data)
		}, 4},
		"WAL that doesn't follow": {func(t *testing.T, s *server) { // rule 15
			data, _ := chained(parse(t, s.row[5]), parse(t, s.row[5]).Start(segmentSize)-8192, "a")
			s.write(t, s.row[5], data)
		}, 4},
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t, 8, "a")
			c.prepare(t, s)
			pushed, _, err := s.call(t, s.row[0])
			if err != nil || pushed.Along != c.along {
				t.Errorf("%+v, %v; want %d taken along", pushed, err, c.along)
			}
			if !slices.Equal(s.puts, s.row[:1+c.along]) {
				t.Errorf("stored: %v", s.puts)
			}
			if records := s.records(t); !slices.Equal(records, s.row[1:1+c.along]) && len(records)+c.along > 0 {
				t.Errorf("records: %v", records)
			}
		})
	}
}

func (s *server) unready(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.dir, statusFolder, name+readySuffix)); err != nil {
		t.Fatal(err)
	}
}

func (s *server) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Rule 15: behind a segment that isn't this server's nothing is published, and
// no call but that segment's own fails.
func TestBatchConflict(t *testing.T) {
	one := newServer(t, 6, "one")
	if _, _, err := one.call(t, one.row[0]); err != nil {
		t.Fatal(err)
	}
	other := newServer(t, 6, "other")
	other.Repository, other.store = one.Repository, one.store
	other.watch()
	if _, _, err := other.call(t, other.row[0]); !errors.Is(err, ErrConflict) {
		t.Errorf("its own segment: %v", err)
	}
	if len(other.puts) != 1 || len(other.records(t)) != 0 {
		t.Errorf("published: %v, records %v", other.puts, other.records(t))
	}
	// In the middle: the two have three segments in common.
	other.fill(t, 10, "one")
	name := parse(t, other.row[3])
	_, prev := chained(parse(t, other.row[2]), 0, "one")
	for range 7 {
		var data []byte
		data, prev = chained(name, prev, "other")
		other.write(t, name.String(), data)
		name = name.Next(segmentSize)
	}
	other.puts = nil
	pushed, _, err := other.call(t, other.row[0])
	if err != nil || !pushed.Already || pushed.Along != 2 {
		t.Errorf("a conflict with one that was taken along: %+v, %v", pushed, err)
	}
	if !slices.Equal(other.puts, other.row[:4]) || !slices.Equal(other.records(t), other.row[1:3]) {
		t.Errorf("tried: %v, records: %v", other.puts, other.records(t))
	}
	if _, _, err := other.call(t, other.row[3]); !errors.Is(err, ErrConflict) {
		t.Errorf("the one that conflicts: %v", err)
	}
}

// TestBatchFailures: whatever happens to what was taken along, the call ends
// as its own segment does; each segment is stored once in the end.
func TestBatchFailures(t *testing.T) {
	outage := errors.New("503 SlowDown")
	for at := range 6 {
		s := newServer(t, 6, "a")
		fired := false
		note := s.store.put
		s.store.put = func(key string) error {
			if !fired && strings.Contains(key, s.row[at]) {
				fired = true
				return outage
			}
			return note(key)
		}
		pushed, _, err := s.call(t, s.row[0])
		want := at - 1
		if at == 0 {
			want = 5 // its own is tried again
		}
		if err != nil || pushed.Along != want || !fired {
			t.Errorf("a failure at %d: %+v, %v", at, pushed, err)
		}
		for _, name := range s.row[1:] {
			if _, _, err := s.call(t, name); err != nil {
				t.Errorf("a failure at %d, then %s: %v", at, name, err)
			}
		}
		if !slices.Equal(s.puts, s.row) {
			t.Errorf("a failure at %d: stored %v", at, s.puts)
		}
	}
	s := newServer(t, 6, "a")
	s.store.put = func(string) error { return storage.ErrDenied }
	if _, _, err := s.call(t, s.row[0]); !errors.Is(err, ErrRefused) || len(s.records(t)) != 0 {
		t.Errorf("denied: %v, records %v", err, s.records(t))
	}
}

// Fault 3: a batch that is told to stop, stops; what it has acknowledged is
// stored, and the rest is left to later calls.
func TestBatchStopped(t *testing.T) {
	s := newServer(t, 30, "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	note := s.store.put
	s.store.put = func(key string) error {
		if strings.Contains(key, s.row[5]) {
			cancel()
		}
		return note(key)
	}
	push := func(name string) (Pushed, error) {
		return Push(ctx, s.Repository, filepath.Join(s.dir, name), PushOptions{SystemID: cluster, Batch: s.batch(), Log: quiet})
	}
	pushed, err := push(s.row[0])
	if err != nil || pushed.Along != 4 || !slices.Equal(s.records(t), s.row[1:5]) {
		t.Errorf("%+v, %v, records %v", pushed, err, s.records(t))
	}
	if _, err := push(s.row[6]); !errors.Is(err, context.Canceled) {
		t.Errorf("its own segment, stopped: %v", err)
	}
}

func TestBatchLate(t *testing.T) {
	s := newServer(t, 6, "a")
	b := s.batch()
	b.Begin = 0
	o := PushOptions{SystemID: cluster, Batch: b, Log: quiet}
	if pushed, err := Push(t.Context(), s.Repository, filepath.Join(s.dir, s.row[0]), o); err != nil || pushed.Along != 0 {
		t.Errorf("late from the start: %+v, %v", pushed, err)
	}
	b.Begin, b.End = time.Minute, 0
	if pushed, err := Push(t.Context(), s.Repository, filepath.Join(s.dir, s.row[1]), o); err != nil || pushed.Along != 0 {
		t.Errorf("no time to end: %+v, %v", pushed, err)
	}
	if !slices.Equal(s.puts, s.row[:2]) {
		t.Errorf("stored: %v", s.puts)
	}
}

// Memory, not a count alone, bounds what is in flight.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.take(6)
		took := false
		go func() {
			b.take(6)
			took = true
		}()
		b.give(1)
		synctest.Wait()
		if took {
			t.Error("more was taken than there is")
		}
		b.give(5)
		synctest.Wait()
		if !took || b.left != 4 {
			t.Errorf("taken: %t, %d left", took, b.left)
		}
	})
	for size, want := range map[uint64]bool{1 << 20: true, 16 << 20: true, 32 << 20: false, 1 << 30: false} {
		if got := 2*worst(size) <= batchMemory; got != want {
			t.Errorf("a batch of segments of %d bytes: %t", size, got)
		}
	}
}

// Several processes at once: every segment is stored once and every call
// succeeds.
func TestBatchBeside(t *testing.T) {
	s := newServer(t, 24, "a")
	var all sync.WaitGroup
	for start := range 4 {
		all.Go(func() {
			for _, name := range s.row[start*3:] {
				if _, _, err := s.call(t, name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	all.Wait()
	count := 0
	for file, err := range s.ListWAL(t.Context(), cluster, wal.FileName{}) {
		if err != nil {
			t.Fatal(err)
		}
		if file.Name.String() != s.row[count] {
			t.Errorf("stored: %s", file.Key)
		}
		count++
	}
	if count != 24 {
		t.Errorf("%d segments are stored", count)
	}
}

// Rule 17: what a standby hands over at the end of a timeline.
func TestPushIncomplete(t *testing.T) {
	s := newServer(t, 1, "a")
	name := parse(t, s.row[0])
	data, last := chained(name, 0, "a")
	at := int(last - name.Start(segmentSize))
	clear(data[at : at+24]) // without its switch the segment is incomplete
	path := s.write(t, s.row[0], data)
	pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Standby: true, Log: quiet})
	if err != nil || pushed.Name.Kind != wal.KindPartial || !strings.HasSuffix(pushed.Key, s.row[0]+".partial.zst.age") {
		t.Errorf("%+v, %v", pushed, err)
	}
	if _, err := s.fetch(t, s.row[0], FetchOptions{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("it is served as a whole segment: %v", err)
	}
	if pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Log: quiet}); err != nil || pushed.Name.Kind != wal.KindSegment {
		t.Errorf("on a primary: %+v, %v", pushed, err)
	}

	// Promoted since, the server knows that the timeline was left.
	for fork, kind := range map[wal.LSN]wal.Kind{
		name.Start(segmentSize) - 1: wal.KindSegment, last: wal.KindPartial, name.Start(segmentSize) + segmentSize: wal.KindSegment,
	} {
		s := newServer(t, 1, "a")
		path := s.write(t, s.row[0], data)
		s.write(t, "00000007.history", fmt.Appendf(nil, "1\t%s\tfork\n", fork))
		pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Log: quiet})
		if err != nil || pushed.Name.Kind != kind {
			t.Errorf("forked at %s: %+v, %v", fork, pushed, err)
		}
	}
}

// What is wrong with a segment is said once: when it is archived, and not by a
// batch that leaves it to its own push.
func TestBatchReportsOnce(t *testing.T) {
	for what, c := range map[string]struct {
		standby bool
		message string
	}{
		"damaged":    {false, "WAL is damaged"},
		"incomplete": {true, "archived as partial"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t, 4, "a")
			data, last := chained(parse(t, s.row[1]), 0, "a")
			at := int(last - parse(t, s.row[1]).Start(segmentSize))
			clear(data[at : at+24])
			s.write(t, s.row[1], data)
			for name, want := range map[string]int{s.row[0]: 0, s.row[1]: 1} {
				var log bytes.Buffer
				_, err := Push(t.Context(), s.Repository, filepath.Join(s.dir, name), PushOptions{
					SystemID: cluster, Standby: c.standby, Batch: s.batch(), AskFirst: true, Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				if n := strings.Count(log.String(), c.message); err != nil || n != want {
					t.Errorf("%s: %v; it is said %d times: %s", name, err, n, log.String())
				}
			}
		})
	}
}

// A file that is written to while it is read isn't archived as it was before,
// nor as a mixture.
func TestPushChanging(t *testing.T) {
	s := newServer(t, 1, "a")
	p := newPush(s.Repository, filepath.Join(s.dir, s.row[0]), parse(t, s.row[0]), PushOptions{SystemID: cluster, Log: quiet})
	defer p.close()
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(p.path, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	err := p.prepare(t.Context(), &packers{sealer: s.Sealer})
	if err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "changed") {
		t.Errorf("a file that changes: %v", err)
	}
}

// Fault 6: where nothing can be remembered, segments are archived all the same.
func TestBatchWithoutRecords(t *testing.T) {
	s := newServer(t, 5, "a")
	if err := s.folder.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.row {
		if _, had, err := s.call(t, name); err != nil || had {
			t.Errorf("%s: %t, %v", name, had, err)
		}
	}
	if stored := slices.Compact(slices.Sorted(slices.Values(s.puts))); !slices.Equal(stored, s.row) {
		t.Errorf("stored: %v", stored)
	}
}
