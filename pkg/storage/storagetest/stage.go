package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// RunStager holds a store to what storage.Stager says, and its Publish to what
// Run asks of Put.
func RunStager(t *testing.T, open func(t *testing.T) storage.Store) {
	t.Helper()
	for _, c := range conformance {
		if strings.HasPrefix(c.name, "Put") {
			t.Run(c.name, func(t *testing.T) {
				c.run(t, &suite{Store: staging{open(t)}, large: 3<<20 + 1})
			})
		}
	}
	t.Run("StagedIsInvisible", func(t *testing.T) { stagedIsInvisible(t, &suite{Store: open(t)}) })
	t.Run("StagedIsOvertaken", func(t *testing.T) { stagedIsOvertaken(t, &suite{Store: open(t)}) })
	t.Run("StagedPublishStopsWithContext", func(t *testing.T) { stagedStops(t, &suite{Store: open(t)}) })
}

// staging is a store whose every Put is staged first.
type staging struct{ storage.Store }

func (s staging) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	staged, err := s.Store.(storage.Stager).Stage(ctx, key, body)
	if err != nil {
		return storage.Info{}, err
	}
	defer staged.Discard()
	return staged.Publish(ctx)
}

func (s *suite) stage(t *testing.T, key string, data []byte) storage.Staged {
	t.Helper()
	staged, err := s.Store.(storage.Stager).Stage(t.Context(), key, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("Stage(%q): %v", key, err)
	}
	return staged
}

// leftovers counts what Sweep finds.
func (s *suite) leftovers(t *testing.T) int {
	t.Helper()
	n, err := s.Sweep(t.Context(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	return n
}

func stagedIsInvisible(t *testing.T, s *suite) {
	data := content(1, 12345)
	for range 2 {
		s.stage(t, "wal/1", data).Discard()
	}
	if n := s.leftovers(t); n != 0 {
		t.Errorf("what was discarded left %d behind", n)
	}
	staged := s.stage(t, "wal/1", data)
	s.stage(t, "wal/2", data) // and its process is killed
	s.wantAbsent(t, "wal/1")
	if _, err := staged.Publish(t.Context()); err != nil {
		t.Fatalf("Publish: %v", err)
	}
	staged.Discard()
	s.wantContent(t, "wal/1", data)
	if n := s.leftovers(t); n != 1 {
		t.Errorf("Sweep found %d staged objects that nobody published; want 1", n)
	}
	s.wantAbsent(t, "wal/2")
}

// Between Stage and Publish another writer may come.
func stagedIsOvertaken(t *testing.T, s *suite) {
	late := s.stage(t, "key", content(1, 100))
	defer late.Discard()
	winner := s.stage(t, "key", content(2, 100))
	if _, err := winner.Publish(t.Context()); err != nil {
		t.Fatalf("Publish of the first: %v", err)
	}
	if _, err := late.Publish(t.Context()); !errors.Is(err, storage.ErrExist) {
		t.Errorf("Publish of the second: %v; want ErrExist", err)
	}
	s.wantContent(t, "key", content(2, 100))
	if n := s.leftovers(t); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func stagedStops(t *testing.T, s *suite) {
	staged := s.stage(t, "key", content(1, 100))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := staged.Publish(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish with a context that has ended: %v", err)
	}
	staged.Discard()
	s.wantAbsent(t, "key")
	if n := s.leftovers(t); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}
