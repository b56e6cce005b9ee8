package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// A push that expects its file to be there asks once where it is, and goes on
// as ever where it isn't, or is another.
func TestAskFirst(t *testing.T) {
	ask := PushOptions{SystemID: cluster, AskFirst: true, Log: quiet}
	for _, name := range []string{first, first + ".00000028.backup"} {
		s := &server{site: newSite(t, true)}
		s.watch()
		content := []byte("START WAL LOCATION: 0/2000028\n")
		if name == first {
			content, _ = chained(parse(t, first), 0, "one")
		}
		path := s.write(t, name, content)
		for n, want := range []struct{ gets, puts int }{{1, 1}, {1, 0}} {
			s.store.gets, s.puts = 0, nil
			pushed, err := Push(t.Context(), s.Repository, path, ask)
			if err != nil || pushed.Already != (n == 1) || s.store.gets != want.gets || len(s.puts) != want.puts {
				t.Errorf("push %d of %s: %+v, %v; %d read, stored %v", n+1, name, pushed, err, s.store.gets, s.puts)
			}
		}
		s.write(t, name, bytes.Replace(content, []byte("one"), []byte("two"), 1))
		if name != first {
			s.write(t, name, content[1:])
		}
		if _, err := Push(t.Context(), s.Repository, path, ask); !errors.Is(err, ErrConflict) {
			t.Errorf("push of another %s: %v", name, err)
		}
		s.store.get = func(string) error { return storage.ErrDenied }
		s.write(t, name, content)
		if _, err := Push(t.Context(), s.Repository, path, ask); !errors.Is(err, ErrRefused) {
			t.Errorf("push of %s, nothing being readable: %v", name, err)
		}
	}
}

// What a standby received of the last segment of a timeline isn't taken for the
// whole one, which the primary has archived.
func TestAskFirstPartial(t *testing.T) {
	s := newServer(t, 1, "a")
	path := filepath.Join(s.dir, s.row[0])
	if _, _, err := s.call(t, s.row[0]); err != nil {
		t.Fatal(err)
	}
	data, last := chained(parse(t, s.row[0]), 0, "a")
	at := int(last - parse(t, s.row[0]).Start(segmentSize))
	clear(data[at : at+24])
	s.write(t, s.row[0], data)
	pushed, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, AskFirst: true, Standby: true, Log: quiet})
	if err != nil || pushed.Already || pushed.Name.Kind != wal.KindPartial || !strings.HasSuffix(pushed.Key, s.row[0]+".partial.zst.age") {
		t.Errorf("%+v, %v", pushed, err)
	}
}

// A batch of segments that are there already: each is asked for once, nothing
// is stored, and the calls that follow find them done. Behind one that isn't
// there everything goes on.
func TestBatchAskFirst(t *testing.T) {
	s := newServer(t, 12, "a")
	for _, name := range s.row[:8] {
		if _, err := s.push(t, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.store.gets, s.puts = 0, nil
	o := PushOptions{SystemID: cluster, AskFirst: true, Batch: s.batch(), Log: quiet}
	pushed, err := Push(t.Context(), s.Repository, filepath.Join(s.dir, s.row[0]), o)
	if err != nil || !pushed.Already || pushed.Along != 11 {
		t.Errorf("%+v, %v", pushed, err)
	}
	if s.store.gets != 12 || !slices.Equal(s.puts, s.row[8:]) {
		t.Errorf("%d read, stored: %v", s.store.gets, s.puts)
	}
	for _, name := range s.row[1:] {
		if _, had, err := s.call(t, name); err != nil || !had {
			t.Errorf("%s, which was taken along: %t, %v", name, had, err)
		}
	}
}

// Rule 15, where the segments of the other branch are there already.
func TestBatchAskFirstConflict(t *testing.T) {
	s := newServer(t, 6, "one")
	for _, name := range s.row[:3] {
		if _, err := s.push(t, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.puts = nil
	s.fill(t, 6, "two")
	o := PushOptions{SystemID: cluster, AskFirst: true, Batch: s.batch(), Log: quiet}
	if _, err := Push(t.Context(), s.Repository, filepath.Join(s.dir, s.row[0]), o); !errors.Is(err, ErrConflict) {
		t.Errorf("push of the other branch: %v", err)
	}
	if len(s.records(t)) != 0 || slices.ContainsFunc(s.puts, func(name string) bool { return name > s.row[0] }) {
		t.Errorf("stored %v, records %v", s.puts, s.records(t))
	}
}

// silent is a storage that doesn't answer when it is asked for one key.
type silent struct {
	storage.Store
	key string
}

func (s silent) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	if strings.Contains(key, s.key) {
		<-ctx.Done()
		return nil, storage.Info{}, ctx.Err()
	}
	return s.Store.Get(ctx, key, offset, length)
}

// Fault 8: a batch that asks first ends by its time too.
func TestBatchAskFirstSilence(t *testing.T) {
	s := newServer(t, 6, "a")
	s.Store = silent{s.Store, s.row[3]}
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		o := PushOptions{SystemID: cluster, AskFirst: true, Batch: s.batch(), Log: quiet}
		pushed, err := Push(ctx, s.Repository, filepath.Join(s.dir, s.row[0]), o)
		if took := time.Since(started); err != nil || pushed.Along != 2 || took != o.Batch.End {
			t.Errorf("%+v, %v, after %v", pushed, err, took)
		}
	})
}

func TestAgain(t *testing.T) {
	state, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	again := Again{State: state}
	for _, found := range []bool{false, true, true, false, false, true} {
		if err := again.Note(found); err != nil {
			t.Fatal(err)
		}
		if again.Expected() != found {
			t.Errorf("after %t it says the opposite", found)
		}
	}
}
