package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// sizes are those of the bodies that most tests go through.
func (s *suite) sizes() map[string]int64 {
	return map[string]int64{"empty": 0, "small": 12345, "large": s.large}
}

func putStoresBytes(t *testing.T, s *suite) {
	for name, size := range s.sizes() {
		data := content(1, size)
		s.put(t, name+"/seekable", data)
		s.wantContent(t, name+"/seekable", data)

		if _, err := s.Put(t.Context(), name+"/stream", stream(data)); err != nil {
			t.Fatalf("Put of a stream of %d bytes: %v", size, err)
		}
		s.wantContent(t, name+"/stream", data)
	}
}

func putDescribesObject(t *testing.T, s *suite) {
	for name, size := range s.sizes() {
		put := s.put(t, name, content(1, size))
		if put.Key != name || put.Size != size || put.ServerTime.IsZero() {
			t.Errorf("Put(%q) = %+v; want the key, %d bytes and the server's time", name, put, size)
		}
		stat, err := s.Stat(t.Context(), name)
		if err != nil {
			t.Fatalf("Stat(%q): %v", name, err)
		}
		r, get, err := s.Get(t.Context(), name, 0, -1)
		if err != nil {
			t.Fatalf("Get(%q): %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Fatalf("close of Get(%q): %v", name, err)
		}
		for call, info := range map[string]storage.Info{"Stat": stat, "Get": get} {
			if info.Key != name || info.Size != size || info.Modified.IsZero() || info.ServerTime.IsZero() {
				t.Errorf("%s(%q) = %+v; want the key, %d bytes and both times", call, name, info, size)
			}
			if age := info.ServerTime.Sub(info.Modified); age < -2*time.Second || age > 10*time.Minute {
				t.Errorf("%s(%q): modified at %v by the storage's clock, which says %v", call, name, info.Modified, info.ServerTime)
			}
		}
		if stat.ETag != get.ETag || !stat.Modified.Equal(get.Modified) {
			t.Errorf("Stat and Get of %q disagree: %+v, %+v", name, stat, get)
		}
	}
}

func putIsCreateOnly(t *testing.T, s *suite) {
	for name, size := range s.sizes() {
		first := content(1, size)
		s.put(t, name, first)
		before, err := s.Stat(t.Context(), name)
		if err != nil {
			t.Fatalf("Stat(%q): %v", name, err)
		}
		for what, body := range map[string]io.Reader{
			"the same bytes":    bytes.NewReader(first),
			"other bytes":       bytes.NewReader(content(2, size)),
			"no bytes":          bytes.NewReader(nil),
			"a stream":          stream(content(3, size)),
			"a large seekable":  bytes.NewReader(content(4, s.large)),
			"a stream in parts": stream(content(5, s.large)),
		} {
			if _, err := s.Put(t.Context(), name, body); !errors.Is(err, storage.ErrExist) {
				t.Errorf("Put of %s over %q: %v; want ErrExist", what, name, err)
			}
		}
		s.wantContent(t, name, first)
		after, err := s.Stat(t.Context(), name)
		if err != nil || after.ETag != before.ETag || !after.Modified.Equal(before.Modified) {
			t.Errorf("refused writes changed %q: %+v, then %+v, %v", name, before, after, err)
		}
	}
}

// putRace lets writers of different bodies race for one key: exactly one
// wins, and the content is its own.
func putRace(t *testing.T, s *suite, writers int, size int64) {
	const key = "race/key"
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		errs  = make([]error, writers)
	)
	for i := range writers {
		data := content(byte(i), size)
		var body io.Reader = bytes.NewReader(data)
		if i%2 == 1 {
			body = stream(data)
		}
		wg.Go(func() {
			<-start
			_, errs[i] = s.Put(t.Context(), key, body)
		})
	}
	close(start)
	wg.Wait()

	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Errorf("writers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, storage.ErrExist):
			t.Errorf("writer %d: %v; want ErrExist", i, err)
		}
	}
	if winner < 0 {
		t.Fatalf("none of %d writers won", writers)
	}
	s.wantContent(t, key, content(byte(winner), size))
	if keys := s.list(t, "", ""); len(keys) != 1 || keys[0] != key {
		t.Errorf("after the race the store lists %q; want the key alone", keys)
	}
}

func putOfFailingBody(t *testing.T, s *suite) {
	broken := errors.New("the disk under the body is gone")
	for name, size := range map[string]int64{"small": 12345, "large": s.large} {
		body := &hookedBody{data: content(1, size), hook: func() error { return broken }}
		if _, err := s.Put(t.Context(), name, body); !errors.Is(err, broken) {
			t.Errorf("Put of a body that fails: %v; want the body's error", err)
		}
		s.wantAbsent(t, name)
		data := content(2, size)
		s.put(t, name, data)
		s.wantContent(t, name, data)
	}
}

func putStopsWithContext(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := &endless{left: s.large, cancel: cancel}
	if _, err := s.Put(ctx, "endless", body); !errors.Is(err, context.Canceled) {
		t.Errorf("Put whose context is cancelled: %v; want context.Canceled", err)
	}
	s.wantAbsent(t, "endless")

	// What was given up isn't stored, even if the body was read to its end.
	data := content(1, 100)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	late := io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, io.EOF
	}))
	if _, err := s.Put(ctx, "late", late); !errors.Is(err, context.Canceled) {
		t.Errorf("Put whose context is cancelled at the body's end: %v; want context.Canceled", err)
	}
	s.wantAbsent(t, "late")
	for _, key := range []string{"endless", "late"} {
		s.put(t, key, data)
		s.wantContent(t, key, data)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func putIsInvisibleUntilDone(t *testing.T, s *suite) {
	data := content(1, s.large)
	half, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), "unfinished", &hookedBody{data: data, hook: func() error {
			close(half)
			<-goOn
			return nil
		}})
		done <- err
	}()
	finish := sync.OnceFunc(func() { close(goOn) })
	defer finish()
	select {
	case <-half:
	case err := <-done:
		t.Fatalf("Put ended in the middle of its body: %v", err)
	}
	s.wantAbsent(t, "unfinished")
	other := content(2, 10)
	now := s.put(t, "unfinished.other", other).ServerTime
	if n, err := s.Sweep(t.Context(), "", now.Add(-time.Hour)); err != nil || n != 0 {
		t.Errorf("Sweep of what is older than an hour = %d, %v; a running write isn't", n, err)
	}
	finish()
	if err := <-done; err != nil {
		t.Fatalf("Put: %v", err)
	}
	s.wantContent(t, "unfinished", data)
	s.wantContent(t, "unfinished.other", other)
}

// wantAbsent fails unless the key is absent by every way to ask.
func (s *suite) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if info, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Stat(%q) = %+v, %v; want ErrNotExist", key, info, err)
	}
	r, _, err := s.Get(t.Context(), key, 0, -1)
	if !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Get(%q): %v; want ErrNotExist", key, err)
	}
	if err == nil {
		_ = r.Close()
	}
	for _, listed := range s.list(t, key, "") {
		if listed == key {
			t.Errorf("List shows %q", key)
		}
	}
}

func concurrentUse(t *testing.T, s *suite) {
	const workers, rounds = 8, 5
	errs := make(chan error, workers)
	for w := range workers {
		go func() { errs <- s.useKeys(t.Context(), fmt.Sprintf("worker-%d", w), byte(w), rounds) }()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if keys := s.list(t, "", ""); len(keys) != workers {
		t.Errorf("the store lists %q; want the last key of each of %d workers", keys, workers)
	}
}

// useKeys writes, reads, lists and deletes below a folder of its own, and
// leaves the last object there.
func (s *suite) useKeys(ctx context.Context, folder string, seed byte, rounds int) error {
	for round := range rounds {
		key := fmt.Sprintf("%s/%d", folder, round)
		data := content(seed, int64(1000+round))
		if _, err := s.Put(ctx, key, bytes.NewReader(data)); err != nil {
			return err
		}
		r, _, err := s.Get(ctx, key, 0, -1)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("%s holds other bytes than were put", key)
		}
		listed := 0
		for _, err := range s.List(ctx, folder+"/", "") {
			if err != nil {
				return err
			}
			listed++
		}
		if listed != 1 {
			return fmt.Errorf("%s/ lists %d objects in round %d; want 1", folder, listed, round)
		}
		if round == rounds-1 {
			return nil
		}
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
