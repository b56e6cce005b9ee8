package storagetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// Op is a method of storage.Store.
type Op string

// The methods that a fault can strike.
const (
	Put    Op = "Put"
	Get    Op = "Get"
	Stat   Op = "Stat"
	List   Op = "List"
	Delete Op = "Delete"
	Sweep  Op = "Sweep"
)

// Always is the Fault.Times that strikes every call from the first struck one on.
const Always = -1

// Fault says which calls go wrong, and how. The calls that match are those of
// the method whose key contains Key: List and Sweep by their prefix, Delete if
// any of its keys does.
type Fault struct {
	Op     Op
	Key    string // "" matches every call
	Skip   int    // matching calls that pass before the first struck one
	Times  int    // calls that are struck; 0 means 1
	Effect Effect
}

func (f Fault) String() string {
	return fmt.Sprintf("%s of %s of key %q after %d", f.Effect.name, f.Op, f.Key, f.Skip)
}

// FaultyStore is a store that goes wrong as told. Of several faults that match
// a call, the one that was armed first strikes.
type FaultyStore struct {
	inner storage.Store
	tb    testing.TB

	mu    sync.Mutex
	armed []*armed
}

type armed struct {
	Fault
	left  int // calls still to strike
	fired int
}

var _ storage.Store = (*FaultyStore)(nil)

// Faults wraps a store with faults. When the test ends, each that didn't
// strike as often as declared (for Always: not once) fails the test: it proved
// nothing.
func Faults(tb testing.TB, store storage.Store, faults ...Fault) *FaultyStore {
	tb.Helper()
	s := &FaultyStore{inner: store, tb: tb}
	tb.Cleanup(s.check)
	for _, f := range faults {
		s.Arm(f)
	}
	return s
}

// Arm adds a fault in the middle of a test.
func (s *FaultyStore) Arm(f Fault) {
	s.tb.Helper()
	if !f.Effect.suits(f.Op) {
		s.tb.Fatalf("fault: %v: the method has no such effect", f)
	}
	if f.Times == 0 {
		f.Times = 1
	}
	if f.Effect.prepare != nil {
		if err := f.Effect.prepare(s.tb.Context(), s.inner, &f.Effect); err != nil {
			s.tb.Fatalf("fault: prepare %v: %v", f, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = append(s.armed, &armed{Fault: f, left: f.Times})
}

func (s *FaultyStore) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.armed {
		if a.fired == 0 || a.Times != Always && a.fired != a.Times {
			s.tb.Errorf("fault: %v: it struck %d times; want %d (%d: at least once)", a.Fault, a.fired, a.Times, Always)
		}
	}
}

// strike is what happens to one call; its zero value is nothing.
type strike struct {
	Effect
	fired func() // called when the effect takes place
}

func (s *FaultyStore) strike(op Op, keys ...string) strike {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.armed {
		switch {
		case a.Op != op || a.left == 0 || !anyContains(keys, a.Key):
		case a.Skip > 0:
			a.Skip--
		default:
			if a.left > 0 {
				a.left--
			}
			return strike{a.Effect, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				a.fired++
			}}
		}
	}
	return strike{}
}

func anyContains(keys []string, part string) bool {
	for _, key := range keys {
		if strings.Contains(key, part) {
			return true
		}
	}
	return part == ""
}

// around makes a request, or not, as the effect wants it.
func (k strike) around(ctx context.Context, request func() error) error {
	if k.before != nil {
		k.fired()
		if err := k.before(ctx); err != nil {
			return err
		}
	}
	err := request()
	if k.after != nil {
		k.fired()
		return k.after(ctx)
	}
	return err
}

// Put implements storage.Store.
func (s *FaultyStore) Put(ctx context.Context, key string, body io.Reader) (info storage.Info, err error) {
	k := s.strike(Put, key)
	err = k.around(ctx, func() error {
		if k.sent != nil {
			body = k.sent(body, k.fired)
		}
		info, err = s.inner.Put(ctx, key, body)
		return err
	})
	if err != nil {
		return storage.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	return info, nil
}

// Get implements storage.Store.
func (s *FaultyStore) Get(ctx context.Context, key string, offset, length int64) (body io.ReadCloser, info storage.Info, err error) {
	k := s.strike(Get, key)
	err = k.around(ctx, func() error {
		body, info, err = s.inner.Get(ctx, key, offset, length)
		return err
	})
	if err != nil {
		if body != nil {
			_ = body.Close() // the response is lost
		}
		return nil, storage.Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	if k.received != nil {
		body = k.received(ctx, body, k.fired)
	}
	return body, info, nil
}

// Stat implements storage.Store.
func (s *FaultyStore) Stat(ctx context.Context, key string) (info storage.Info, err error) {
	err = s.strike(Stat, key).around(ctx, func() error {
		info, err = s.inner.Stat(ctx, key)
		return err
	})
	if err != nil {
		return storage.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return info, nil
}

// List implements storage.Store. Each iteration is one call.
func (s *FaultyStore) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		k := s.strike(List, prefix)
		if k.before != nil {
			k.fired()
			if err := k.before(ctx); err != nil {
				yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
		}
		listing := s.inner.List(ctx, prefix, after)
		if k.listed != nil {
			listing = k.listed(listing, prefix, after, k.fired)
		}
		listing(yield)
	}
}

// Delete implements storage.Store.
func (s *FaultyStore) Delete(ctx context.Context, keys ...string) error {
	return s.strike(Delete, keys...).around(ctx, func() error { return s.inner.Delete(ctx, keys...) })
}

// Sweep implements storage.Store.
func (s *FaultyStore) Sweep(ctx context.Context, prefix string, before time.Time) (n int, err error) {
	err = s.strike(Sweep, prefix).around(ctx, func() error {
		n, err = s.inner.Sweep(ctx, prefix, before)
		return err
	})
	return n, err
}
