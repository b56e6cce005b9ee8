package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

const (
	cluster     = 7431000000000000001
	segmentSize = 1 << 20
	pageSize    = 8192
	magic15     = 0xD110
)

var quiet = slog.New(slog.DiscardHandler)

// site is a repository and a folder to push from and fetch into.
type site struct {
	*repo.Repository
	store *scripted
	dir   string
}

// scripted is a storage in memory that fails when it is told to.
type scripted struct {
	*mem.Store
	put, get func(key string) error // called first; nil for no fault
	gets     int
	counting sync.Mutex
}

func (s *scripted) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if s.put != nil {
		if err := s.put(key); err != nil {
			return storage.Info{}, err
		}
	}
	return s.Store.Put(ctx, key, body)
}

func (s *scripted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	s.counting.Lock()
	s.gets++
	s.counting.Unlock()
	if s.get != nil {
		if err := s.get(key); err != nil {
			return nil, storage.Info{}, err
		}
	}
	return s.Store.Get(ctx, key, offset, length)
}

func newSite(t *testing.T, encrypted bool) *site {
	t.Helper()
	s := &site{store: &scripted{Store: mem.New()}, dir: t.TempDir()}
	keys := repo.Keys{}
	if encrypted {
		secret, recipient, err := crypto.NewIdentity(false)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.dir, "identity")
		if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys.Identities, err = crypto.LoadIdentities([]string{path}, nil); err != nil {
			t.Fatal(err)
		}
		if keys.Recipients, err = crypto.ParseRecipients([]string{recipient}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	keys.Level, err = compress.ParseLevel("fastest")
	if err != nil {
		t.Fatal(err)
	}
	s.Repository, err = repo.New(s.store, newInfo(encrypted), keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newInfo is a new repository's, without a probe of the storage, which would
// take longer than most tests.
func newInfo(encrypted bool) repo.Info {
	var id [16]byte
	rand.Read(id[:])
	info := repo.Info{Format: repo.Format, ID: hex.EncodeToString(id[:]), Encryption: "none"}
	if encrypted {
		info.Encryption = "age"
	}
	return info
}

// segment makes the pages of a segment, each with a valid header and filled
// with fill.
func segment(t *testing.T, name string, size int, systemID uint64, fill byte) []byte {
	t.Helper()
	n := parse(t, name)
	data := bytes.Repeat([]byte{fill}, size)
	for offset := 0; offset < size; offset += pageSize {
		h := wal.PageHeader{Magic: magic15, Timeline: n.Timeline, Address: n.Start(uint64(size)) + wal.LSN(offset)}
		if offset == 0 {
			h.Long, h.Info, h.SystemID, h.SegmentSize, h.BlockSize = true, 2, systemID, uint32(size), pageSize
		}
		copy(data[offset:], h.AppendHeader(nil))
	}
	return data
}

func parse(t *testing.T, name string) wal.FileName {
	t.Helper()
	n, err := wal.ParseFileName(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// write puts a file into the site's folder and returns its path.
func (s *site) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *site) push(t *testing.T, path string) (Pushed, error) {
	t.Helper()
	return Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Log: quiet})
}

func (s *site) fetch(t *testing.T, name string, o FetchOptions) (string, error) {
	t.Helper()
	o.SystemID, o.Log = cluster, quiet
	path := filepath.Join(s.dir, "RECOVERYXLOG")
	open := func(context.Context) (*repo.Repository, error) { return s.Repository, nil }
	return path, Fetch(t.Context(), open, parse(t, name), path, o)
}

const first, second = "000000010000000000000001", "000000010000000000000002"

func TestPushAndFetch(t *testing.T) {
	history := "1\t0/3000000\tno recovery target specified\n"
	backup := "START WAL LOCATION: 0/2000028 (file " + second + ")\n"
	for _, encrypted := range []bool{false, true} {
		s := newSite(t, encrypted)
		files := map[string][]byte{
			first:                       segment(t, first, segmentSize, cluster, 'a'),
			second + ".partial":         segment(t, second, segmentSize, cluster, 'b'),
			"00000002.history":          []byte(history),
			second + ".00000028.backup": []byte(backup),
			"000000010000000000000003":  segment(t, "000000010000000000000003", 16<<20, cluster, 0),
		}
		if encrypted {
			large := "000000010000000100000000" // read twice
			files[large] = segment(t, large, 128<<20, cluster, 'c')
		}
		for name, data := range files {
			path := s.write(t, name, data)
			if done, err := s.push(t, path); err != nil || done.Already || done.PlainSize != int64(len(data)) {
				t.Fatalf("push %s: %+v, %v", name, done, err)
			}
			if done, err := s.push(t, path); err != nil || !done.Already {
				t.Errorf("push %s once more: %+v, %v", name, done, err)
			}
			got, err := s.fetch(t, name, FetchOptions{})
			if err != nil {
				t.Fatalf("fetch %s: %v", name, err)
			}
			if content, err := os.ReadFile(got); err != nil || !bytes.Equal(content, data) {
				t.Errorf("fetched %s has other content (%v)", name, err)
			}
		}
		if _, err := s.fetch(t, second, FetchOptions{}); !errors.Is(err, ErrAbsent) {
			t.Errorf("a partial segment was served for the whole one, or not absent: %v", err)
		}
	}
}

func TestPushRefuses(t *testing.T) { // fault 29
	s := newSite(t, false)
	good := segment(t, first, segmentSize, cluster, 'a')
	later := segment(t, "000000020000000000000001", segmentSize, cluster, 'a')
	cases := map[string]string{
		"another cluster": s.write(t, first, segment(t, first, segmentSize, cluster+1, 'a')),
		"another address": s.write(t, second, good),
		"cut":             s.write(t, "000000010000000000000003", good[:segmentSize/2]),
		"empty":           s.write(t, "000000010000000000000004", nil),
		"newer timeline":  s.write(t, "00000001000000000000000F", append(later[:0:0], later...)),
		"no name of WAL":  s.write(t, "notes.txt", good),
		"bad history":     s.write(t, "00000002.history", []byte("1 here there\n")),
		"a folder":        s.dir,
		"missing":         filepath.Join(s.dir, "000000010000000000000009"),
		"large history":   s.write(t, "00000003.history", make([]byte, repo.MaxHistory+1)),
	}
	for name, path := range cases {
		if _, err := s.push(t, path); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: push gave %v", name, err)
		}
	}
	for file, err := range s.ListWAL(t.Context(), cluster, wal.FileName{}) {
		t.Errorf("a refused push stored %s (%v)", file.Key, err)
	}
}

func TestPushConflict(t *testing.T) { // faults 25 and 26
	s := newSite(t, true)
	for name, contents := range map[string][2][]byte{
		first:              {segment(t, first, segmentSize, cluster, 'a'), segment(t, first, segmentSize, cluster, 'b')},
		"00000002.history": {[]byte("1\t0/3000000\tone\n"), []byte("1\t0/4000000\tother\n")},
	} {
		if _, err := s.push(t, s.write(t, name, contents[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := s.push(t, s.write(t, name, contents[1])); !errors.Is(err, ErrConflict) {
			t.Errorf("push of another %s gave %v", name, err)
		}
		path, err := s.fetch(t, name, FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, contents[0]) {
			t.Errorf("after a conflict %s isn't what was pushed first (%v)", name, err)
		}
	}
}

func TestPushLostResponse(t *testing.T) { // fault 15
	s := newSite(t, true)
	path := s.write(t, first, segment(t, first, segmentSize, cluster, 'a'))
	lost := 0
	s.store.put = func(key string) error {
		s.store.put = func(string) error { return nil }
		lost++
		if _, err := s.push(t, path); err != nil { // it went through …
			t.Fatal(err)
		}
		return errors.New("connection reset") // … and the answer was lost
	}
	if done, err := s.push(t, path); err != nil || !done.Already || lost != 1 {
		t.Errorf("push after a lost response: %+v, %v (%d lost)", done, err, lost)
	}
}

func TestPushDeniedAndOutage(t *testing.T) { // faults 11 and 17
	s := newSite(t, true)
	path := s.write(t, first, segment(t, first, segmentSize, cluster, 'a'))
	for _, cause := range []error{storage.ErrDenied, storage.ErrNoStore} {
		s.store.put = func(string) error { return cause }
		if _, err := s.push(t, path); !errors.Is(err, ErrRefused) || !errors.Is(err, cause) {
			t.Errorf("push with %v gave %v", cause, err)
		}
	}
	outage := errors.New("503 SlowDown")
	tries := 0
	s.store.put = func(string) error { tries++; return outage }
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := Push(ctx, s.Repository, path, PushOptions{SystemID: cluster, Log: quiet})
	if !errors.Is(err, outage) || errors.Is(err, ErrRefused) || tries < 2 {
		t.Errorf("push in an outage gave %v after %d tries", err, tries)
	}
}

func TestPushWithoutRecipients(t *testing.T) { // fault 56
	s := newSite(t, true)
	s.Sealer = nil
	_, err := s.push(t, s.write(t, first, segment(t, first, segmentSize, cluster, 'a')))
	if !errors.Is(err, ErrRefused) || !errors.Is(err, repo.ErrNoRecipients) {
		t.Errorf("push without recipients gave %v", err)
	}
}

func TestFetchDamaged(t *testing.T) { // faults 14 and 52
	s := newSite(t, true)
	for _, name := range []string{first, second} {
		if _, err := s.push(t, s.write(t, name, segment(t, name, segmentSize, cluster, 'a'))); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(name string) []byte {
		body, _, err := s.store.Store.Get(t.Context(), s.FileKey(cluster, parse(t, name)), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	flipped := stored(first)
	flipped[len(flipped)-100] ^= 1
	for what, data := range map[string][]byte{
		"flipped": flipped, "cut": stored(first)[:1200], "swapped": stored(second), "empty": nil,
	} {
		key := s.FileKey(cluster, parse(t, first))
		if err := s.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		s.store.gets = 0
		for _, standby := range []bool{false, true} {
			path, err := s.fetch(t, first, FetchOptions{Standby: standby})
			if !errors.Is(err, object.ErrCorrupt) || errors.Is(err, ErrAbsent) {
				t.Errorf("%s: fetch gave %v", what, err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: something is at the destination (%v)", what, err)
			}
		}
		if s.store.gets != 4 {
			t.Errorf("%s: it was read %d times in two fetches, not twice in each", what, s.store.gets)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Name(), ".tmp") {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
}

func TestFetchStandby(t *testing.T) { // rule 16
	s := newSite(t, false)
	const child, parent = "000000020000000000000001", first
	if _, err := s.push(t, s.write(t, parent, segment(t, parent, segmentSize, cluster, 'a'))); err != nil {
		t.Fatal(err)
	}
	state, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	run := FetchOptions{Standby: true, Unknown: &UnknownRecord{State: state, Run: "1"}}
	denied := func(string) error { return storage.ErrDenied }

	s.store.get = denied
	if _, err := s.fetch(t, child, run); !errors.Is(err, ErrAbsent) {
		t.Errorf("a standby's outage: %v", err)
	}
	s.store.get = nil
	if _, err := s.fetch(t, parent, run); !errors.Is(err, ErrAbsent) {
		t.Errorf("the parent's segment was served while the child's answer is unknown: %v", err)
	}
	other := FetchOptions{Standby: true, Unknown: &UnknownRecord{State: state, Run: "2"}}
	if _, err := s.fetch(t, parent, other); err != nil {
		t.Errorf("another run is held back: %v", err)
	}
	s.store.get = denied
	if _, err := s.fetch(t, child, run); !errors.Is(err, ErrAbsent) {
		t.Errorf("a standby's outage: %v", err)
	}
	s.store.get = nil
	if _, err := s.fetch(t, child, run); !errors.Is(err, ErrAbsent) { // now with authority
		t.Errorf("the child's segment: %v", err)
	}
	if _, err := s.fetch(t, parent, run); err != nil {
		t.Errorf("the parent's segment, the child's being absent: %v", err)
	}
	s.store.get = denied
	if _, err := s.fetch(t, child, FetchOptions{Standby: true}); errors.Is(err, ErrAbsent) {
		t.Errorf("without a state folder the child's unknown answer was given as absent")
	}
	if _, err := s.fetch(t, "00000003.history", run); errors.Is(err, ErrAbsent) {
		t.Errorf("a history file's unknown answer was given as absent")
	}
	if _, err := s.fetch(t, first, FetchOptions{}); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("in archive recovery an unknown answer was given as %v", err)
	}
}

func TestMissing(t *testing.T) {
	s := newSite(t, false)
	for _, name := range []string{first, "000000010000000000000003", "000000020000000000000004", "000000010000000000000004.partial"} {
		data := segment(t, strings.TrimSuffix(name, ".partial"), segmentSize, cluster, 'a')
		if _, err := s.push(t, s.write(t, name, data)); err != nil {
			t.Fatal(err)
		}
	}
	history := wal.History{Timeline: 2, Entries: []wal.HistoryEntry{{Timeline: 1, Switch: 4*segmentSize + 100}}}
	for _, c := range []struct {
		from, to wal.LSN
		want     string
	}{
		{segmentSize, segmentSize, ""},
		{segmentSize, 2 * segmentSize, ""}, // the byte at to isn't needed
		{segmentSize, 2*segmentSize + 1, second},
		{segmentSize + 40, 5 * segmentSize, second},
		{3 * segmentSize, 6 * segmentSize, "000000020000000000000005"},
		{2 * segmentSize, 7 * segmentSize, second + " 000000020000000000000005 000000020000000000000006"},
	} {
		missing, err := Missing(t.Context(), s.Repository, cluster, history, c.from, c.to, segmentSize)
		var names []string
		for _, name := range missing {
			names = append(names, name.String())
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("from %s to %s: missing %q, %v; want %q", c.from, c.to, got, err, c.want)
		}
	}
}

func TestRanges(t *testing.T) {
	s := newSite(t, true)
	for _, name := range []string{
		first, second, "000000010000000000000004", "0000000100000000000000FF", "000000010000000100000000",
		"000000020000000100000000", "000000020000000100000001.partial",
	} {
		segment := segment(t, strings.TrimSuffix(name, ".partial"), 16<<20, cluster, 0)
		if _, err := s.push(t, s.write(t, name, segment)); err != nil {
			t.Fatal(err)
		}
	}
	s.Opener.Identities = nil // a listing needs none
	ranges, err := Ranges(t.Context(), s.Repository, cluster, wal.FileName{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range ranges {
		got = append(got, r.First.String()+"-"+r.Last.String())
		if r.SegmentSize != 16<<20 || r.StoredSize <= 0 || uint64(r.End()-r.Start()) != r.Segments<<24 {
			t.Errorf("range %+v, from %s to %s", r, r.Start(), r.End())
		}
	}
	want := []string{
		first + "-" + second,
		"000000010000000000000004-000000010000000000000004",
		"0000000100000000000000FF-000000010000000100000000",
		"000000020000000100000000-000000020000000100000000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("ranges %v, want %v", got, want)
	}
	// Headers that are corrupt take nothing from the list, unless all are.
	for i, names := range [][]string{{first, "000000010000000000000004"}, {second, "0000000100000000000000FF", "000000010000000100000000", "000000020000000100000000"}} {
		for _, name := range names {
			s.damageHeader(t, name)
		}
		again, err := Ranges(t.Context(), s.Repository, cluster, wal.FileName{})
		if i == 0 && (err != nil || !slices.Equal(again, ranges)) || i == 1 && !errors.Is(err, object.ErrCorrupt) {
			t.Errorf("with corrupt headers: %v, %v; want %v", again, err, ranges)
		}
	}
}

// damageHeader changes the beginning of an archived segment.
func (s *site) damageHeader(t *testing.T, name string) {
	t.Helper()
	file, err := wal.ParseFileName(name)
	if err != nil {
		t.Fatal(err)
	}
	key := s.FileKey(cluster, file)
	body, _, err := s.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	stored[0] ^= 1
	if err := s.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Put(t.Context(), key, bytes.NewReader(stored)); err != nil {
		t.Fatal(err)
	}
}

// TestPushDamaged: a segment whose WAL ends before it does is archived and
// reported, or refused where that was asked for; a partial one is neither.
func TestPushDamaged(t *testing.T) { // fault 30, rule 19
	s := newSite(t, false)
	push := func(name string, strict bool) (string, error) {
		var log bytes.Buffer
		path := s.write(t, name, segment(t, strings.TrimSuffix(name, ".partial"), segmentSize, cluster, 'a'))
		_, err := Push(t.Context(), s.Repository, path, PushOptions{
			SystemID: cluster, Strict: strict, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		return log.String(), err
	}
	if _, err := push(first, true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "damaged at") {
		t.Errorf("strict: %v", err)
	}
	if log, err := push(first, false); err != nil || !strings.Contains(log, "level=ERROR") || !strings.Contains(log, first) {
		t.Errorf("not strict: %v, the log is %q", err, log)
	}
	if log, err := push(second+".partial", true); err != nil || strings.Contains(log, "ERROR") {
		t.Errorf("partial: %v, the log is %q", err, log)
	}
}
