// Package storage defines what walship asks of the place that keeps its
// objects: bytes under keys, each written once, none ever replaced. It knows
// nothing of PostgreSQL.
//
// The implementations are in file (a directory), s3 (any server that speaks
// S3 with conditional writes) and mem (tests). The suite in storagetest holds
// all of them to the contract written at Store.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"strconv"
	"time"
)

// Errors that callers branch on. An implementation wraps them with the
// operation and the key. Any other error means that the outcome is unknown
// and that trying again may help: in particular it never means "absent".
var (
	// ErrExist is returned by Put when an object of that key is there
	// already. It may be the caller's own object, whose response was lost:
	// the caller compares.
	ErrExist = errors.New("object already exists")
	// ErrNotExist means that the storage answered, with authority, that
	// there is no object of that key.
	ErrNotExist = errors.New("object does not exist")
	// ErrDenied means that the storage refused the credentials or the
	// operation (401, 403, EACCES), or that there are no credentials.
	// Trying again without a change of configuration won't help.
	ErrDenied = errors.New("access denied")
	// ErrNoStore means that the place itself is missing: no such bucket or
	// directory. It is never reported as ErrNotExist.
	ErrNoStore = errors.New("storage location does not exist")
	// ErrInvalid means that the request itself is wrong: a malformed key or
	// URL, an unsupported option. Trying again won't help.
	ErrInvalid = errors.New("invalid request")
)

// Lasting tells whether an error is one that trying again doesn't end without
// a change of configuration: ErrDenied, ErrNoStore or ErrInvalid.
func Lasting(err error) bool {
	return errors.Is(err, ErrDenied) || errors.Is(err, ErrNoStore) || errors.Is(err, ErrInvalid)
}

// Info describes one stored object.
type Info struct {
	Key      string
	Size     int64     // bytes
	ETag     string    // opaque; equal ETags of one key mean equal bytes; "" where the storage has none
	Modified time.Time // the storage's own record of when the object was written; zero where Put can't tell
	// ServerTime is the storage's clock when it answered (for a directory,
	// this machine's); zero in listings.
	ServerTime time.Time
}

// Store keeps objects under keys. Every method may be called from several
// goroutines at once, and obeys its context: when that ends, the method
// returns soon, with an error that wraps the context's.
//
// A key is 1 to 1,024 bytes of segments joined by "/"; a segment is made of
// letters, digits, ".", "_", "-", "+" and "=", is not empty and is not "." or
// "..". Other keys are refused with ErrInvalid before anything is done.
type Store interface {
	// Put writes body, to its end, as a new object and returns when the
	// object is durable: it survives a loss of power of the storage's host.
	// The object is visible whole or not at all. When the key is taken, Put
	// changes nothing and returns ErrExist, whoever wrote it; of several
	// writers at once exactly one succeeds.
	//
	// A body that is also an io.Seeker is rewound and sent again when a
	// request fails; any other is held in memory one part at a time, so its
	// length may be anything and needn't be known. When reading body fails,
	// or ctx ends, nothing becomes visible and what had been uploaded is
	// removed, as far as the storage can still be reached.
	Put(ctx context.Context, key string, body io.Reader) (Info, error)

	// Get reads length bytes of an object from offset on; a negative length
	// reads to its end. The reader delivers exactly the bytes that are
	// there, or fails: it never ends short without an error, and resumes by
	// itself (of the same object only) where a connection breaks. A range
	// that starts at or behind the end is empty. Info.Size is the size of
	// the whole object. The caller closes the reader.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error)

	// Stat describes an object, or returns ErrNotExist.
	Stat(ctx context.Context, key string) (Info, error)

	// List yields the objects whose key starts with prefix (bytes, not path
	// segments; "" for all) and is greater than after ("" for all), in byte
	// order of their keys. It reads as it goes: its cost follows what the
	// caller consumes. An error ends it and is yielded last; a listing that
	// ended without one is complete. Unfinished writes are never listed.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes objects. A key that isn't there is not an error.
	// Everything that could be removed is, and the errors of the rest are
	// joined.
	Delete(ctx context.Context, keys ...string) error

	// Sweep removes what abandoned writes left behind (multipart uploads,
	// temporary files) below prefix, if they were begun before the given
	// time on the storage's clock, and returns how many there were.
	Sweep(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Stager is what a Store can be besides, if it can do most of a Put before the
// object is to be there: who writes several, one strictly after the other, has
// the next ones ready by then. A Store that isn't one does nothing worse, only
// later: the caller uses Put.
type Stager interface {
	// Stage writes body, to its end, durably and where no method of Store
	// shows it, as the object that is to have the key. Whether the key is taken
	// isn't asked. The errors are those of Put, but for ErrExist.
	//
	// The caller discards what was staged, in any case; what a killed process
	// staged is for Sweep.
	Stage(ctx context.Context, key string, body io.Reader) (Staged, error)
}

// Staged is an object that is ready. It is not for use by several goroutines at
// once.
type Staged interface {
	// Publish makes the object visible, with the promises, the result and the
	// errors of Put. It is called once at most.
	Publish(ctx context.Context) (Info, error)
	// Discard removes the object unless Publish was called. It may be called at
	// any time, and more than once.
	Discard()
}

// ValidKey returns an error that wraps ErrInvalid unless key is one that a
// Store accepts.
func ValidKey(key string) error {
	if len(key) == 0 || len(key) > 1024 {
		return &keyError{key, "its length is not 1 to 1,024 bytes"}
	}
	start := 0
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			if !validByte(key[i]) {
				return &keyError{key, "it has a character other than letters, digits, . _ - + = and /"}
			}
			continue
		}
		switch key[start:i] {
		case "":
			return &keyError{key, "it has an empty segment"}
		case ".", "..":
			return &keyError{key, "it has a segment . or .."}
		}
		start = i + 1
	}
	return nil
}

func validByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '.' || c == '_' || c == '-' || c == '+' || c == '='
}

type keyError struct{ key, why string }

func (e *keyError) Error() string {
	const most = 80
	key := e.key
	if len(key) > most {
		key = key[:most] + "…"
	}
	return "invalid key " + strconv.Quote(key) + ": " + e.why
}

func (e *keyError) Unwrap() error { return ErrInvalid }
