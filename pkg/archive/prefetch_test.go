package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// counted is a storage that counts what is read, and fails when it is told to.
type counted struct {
	storage.Store
	mu   sync.Mutex
	gets map[string]int
	get  func(ctx context.Context, name string) error // called first; nil for no fault
}

func (c *counted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	name, _, _ := strings.Cut(key[strings.LastIndexByte(key, '/')+1:], ".")
	c.mu.Lock()
	c.gets[name]++
	get := c.get
	c.mu.Unlock()
	if get != nil {
		if err := get(ctx, name); err != nil {
			return nil, storage.Info{}, err
		}
	}
	return c.Store.Get(ctx, key, offset, length)
}

func (c *counted) fault(get func(ctx context.Context, name string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.get = get
}

func (c *counted) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets[name]
}

// recovery is a server in recovery, with a folder for WAL and one for state.
type recovery struct {
	*site
	storage  *counted
	state    *os.Root
	key      string
	over     atomic.Bool
	patience time.Duration // of a fetch
	started  atomic.Int32
	ended    chan error // of each process that fetched ahead
	running  sync.WaitGroup
	log      lockedBuffer
}

// lockedBuffer is what several processes print.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newRecovery makes a site with n segments of timeline 1 and a recovery.
func newRecovery(t *testing.T, n int) *recovery {
	t.Helper()
	r := &recovery{site: newSite(t, true), key: "run-1", patience: 10 * time.Second, ended: make(chan error, 100)}
	for i := range n {
		r.archive(t, numbered(1, i+1), byte('a'+i))
	}
	r.storage = &counted{Store: r.store.Store, gets: map[string]int{}}
	r.Repository.Store = r.storage
	r.dir = t.TempDir()
	state := t.TempDir()
	var err error
	if r.state, err = os.OpenRoot(state); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.over.Store(true)
		r.running.Wait()
		_ = r.state.Close()
		for _, dir := range []string{r.dir, filepath.Join(state, prefetchFolder)} {
			entries, err := os.ReadDir(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			for _, entry := range entries {
				if durable.IsTemporary(entry.Name()) || entry.Name() == "socket" {
					t.Errorf("%s is left in %s", entry.Name(), dir)
				}
			}
		}
	})
	return r
}

func numbered(tli wal.TimelineID, n int) string {
	return wal.SegmentName(tli, uint64(n), segmentSize).String()
}

func (r *recovery) archive(t *testing.T, name string, fill byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, segment(t, name, segmentSize, cluster, fill), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.push(t, path); err != nil {
		t.Fatal(err)
	}
}

// prefetch runs Prefetch as the process that Ahead starts.
func (r *recovery) prefetch(last wal.FileName) {
	r.started.Add(1)
	r.running.Go(func() {
		r.ended <- Prefetch(context.Background(), r.open, r.options(last))
	})
}

func (r *recovery) options(last wal.FileName) PrefetchOptions {
	return PrefetchOptions{
		Last:     last,
		SystemID: cluster, SegmentSize: segmentSize, Segments: 4, Workers: 2,
		State: r.state, Key: r.key, Folder: r.dir, Over: r.over.Load, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
	}
}

func (r *recovery) open(context.Context) (*repo.Repository, error) { return r.Repository, nil }

func (r *recovery) ahead(t *testing.T) *Ahead {
	return &Ahead{
		State: r.state, Key: r.key, SegmentSize: segmentSize, Log: quiet,
		Start: func(last wal.FileName) error {
			r.prefetch(last)
			r.listening(t)
			return nil
		},
	}
}

// listening waits until a process that fetches ahead answers.
func (r *recovery) listening(t *testing.T) {
	t.Helper()
	until(t, "somebody to fetch ahead", func() bool {
		conn, err := dialState(t.Context(), r.state)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// ask fetches a segment as PostgreSQL does.
func (r *recovery) ask(t *testing.T, name string, o FetchOptions) ([]byte, error) {
	t.Helper()
	path := filepath.Join(r.dir, RecoveryFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), r.patience)
	defer cancel()
	o.SystemID, o.Ahead, o.Log = cluster, r.ahead(t), quiet
	if err := Fetch(ctx, r.open, parse(t, name), path, o); err != nil {
		if _, statErr := os.Lstat(path); statErr == nil {
			t.Errorf("%s: %v, and there is a file", name, err)
		}
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, nil
}

// gets is ask for a segment that must be there, with its content.
func (r *recovery) gets(t *testing.T, name string, fill byte) {
	t.Helper()
	data, err := r.ask(t, name, FetchOptions{})
	if err != nil {
		t.Fatalf("fetch %s: %v", name, err)
	}
	if !bytes.Equal(data, segment(t, name, segmentSize, cluster, fill)) {
		t.Fatalf("%s has other content", name)
	}
}

// end waits for the end of a process that fetched ahead.
func (r *recovery) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("fetching ahead doesn't end")
		return nil
	}
}

func TestPrefetch(t *testing.T) {
	const n = 12
	r := newRecovery(t, n)
	for i := range n {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if _, err := r.ask(t, numbered(1, n+1), FetchOptions{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("behind the end: %v", err)
	}
	if err := r.end(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if r.started.Load() != 1 {
		t.Errorf("%d processes were started", r.started.Load())
	}
	for i := range n {
		if got := r.storage.count(numbered(1, i+1)); got != 1 {
			t.Errorf("%s was read %d times", numbered(1, i+1), got)
		}
	}
	for i := range 2 {
		if got := r.storage.count(numbered(1, n+1+i)); got > 2 {
			t.Errorf("%s, which isn't there, was asked for %d times", numbered(1, n+1+i), got)
		}
	}
}

// A standby at the end of the archive asks for what isn't there yet, again and
// again: nothing is fetched ahead of it, and nothing asked for twice.
func TestPrefetchOffForMisses(t *testing.T) {
	r := newRecovery(t, 1)
	for i := range 6 {
		next := numbered(1, i+2)
		r.gets(t, numbered(1, i+1), byte('a'+i))
		if _, err := r.ask(t, next, FetchOptions{Standby: true}); !errors.Is(err, ErrAbsent) {
			t.Fatalf("%s: %v", next, err)
		}
		r.archive(t, next, byte('a'+i+1))
	}
	if r.started.Load() > 0 {
		t.Error("segments were fetched ahead")
	}
	for i := range 6 {
		if got := r.storage.count(numbered(1, i+2)); got > 2 { // a miss and a hit
			t.Errorf("%s was asked for %d times", numbered(1, i+2), got)
		}
	}
}

// What was absent ahead is there once it is asked for (fault 5).
func TestPrefetchForgetsAbsence(t *testing.T) {
	r := newRecovery(t, 4)
	for i := range 4 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	until(t, "a look behind the end", func() bool { return r.storage.count(numbered(1, 5)) > 0 })
	for i := 4; i < 10; i++ {
		r.archive(t, numbered(1, i+1), byte('a'+i))
	}
	for i := 4; i < 10; i++ {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if r.started.Load() != 1 {
		t.Errorf("%d processes were started", r.started.Load())
	}
	if got := r.storage.count(numbered(1, 10)); got != 1 {
		t.Errorf("the last segment was read %d times", got)
	}
}

func TestPrefetchTimelines(t *testing.T) { // rule 14
	r := newRecovery(t, 8)
	for i := range 6 {
		r.archive(t, numbered(2, i+5), byte('A'+i))
	}
	for i := range 4 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	until(t, "the parent's segment", func() bool { return r.storage.count(numbered(1, 5)) > 0 })
	for i := range 6 { // the child's are asked for first, and are there
		r.gets(t, numbered(2, i+5), byte('A'+i))
	}
	for i := range 6 {
		if got := r.storage.count(numbered(2, i+5)); got != 1 {
			t.Errorf("%s was read %d times", numbered(2, i+5), got)
		}
	}
	// A child that isn't there doesn't keep its parent from being given out.
	r.gets(t, numbered(1, 5), 'e')
	r.gets(t, numbered(1, 6), 'f')
	if _, err := r.ask(t, numbered(3, 7), FetchOptions{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("a timeline that isn't there: %v", err)
	}
	r.gets(t, numbered(1, 7), 'g')
}

// Rule 16: what is there already isn't given out while a child's answer is
// unknown.
func TestPrefetchHeldBack(t *testing.T) {
	r := newRecovery(t, 6)
	standby := FetchOptions{Standby: true, Unknown: &UnknownRecord{State: r.state, Run: r.key}}
	for i := range 3 {
		if _, err := r.ask(t, numbered(1, i+1), standby); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the parent's segment", func() bool { return r.storage.count(numbered(1, 4)) > 0 })
	r.storage.fault(func(_ context.Context, name string) error {
		if strings.HasPrefix(name, "00000002") {
			return storage.ErrDenied
		}
		return nil
	})
	if _, err := r.ask(t, numbered(2, 4), standby); !errors.Is(err, ErrAbsent) {
		t.Errorf("the child's segment in an outage: %v", err)
	}
	if _, err := r.ask(t, numbered(1, 4), standby); !errors.Is(err, ErrAbsent) {
		t.Errorf("the parent's segment was given out: %v", err)
	}
	r.storage.fault(nil)
	if _, err := r.ask(t, numbered(2, 4), standby); !errors.Is(err, ErrAbsent) {
		t.Errorf("the child's segment: %v", err)
	}
	if _, err := r.ask(t, numbered(1, 4), standby); err != nil {
		t.Errorf("the parent's segment: %v", err)
	}
}

// A recovery that starts over from an earlier segment is followed.
func TestPrefetchFollows(t *testing.T) {
	r := newRecovery(t, 12)
	for _, from := range []int{5, 1, 1} {
		for i := from; i <= 8; i++ {
			r.gets(t, numbered(1, i), byte('a'+i-1))
		}
	}
	if r.started.Load() != 1 {
		t.Errorf("%d processes were started", r.started.Load())
	}
	most := map[int]int{1: 2, 4: 2, 5: 3, 8: 3}
	for i, most := range most {
		if got := r.storage.count(numbered(1, i)); got > most {
			t.Errorf("%s was read %d times", numbered(1, i), got)
		}
	}
}

func TestPrefetchDamaged(t *testing.T) { // fault 14
	r := newRecovery(t, 8)
	bad := numbered(1, 5)
	key := r.FileKey(cluster, parse(t, bad))
	body, _, err := r.store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	good, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		t.Helper()
		if err := r.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Store.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-100] ^= 1
	put(flipped)
	for i := range 4 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	for range 2 {
		if _, err := r.ask(t, bad, FetchOptions{}); !errors.Is(err, object.ErrCorrupt) || errors.Is(err, ErrAbsent) {
			t.Errorf("a damaged object: %v", err)
		}
	}
	put(good)
	for i := 4; i < 8; i++ {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
}

// In an outage the prefetcher stands still, and a fetch keeps its contract.
func TestPrefetchOutage(t *testing.T) {
	r := newRecovery(t, 12)
	for i := range 4 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	var asked atomic.Int32
	r.patience = 2 * time.Second
	r.storage.fault(func(context.Context, string) error {
		asked.Add(1)
		return errors.New("503 SlowDown")
	})
	got := 4
	for ; got < 12; got++ { // what was fetched before is given out
		if _, err := r.ask(t, numbered(1, got+1), FetchOptions{}); errors.Is(err, ErrAbsent) {
			t.Fatal("an outage was given as absent")
		} else if err != nil {
			break
		}
	}
	if got > 9 {
		t.Errorf("%d segments were had in an outage", got-4)
	}
	if most := int32(15); asked.Load() > most {
		t.Errorf("the storage was asked %d times in its outage", asked.Load())
	}
	r.storage.fault(nil)
	for ; got < 12; got++ {
		r.gets(t, numbered(1, got+1), byte('a'+got))
	}
	if got := r.storage.count(numbered(1, 12)); got != 1 {
		t.Errorf("the last segment was read %d times", got)
	}
}

// A segment that makes no progress is fetched by the call itself.
func TestPrefetchStalls(t *testing.T) {
	r := newRecovery(t, 6)
	var stalled atomic.Bool
	r.storage.fault(func(ctx context.Context, name string) error {
		if name != numbered(1, 4) || stalled.Swap(true) {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	for i := range 6 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if got := r.storage.count(numbered(1, 4)); got != 2 {
		t.Errorf("the segment was read %d times", got)
	}
}

// Fetching ahead ends with the server, whatever the storage is doing: even if it
// notices nothing, as a directory does whose file server is silent.
func TestPrefetchEndsInSilence(t *testing.T) {
	for _, what := range []string{"open", "get"} {
		t.Run(what, func(t *testing.T) {
			r := newRecovery(t, 3)
			asked, release := make(chan struct{}, 10), make(chan struct{})
			defer close(release)
			silent := func() {
				asked <- struct{}{}
				<-release
			}
			open := r.open
			if what == "open" {
				open = func(ctx context.Context) (*repo.Repository, error) {
					silent()
					return r.open(ctx)
				}
			}
			r.storage.fault(func(context.Context, string) error {
				silent()
				return nil
			})
			r.running.Go(func() { r.ended <- Prefetch(t.Context(), open, r.options(parse(t, numbered(1, 1)))) })
			<-asked
			r.over.Store(true)
			if err := r.end(t); err != nil {
				t.Error(err)
			}
			if log := r.log.String(); !strings.Contains(log, "the recovery run is over") {
				t.Errorf("it didn't end with the server: %s", log)
			}
		})
	}
}

// What belongs to another recovery run, or was configured otherwise, isn't
// given out; the process that has it makes room.
func TestPrefetchOtherRun(t *testing.T) { // fault 5
	r := newRecovery(t, 8)
	for i := range 3 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	r.key = "run-2"
	r.gets(t, numbered(1, 4), 'd')
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	for i := 4; i < 8; i++ {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if r.started.Load() != 2 {
		t.Errorf("%d processes were started", r.started.Load())
	}
}

func TestPrefetchOnce(t *testing.T) {
	r := newRecovery(t, 2)
	r.prefetch(parse(t, numbered(1, 1)))
	r.listening(t)
	r.prefetch(parse(t, numbered(1, 1)))
	if err := r.end(t); err != nil {
		t.Errorf("the second process: %v", err)
	}
	r.over.Store(true)
	if err := r.end(t); err != nil {
		t.Errorf("the first process: %v", err)
	}
}

// A process that was killed leaves its socket, which is in nobody's way.
func TestPrefetchKilled(t *testing.T) {
	r := newRecovery(t, 6)
	if err := makePrefetchFolder(r.state); err != nil {
		t.Fatal(err)
	}
	listener, err := listenState(r.state)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil { // the socket stays
		t.Fatal(err)
	}
	for i := range 6 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if r.started.Load() != 1 {
		t.Errorf("%d processes were started", r.started.Load())
	}
}

// Whatever answers at the socket, a fetch delivers the right file or none.
func TestPrefetchHostileAnswers(t *testing.T) {
	r := newRecovery(t, 2)
	if err := makePrefetchFolder(r.state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, ".walship-~SHORT.tmp"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := listenState(r.state)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.state.Remove(prefetchSocket) }()
	defer func() { _ = os.Remove(filepath.Join(r.dir, ".walship-~SHORT.tmp")) }()
	for _, answer := range []string{
		"", "\n", "take\n", "take ../../etc/passwd\n", "take .walship-~GONE.tmp\n", "take .walship-~SHORT.tmp\n",
		"none more\n", "wait\nwait\n", strings.Repeat("x", 100_000), "none\n",
	} {
		r.running.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprint(conn, answer) // the asker may be gone
		})
		r.gets(t, numbered(1, 1), 'a')
		r.running.Wait()
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPrefetchHostileQuestions(t *testing.T) {
	r := newRecovery(t, 4)
	r.prefetch(parse(t, numbered(1, 1)))
	r.listening(t)
	for _, question := range []string{"\n", "x", r.key + " 00000002.history\n", strings.Repeat("x", 100_000), ""} {
		conn, err := dialState(t.Context(), r.state)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprint(conn, question) // it may have hung up
		if question == "" || question == "x" {
			_ = conn.Close()
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() || len(answer) > 0 {
			t.Errorf("question %.20q: answer %q, %v", question, answer, err)
		}
		_ = conn.Close()
	}
	for i := range 4 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if len(r.ended) > 0 {
		t.Errorf("it has ended: %v", <-r.ended)
	}
}

// Segments of another size than the server's are for the call itself.
func TestPrefetchOtherSize(t *testing.T) {
	r := newRecovery(t, 3)
	odd := numbered(1, 4)
	path := filepath.Join(t.TempDir(), odd)
	if err := os.WriteFile(path, segment(t, odd, 2*segmentSize, cluster, 'x'), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.push(t, path); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.gets(t, numbered(1, i+1), byte('a'+i))
	}
	if data, err := r.ask(t, odd, FetchOptions{}); err != nil || len(data) != 2*segmentSize {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}
