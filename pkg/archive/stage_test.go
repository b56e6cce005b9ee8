package archive

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/file"
)

// directory is a storage.Stager that notes what it is asked for.
type directory struct {
	*file.Store
	mu             sync.Mutex
	staged         chan string // the names of what was staged; nil: nobody reads
	published      []string    // or tried to
	stage, publish func(name string) error
	put            func(ctx context.Context) error // before an object is stored in one step
	held           atomic.Int64                    // what is staged, and neither published nor discarded
}

func (d *directory) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if d.put != nil {
		if err := d.put(ctx); err != nil {
			return storage.Info{}, err
		}
	}
	return d.Store.Put(ctx, key, body)
}

func (d *directory) Stage(ctx context.Context, key string, body io.Reader) (storage.Staged, error) {
	name := strings.TrimSuffix(filepath.Base(key), ".zst.age")
	if d.stage != nil {
		if err := d.stage(name); err != nil {
			return nil, err
		}
	}
	staged, err := d.Store.Stage(ctx, key, body)
	if err != nil {
		return nil, err
	}
	d.held.Add(1)
	if d.staged != nil {
		d.staged <- name
	}
	return &stagedFile{Staged: staged, in: d, name: name}, nil
}

type stagedFile struct {
	storage.Staged
	in   *directory
	name string
	gone sync.Once
}

func (s *stagedFile) Publish(ctx context.Context) (storage.Info, error) {
	s.in.mu.Lock()
	s.in.published = append(s.in.published, s.name)
	s.in.mu.Unlock()
	if s.in.publish != nil {
		if err := s.in.publish(s.name); err != nil {
			return storage.Info{}, err
		}
	}
	return s.Staged.Publish(ctx)
}

func (s *stagedFile) Discard() {
	s.gone.Do(func() { s.in.held.Add(-1) })
	s.Staged.Discard()
}

// inDirectory has the server archive into a directory.
func (s *server) inDirectory(t *testing.T) *directory {
	t.Helper()
	store, err := file.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{Store: store}
	repository := *s.Repository
	repository.Store = d
	s.Repository = &repository
	return d
}

// leftovers counts the temporary files.
func (d *directory) leftovers(t *testing.T) int {
	t.Helper()
	n, err := d.Sweep(t.Context(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What waits is ready in the directory before its predecessor is there, and
// isn't visible.
func TestBatchStages(t *testing.T) {
	s := newServer(t, 12, "a")
	d := s.inDirectory(t)
	d.staged = make(chan string, len(s.row))
	d.put = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		select {
		case <-d.staged:
		case <-ctx.Done():
			t.Error("nothing was staged while the first segment wasn't stored")
		}
		for info, err := range d.List(ctx, "", "") {
			t.Errorf("visible before the first segment is: %s, %v", info.Key, err)
		}
		return nil
	}
	pushed, _, err := s.call(t, s.row[0])
	if err != nil || pushed.Along != 11 || !slices.Equal(s.records(t), s.row[1:]) {
		t.Errorf("%+v, %v, records %v", pushed, err, s.records(t))
	}
	if !slices.Equal(d.published, s.row[1:]) {
		t.Errorf("published in the order %v", d.published)
	}
	if n := d.leftovers(t); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
	if _, err := s.fetch(t, s.row[7], FetchOptions{}); err != nil {
		t.Error(err)
	}
}

// Fault 6: where what is staged took the room of the push's own segment, it goes.
func TestBatchMakesRoom(t *testing.T) {
	s := newServer(t, 12, "a")
	d := s.inDirectory(t)
	d.staged = make(chan string, len(s.row))
	tries := 0
	d.put = func(context.Context) error {
		if tries++; tries == 1 {
			<-d.staged
		}
		if d.held.Load() > 0 {
			return errors.New("no space left on device")
		}
		return nil
	}
	pushed, _, err := s.call(t, s.row[0])
	if err != nil || pushed.Along != 0 || tries != 2 || len(d.published) > 0 {
		t.Errorf("%+v, %v, in %d tries; published %v", pushed, err, tries, d.published)
	}
	if n := d.leftovers(t); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

// Rule 15, faults 3 and 6: where a batch ends, what was staged behind is neither
// visible nor left behind, and the segments' own calls find the rest to do.
func TestBatchStagedInVain(t *testing.T) {
	const at = 4
	outage := errors.New("no space left on device")
	for what, c := range map[string]struct {
		arm   func(ctx context.CancelFunc, d *directory, s *server)
		tried int // to publish
	}{
		"staging fails": {func(_ context.CancelFunc, d *directory, s *server) {
			d.stage = s.failsAt(at, outage)
		}, at - 1},
		"publishing fails": {func(_ context.CancelFunc, d *directory, s *server) {
			d.publish = s.failsAt(at, outage)
		}, at},
		"it is stopped": {func(cancel context.CancelFunc, d *directory, s *server) {
			d.publish = func(name string) error {
				if name == s.row[at] {
					cancel()
				}
				return nil
			}
		}, at},
		"another writer came first": {func(_ context.CancelFunc, d *directory, s *server) {
			d.publish = func(name string) error {
				if name != s.row[at] {
					return nil
				}
				_, err := d.Store.Put(context.Background(), s.FileKey(cluster, parse(t, name)), strings.NewReader("another's"))
				return err
			}
		}, at},
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t, 12, "a")
			d := s.inDirectory(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c.arm(cancel, d, s)
			pushed, err := Push(ctx, s.Repository, filepath.Join(s.dir, s.row[0]), PushOptions{SystemID: cluster, Batch: s.batch(), Log: quiet})
			if err != nil || pushed.Along != at-1 || !slices.Equal(s.records(t), s.row[1:at]) {
				t.Errorf("%+v, %v, records %v", pushed, err, s.records(t))
			}
			if !slices.Equal(d.published, s.row[1:1+c.tried]) {
				t.Errorf("tried to publish %v", d.published)
			}
			for _, name := range s.row[at+1:] {
				if _, err := d.Stat(t.Context(), s.FileKey(cluster, parse(t, name))); !errors.Is(err, storage.ErrNotExist) {
					t.Errorf("%s, behind the end: %v", name, err)
				}
			}
			if n := d.leftovers(t); n != 0 {
				t.Errorf("%d temporary files are left", n)
			}
		})
	}
}

func (s *server) failsAt(at int, err error) func(string) error {
	return func(name string) error {
		if name == s.row[at] {
			return err
		}
		return nil
	}
}
