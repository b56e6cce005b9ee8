// Package storagetest holds every implementation of storage.Store to the
// contract that is written there, and wraps a store with faults for the tests
// of what is built upon one.
package storagetest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// Option adapts the suite to an implementation.
type Option func(*suite)

// LargeBody sets the size, in bytes, of what the suite calls a large body;
// 3 MiB + 1 unless told. A store that uploads in parts wants more than two.
func LargeBody(size int64) Option { return func(s *suite) { s.large = size } }

// Listing sets the number of objects in the listing that spans several pages;
// 1,100 unless told, because S3 lists 1,000 at a time.
func Listing(objects int) Option { return func(s *suite) { s.listing = objects } }

// Abandon tells how to leave an unfinished write of key behind, as a killed
// process would. Without it the suite can't test that Sweep removes one.
func Abandon(abandon func(t *testing.T, store storage.Store, key string)) Option {
	return func(s *suite) { s.abandon = abandon }
}

// suite is one store under test, new and empty for each subtest.
type suite struct {
	storage.Store
	large   int64
	listing int
	abandon func(t *testing.T, store storage.Store, key string)
}

// conformance is the contract of storage.Store, line by line.
var conformance = []struct {
	name string
	run  func(*testing.T, *suite)
}{
	{"PutStoresBytes", putStoresBytes},
	{"PutDescribesObject", putDescribesObject},
	{"PutIsCreateOnly", putIsCreateOnly},
	{"PutRace16", func(t *testing.T, s *suite) { putRace(t, s, 16, 1<<10) }},
	{"PutRace64", func(t *testing.T, s *suite) { putRace(t, s, 64, 1<<10) }},
	{"PutRaceOfLargeBodies", func(t *testing.T, s *suite) { putRace(t, s, 4, s.large) }},
	{"PutOfFailingBodyLeavesNothing", putOfFailingBody},
	{"PutStopsWithContext", putStopsWithContext},
	{"PutIsInvisibleUntilDone", putIsInvisibleUntilDone},
	{"GetRanges", getRanges},
	{"GetStopsWithContext", getStopsWithContext},
	{"AbsentObject", absentObject},
	{"FolderIsNoObject", folderIsNoObject},
	{"InvalidKeys", invalidKeys},
	{"UnusualKeys", unusualKeys},
	{"CancelledContext", cancelledContext},
	{"ListEmpty", listEmpty},
	{"ListOrderPrefixAfter", listOrderPrefixAfter},
	{"ListDescribesObjects", listDescribesObjects},
	{"ListPagesAndDeleteMany", listPages},
	{"DeleteIsIdempotent", deleteIsIdempotent},
	{"DeleteThenPut", deleteThenPut},
	{"DeleteRemovesWhatItCan", deleteRemovesWhatItCan},
	{"SweepKeepsFinished", sweepKeepsFinished},
	{"SweepRemovesAbandoned", sweepRemovesAbandoned},
	{"ConcurrentUse", concurrentUse},
}

// Run holds a store to the contract. Each call of open returns a store that is
// empty, and that nobody else uses.
func Run(t *testing.T, open func(t *testing.T) storage.Store, options ...Option) {
	t.Helper()
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{Store: open(t), large: 3<<20 + 1, listing: 1100}
			for _, option := range options {
				option(s)
			}
			c.run(t, s)
		})
	}
}

// content returns size bytes that no other seed gives.
func content(seed byte, size int64) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(data) // never fails
	return data
}

// stream hides that a reader can seek.
func stream(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }

// hookedBody delivers data and calls hook once, before the first byte behind
// the middle.
type hookedBody struct {
	data  []byte
	at    int
	hook  func() error
	fired bool
}

func (b *hookedBody) Read(p []byte) (int, error) {
	if b.at >= len(b.data)/2 && !b.fired {
		b.fired = true
		if err := b.hook(); err != nil {
			return 0, err
		}
	}
	if b.at == len(b.data) {
		return 0, io.EOF
	}
	end := len(b.data)
	if !b.fired {
		end = len(b.data) / 2
	}
	n := copy(p, b.data[b.at:end])
	b.at += n
	return n, nil
}

// endless delivers zeros for ever and cancels a context after some of them.
type endless struct {
	left   int64
	cancel context.CancelFunc
}

func (b *endless) Read(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		b.cancel()
	}
	clear(p)
	return len(p), nil
}

func (s *suite) put(t *testing.T, key string, data []byte) storage.Info {
	t.Helper()
	info, err := s.Put(t.Context(), key, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	return info
}

func (s *suite) get(t *testing.T, key string, offset, length int64) []byte {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Get(%q, %d, %d): %v", key, offset, length, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read of Get(%q, %d, %d): %v", key, offset, length, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close of Get(%q, %d, %d): %v", key, offset, length, err)
	}
	return data
}

func (s *suite) list(t *testing.T, prefix, after string) []string {
	t.Helper()
	var keys []string
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List(%q, %q): %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// wantContent fails unless the object holds data, by every way to ask.
func (s *suite) wantContent(t *testing.T, key string, data []byte) {
	t.Helper()
	if got := s.get(t, key, 0, -1); !bytes.Equal(got, data) {
		t.Fatalf("%s holds %d bytes that differ from the %d wanted", key, len(got), len(data))
	}
	info, err := s.Stat(t.Context(), key)
	if err != nil || info.Size != int64(len(data)) || info.Key != key {
		t.Fatalf("Stat(%q) = %+v, %v; want %d bytes", key, info, err, len(data))
	}
}

// clock returns the storage's time.
func (s *suite) clock(t *testing.T) time.Time {
	t.Helper()
	const key = "clock"
	info := s.put(t, key, nil)
	if info.ServerTime.IsZero() {
		t.Fatalf("Put(%q) returned no server time", key)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatalf("Delete(%q): %v", key, err)
	}
	return info.ServerTime
}
