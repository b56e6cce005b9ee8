// Package mem keeps objects in memory. It is for tests, and promises all that
// storage.Store does but that anything survives the process.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// Store is a storage.Store in memory. Writes become visible in one step, so
// nothing unfinished is ever left behind.
type Store struct {
	// Now is the storage's clock. Set it before the first use.
	Now func() time.Time

	mu      sync.Mutex
	objects map[string]object
	keys    []string // sorted
}

type object struct {
	data     []byte // never changed once stored
	etag     string
	modified time.Time
}

var _ storage.Store = (*Store)(nil)

// New returns an empty store whose clock is the machine's.
func New() *Store {
	return &Store{Now: time.Now, objects: make(map[string]object)}
}

func (o object) info(key string) storage.Info {
	return storage.Info{Key: key, Size: int64(len(o.data)), ETag: o.etag, Modified: o.modified}
}

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if err := check(ctx, "put", key); err != nil {
		return storage.Info{}, err
	}
	data, err := io.ReadAll(&reader{ctx, body})
	if err != nil {
		return storage.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	sum := sha256.Sum256(data)

	s.mu.Lock()
	defer s.mu.Unlock()
	// The last look at the context: what was given up is not stored.
	if err := ctx.Err(); err != nil {
		return storage.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	at, taken := slices.BinarySearch(s.keys, key)
	if taken {
		return storage.Info{}, fmt.Errorf("put %s: %w", key, storage.ErrExist)
	}
	now := s.Now()
	o := object{data: data, etag: hex.EncodeToString(sum[:]), modified: now}
	s.keys = slices.Insert(s.keys, at, key)
	s.objects[key] = o
	info := o.info(key)
	info.ServerTime = now
	return info, nil
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	o, info, err := s.find(ctx, "get", key)
	if err != nil {
		return nil, storage.Info{}, err
	}
	if offset < 0 {
		return nil, storage.Info{}, fmt.Errorf("get %s from offset %d: %w", key, offset, storage.ErrInvalid)
	}
	rest := o.data[min(offset, info.Size):]
	if length >= 0 {
		rest = rest[:min(length, int64(len(rest)))]
	}
	return io.NopCloser(&reader{ctx, bytes.NewReader(rest)}), info, nil
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	_, info, err := s.find(ctx, "stat", key)
	return info, err
}

func (s *Store) find(ctx context.Context, verb, key string) (object, storage.Info, error) {
	if err := check(ctx, verb, key); err != nil {
		return object{}, storage.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, storage.Info{}, fmt.Errorf("%s %s: %w", verb, key, storage.ErrNotExist)
	}
	info := o.info(key)
	info.ServerTime = s.Now()
	return o, info, nil
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for last := after; ; {
			if err := ctx.Err(); err != nil {
				yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			info, ok := s.next(prefix, last)
			if !ok || !yield(info, nil) {
				return
			}
			last = info.Key
		}
	}
}

// next returns the first object behind last whose key starts with prefix.
func (s *Store) next(prefix, last string) (storage.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.keys, max(prefix, last))
	if found && s.keys[at] == last {
		at++
	}
	if at == len(s.keys) || !strings.HasPrefix(s.keys[at], prefix) {
		return storage.Info{}, false
	}
	return s.objects[s.keys[at]].info(s.keys[at]), true
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	for _, key := range keys {
		if err := check(ctx, "delete", key); err != nil {
			errs = append(errs, err)
			continue
		}
		s.remove(key)
	}
	return errors.Join(errs...)
}

func (s *Store) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, found := slices.BinarySearch(s.keys, key); found {
		s.keys = slices.Delete(s.keys, at, at+1)
		delete(s.objects, key)
	}
}

// Sweep implements storage.Store. There is never anything to remove.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("sweep %s: %w", prefix, err)
	}
	return 0, nil
}

func check(ctx context.Context, verb, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	return nil
}

// reader ends with the context's error once that ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
