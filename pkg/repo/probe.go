package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// ErrUnconditional means that a storage replaced an object that it was asked
// only to create.
var ErrUnconditional = errors.New("the storage overwrites objects: it ignores conditional writes")

// Probe is what a storage was seen to do.
type Probe struct {
	Time time.Time `json:"time"`
	// ConditionalWrites: a second write of a key was refused and changed
	// nothing, for a small object and for one sent in parts, and of 16
	// writers at once exactly one won.
	ConditionalWrites bool `json:"conditional_writes"`
	// Delete: objects can be removed. Without it the storage suits archiving
	// (an append-only credential) but not pruning.
	Delete bool `json:"delete"`
	// Detail says what failed; empty when nothing did.
	Detail string `json:"detail,omitempty"`
	// ClockSkew is the local clock minus the storage's, to the second.
	ClockSkewSeconds int64 `json:"clock_skew_seconds"`
}

// probeStream is the size of the object that is sent as a stream of unknown
// length, so that a storage that has them uses several parts.
const probeStream = 20 << 20

// probeWriters is how many writers race for one key.
const probeWriters = 16

// RunProbe tries what walship needs of a storage: conditional writes, reading,
// ranges, listing, deleting. It works under a prefix of its own and removes
// what it made. An error means that the storage can't be used at all; a
// storage that overwrites is reported in the result.
func RunProbe(ctx context.Context, store storage.Store) (Probe, error) {
	p := Probe{ConditionalWrites: true}
	prefix := probePrefix + randomID() + "/"
	keys := []string{prefix + "once", prefix + "race", prefix + "stream"}

	info, err := store.Put(ctx, keys[0], bytes.NewReader([]byte("first")))
	if err != nil {
		return p, fmt.Errorf("write: %w", err)
	}
	now := time.Now()
	p.Time = now.UTC()
	if !info.ServerTime.IsZero() {
		p.ClockSkewSeconds = int64(now.Sub(info.ServerTime).Round(time.Second) / time.Second)
	}
	for _, check := range []func() (string, error){
		func() (string, error) { return probeSecondWrite(ctx, store, keys[0]) },
		func() (string, error) { return probeRace(ctx, store, keys[1]) },
		func() (string, error) { return probeParts(ctx, store, keys[2]) },
	} {
		detail, err := check()
		if err != nil {
			return p, errors.Join(err, store.Delete(context.WithoutCancel(ctx), keys...))
		}
		if detail != "" {
			p.ConditionalWrites, p.Detail = false, detail
			break
		}
	}
	if err := probeList(ctx, store, prefix, keys[0]); err != nil {
		return p, errors.Join(err, store.Delete(context.WithoutCancel(ctx), keys...))
	}
	p.Delete, err = probeDelete(ctx, store, keys)
	return p, err
}

// probeSecondWrite writes key, which holds "first", again. The detail tells
// what shows that the storage overwrites.
func probeSecondWrite(ctx context.Context, store storage.Store, key string) (detail string, err error) {
	_, err = store.Put(ctx, key, bytes.NewReader([]byte("other")))
	if err != nil && !errors.Is(err, storage.ErrExist) {
		return "", fmt.Errorf("second write: %w", err)
	}
	refused := err != nil
	got, err := readObject(ctx, store, key, 1<<10)
	switch {
	case err != nil:
		return "", fmt.Errorf("read: %w", err)
	case string(got) != "first":
		return "a second write replaced the first", nil
	case !refused:
		return "a second write was accepted", nil
	}
	part, err := readRange(ctx, store, key, 1, 3)
	if err != nil {
		return "", fmt.Errorf("read a range: %w", err)
	}
	if string(part) != "irs" {
		return "", fmt.Errorf("read a range: got %q instead of %q", part, "irs")
	}
	return "", nil
}

func readRange(ctx context.Context, store storage.Store, key string, offset, length int64) ([]byte, error) {
	body, _, err := store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// probeRace lets writers race for key and checks that one of them won and
// that the object is its.
func probeRace(ctx context.Context, store storage.Store, key string) (detail string, err error) {
	errs := make([]error, probeWriters)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = store.Put(ctx, key, bytes.NewReader(raceBody(i))) })
	}
	wg.Wait()
	var won []int
	for i, err := range errs {
		if err == nil {
			won = append(won, i)
		} else if !errors.Is(err, storage.ErrExist) {
			return "", fmt.Errorf("write at once with others: %w", err)
		}
	}
	got, err := readObject(ctx, store, key, 1<<10)
	if err != nil {
		return "", fmt.Errorf("read after a race: %w", err)
	}
	switch {
	case len(won) > 1:
		return fmt.Sprintf("%d of %d writers at once were told that they had won", len(won), probeWriters), nil
	case len(won) == 1 && !bytes.Equal(got, raceBody(won[0])):
		return "the winner of a race was overwritten", nil
	}
	// With no winner the winner's response was lost, and its retry was told
	// that the object exists, which it does.
	return "", nil
}

func raceBody(i int) []byte { return fmt.Appendf(nil, "writer %02d", i) }

// probeParts does what probeSecondWrite does with an object sent in parts.
func probeParts(ctx context.Context, store storage.Store, key string) (detail string, err error) {
	for i, fill := range []byte{'a', 'b'} {
		_, err := store.Put(ctx, key, io.LimitReader(repeat(fill), probeStream))
		switch {
		case i == 1 && err == nil:
			return "a second write in parts was accepted", nil
		case err != nil && !errors.Is(err, storage.ErrExist):
			return "", fmt.Errorf("write in parts: %w", err)
		}
	}
	got, err := readRange(ctx, store, key, probeStream-1, -1)
	if err != nil {
		return "", fmt.Errorf("read what was written in parts: %w", err)
	}
	if string(got) != "a" {
		return "a second write in parts replaced the first", nil
	}
	return "", nil
}

// repeat is a reader without an end of one byte.
type repeat byte

func (r repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func probeList(ctx context.Context, store storage.Store, prefix, want string) error {
	for info, err := range store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if info.Key == want {
			return nil
		}
	}
	return fmt.Errorf("list: %s was written but isn't listed", want)
}

// probeDelete reports whether the probe's objects could be removed. Not being
// allowed to is no error.
func probeDelete(ctx context.Context, store storage.Store, keys []string) (bool, error) {
	err := store.Delete(ctx, keys...)
	if errors.Is(err, storage.ErrDenied) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	for _, key := range keys {
		switch _, err := store.Stat(ctx, key); {
		case err == nil:
			return false, fmt.Errorf("delete: %s is still there", key)
		case !errors.Is(err, storage.ErrNotExist):
			return false, fmt.Errorf("look for what was deleted: %w", err)
		}
	}
	return true, nil
}
