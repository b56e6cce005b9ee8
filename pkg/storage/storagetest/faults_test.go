package storagetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	st "github.com/walship/walship/pkg/storage/storagetest"
)

var errBroken = errors.New("connection reset by peer")

// filled returns a store that holds a/0 to a/4, each of ten bytes.
func filled(t *testing.T) *mem.Store {
	t.Helper()
	s := mem.New()
	for i := range 5 {
		put(t, s, fmt.Sprintf("a/%d", i), "0123456789")
	}
	return s
}

func put(t *testing.T, s storage.Store, key, content string) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, s storage.Store, key string) (string, error) {
	r, _, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func list(ctx context.Context, s storage.Store, prefix, after string) (keys []string, err error) {
	for info, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

// Without a fault, the wrapper is the store.
func TestFaultyStoreConforms(t *testing.T) {
	st.Run(t, func(t *testing.T) storage.Store { return st.Faults(t, mem.New()) })
}

func TestFailEveryMethod(t *testing.T) {
	for op, call := range map[st.Op]func(storage.Store) error{
		st.Put: func(s storage.Store) error {
			_, err := s.Put(t.Context(), "a/new", strings.NewReader("x"))
			return err
		},
		st.Get:    func(s storage.Store) error { _, _, err := s.Get(t.Context(), "a/1", 0, -1); return err },
		st.Stat:   func(s storage.Store) error { _, err := s.Stat(t.Context(), "a/1"); return err },
		st.List:   func(s storage.Store) error { _, err := list(t.Context(), s, "a/", ""); return err },
		st.Delete: func(s storage.Store) error { return s.Delete(t.Context(), "b", "a/1") },
		st.Sweep:  func(s storage.Store) error { _, err := s.Sweep(t.Context(), "a/", time.Now()); return err },
	} {
		t.Run(string(op), func(t *testing.T) {
			s := st.Faults(t, filled(t), st.Fault{Op: op, Key: "a/", Skip: 0, Times: 2, Effect: st.Fail(errBroken)})
			for i := range 4 {
				if err := call(s); i < 2 != errors.Is(err, errBroken) {
					t.Errorf("call %d: %v", i, err)
				}
			}
		})
	}
}

func TestSkipTimesAndKey(t *testing.T) {
	s := st.Faults(t, filled(t),
		st.Fault{Op: st.Stat, Key: "/1", Skip: 1, Times: 2, Effect: st.Fail(errBroken)},
		st.Fault{Op: st.Stat, Key: "/2", Times: st.Always, Effect: st.Fail(storage.ErrDenied)})
	for i, want := range []error{nil, errBroken, errBroken, nil, nil} {
		if _, err := s.Stat(t.Context(), "a/1"); !errors.Is(err, want) {
			t.Errorf("Stat %d of a/1: %v; want %v", i, err, want)
		}
		if _, err := s.Stat(t.Context(), "a/2"); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("Stat %d of a/2: %v; want ErrDenied", i, err)
		}
		if _, err := s.Stat(t.Context(), "a/3"); err != nil {
			t.Errorf("Stat %d of a/3: %v", i, err)
		}
	}
}

func TestLoseResponse(t *testing.T) {
	inner := filled(t)
	s := st.Faults(t, inner,
		st.Fault{Op: st.Put, Effect: st.LoseResponse(errBroken)},
		st.Fault{Op: st.Delete, Effect: st.LoseResponse(errBroken)},
		st.Fault{Op: st.Get, Effect: st.LoseResponse(errBroken)})
	if _, err := s.Put(t.Context(), "b", strings.NewReader("x")); !errors.Is(err, errBroken) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.Put(t.Context(), "b", strings.NewReader("x")); !errors.Is(err, storage.ErrExist) {
		t.Errorf("Put again: %v; want ErrExist, because the first went through", err)
	}
	if err := s.Delete(t.Context(), "a/1"); !errors.Is(err, errBroken) {
		t.Errorf("Delete: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "a/1"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("the deletion didn't go through: %v", err)
	}
	if _, err := read(t.Context(), s, "b"); !errors.Is(err, errBroken) {
		t.Errorf("Get: %v", err)
	}
}

func TestFailAfter(t *testing.T) {
	inner := mem.New()
	s := st.Faults(t, inner, st.Fault{Op: st.Put, Effect: st.FailAfter(6, syscall.ENOSPC)})
	body := bytes.NewReader(make([]byte, 10))
	if _, err := s.Put(t.Context(), "b", body); !errors.Is(err, syscall.ENOSPC) || body.Len() != 4 {
		t.Errorf("Put: %v, with %d bytes unread; want ENOSPC and 4", err, body.Len())
	}
	if _, err := inner.Stat(t.Context(), "b"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Stat: %v; want ErrNotExist", err)
	}
}

func TestBodies(t *testing.T) {
	for _, c := range []struct {
		effect st.Effect
		want   string
		err    error
	}{
		{st.CutBody(4, errBroken), "0123", errBroken},
		{st.CutBody(4, nil), "0123", nil},
		{st.CutBody(0, errBroken), "", errBroken},
		{st.CutBody(10, errBroken), "0123456789", errBroken},
		{st.FlipByte(0), "1123456789", nil},
		{st.FlipByte(9), "0123456788", nil},
	} {
		s := st.Faults(t, filled(t), st.Fault{Op: st.Get, Effect: c.effect})
		if got, err := read(t.Context(), s, "a/1"); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("read %q, %v; want %q, %v", got, err, c.want, c.err)
		}
		if got, err := read(t.Context(), s, "a/1"); got != "0123456789" || err != nil {
			t.Errorf("the second time: %q, %v", got, err)
		}
	}
}

func TestHang(t *testing.T) {
	inner := filled(t)
	s := st.Faults(t, inner,
		st.Fault{Op: st.Stat, Effect: st.Hang()},
		st.Fault{Op: st.Put, Effect: st.HangAfter()},
		st.Fault{Op: st.Get, Effect: st.HangBody(3)})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	body, _, err := s.Get(ctx, "a/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); string(data) != "012" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read %q, %v; want three bytes and the deadline", data, err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(ctx, "a/1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stat: %v; want the deadline", err)
	}
	late, cancelLate := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(late, "b", strings.NewReader("x"))
		done <- err
	}()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := inner.Stat(t.Context(), "b"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the object was never put")
		}
		runtime.Gosched()
	}
	cancelLate()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v; want context.Canceled", err)
	}
}

func TestWaitAndCall(t *testing.T) {
	inner := filled(t)
	release := make(chan struct{})
	s := st.Faults(t, inner,
		st.Fault{Op: st.Put, Effect: st.Call(func() { put(t, inner, "b", "another's") })},
		st.Fault{Op: st.Stat, Effect: st.Wait(release)},
		st.Fault{Op: st.Get, Effect: st.Wait(nil)})
	if _, err := s.Put(t.Context(), "b", strings.NewReader("mine")); !errors.Is(err, storage.ErrExist) {
		t.Errorf("Put: %v; want ErrExist, as another was quicker", err)
	}
	close(release)
	if _, err := s.Stat(t.Context(), "a/1"); err != nil {
		t.Errorf("Stat: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := read(ctx, s, "a/1"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v; want context.Canceled", err)
	}
}

func TestListings(t *testing.T) {
	inner := filled(t)
	s := st.Faults(t, inner,
		st.Fault{Op: st.List, Effect: st.CutList(2, errBroken)},
		st.Fault{Op: st.List, Effect: st.CutList(2, nil)},
		st.Fault{Op: st.List, Times: 2, Effect: st.StaleList()})
	put(t, inner, "a/9", "x")
	if err := inner.Delete(t.Context(), "a/0"); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		after string
		want  []string
		err   error
	}{
		{"", []string{"a/1", "a/2"}, errBroken},
		{"a/1", []string{"a/2", "a/3"}, nil},
		{"", []string{"a/0", "a/1", "a/2", "a/3", "a/4"}, nil},
		{"a/2", []string{"a/3", "a/4"}, nil},
		{"", []string{"a/1", "a/2", "a/3", "a/4", "a/9"}, nil},
	} {
		if got, err := list(t.Context(), s, "a/", c.after); !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("listing %d: %q, %v; want %q, %v", i, got, err, c.want, c.err)
		}
	}
}

// recorder is a test that only remembers what would fail it.
type recorder struct {
	testing.TB
	cleanup func()
	errors  []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(f func())          { r.cleanup = f }
func (r *recorder) Errorf(f string, a ...any) { r.errors = append(r.errors, fmt.Sprintf(f, a...)) }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...) }

// A fault that doesn't strike as declared fails its test.
func TestUnfiredFaultFails(t *testing.T) {
	for name, c := range map[string]struct {
		fault st.Fault
		fails bool
	}{
		"once":                {st.Fault{Op: st.Get, Effect: st.Fail(errBroken)}, false},
		"always":              {st.Fault{Op: st.Get, Times: st.Always, Effect: st.Fail(errBroken)}, false},
		"twice of two":        {st.Fault{Op: st.Get, Times: 2, Effect: st.Fail(errBroken)}, false},
		"twice of three":      {st.Fault{Op: st.Get, Times: 3, Effect: st.Fail(errBroken)}, true},
		"another method":      {st.Fault{Op: st.Put, Effect: st.Fail(errBroken)}, true},
		"another key":         {st.Fault{Op: st.Get, Key: "b", Effect: st.Fail(errBroken)}, true},
		"too late":            {st.Fault{Op: st.Get, Skip: 2, Effect: st.Fail(errBroken)}, true},
		"never, of always":    {st.Fault{Op: st.Stat, Times: st.Always, Effect: st.Fail(errBroken)}, true},
		"a byte not read":     {st.Fault{Op: st.Get, Effect: st.FlipByte(10)}, true},
		"behind the end":      {st.Fault{Op: st.Get, Effect: st.CutBody(11, errBroken)}, true},
		"no effect of a Stat": {st.Fault{Op: st.Stat, Effect: st.FlipByte(0)}, true},
		"no effect of a List": {st.Fault{Op: st.List, Effect: st.LoseResponse(errBroken)}, true},
	} {
		r := &recorder{TB: t}
		s := st.Faults(r, filled(t), c.fault)
		for range 2 {
			_, _ = read(t.Context(), s, "a/1")
		}
		r.cleanup()
		if failed := len(r.errors) > 0; failed != c.fails {
			t.Errorf("%s: the test fails with %q; want a failure: %t", name, r.errors, c.fails)
		}
	}
}
