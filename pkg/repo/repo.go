// Package repo owns the layout of a repository: the name of every key, the
// records in plain JSON (repository.json, a backup's start and its commit),
// and the listing of clusters, WAL and backups. It promises that what one
// version writes, in format 1, every later one reads.
package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/storage"
)

// Format is the repository format that this package reads and writes.
const Format = 1

// Errors of opening and creating a repository.
var (
	ErrNotInitialised = errors.New("repository isn't initialised")
	ErrInitialised    = errors.New("repository is initialised already")
)

// Info is repository.json: what a repository is, written once.
type Info struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"` // 32 hex digits, random; each sealed object carries it
	Created time.Time `json:"created"`
	// Encryption is "age" or "none". In a repository with encryption nothing
	// is stored without it.
	Encryption string `json:"encryption"`
	Probe      Probe  `json:"probe"`
	// UnsafeSingleWriter is set when the storage ignores conditional writes
	// and the user took responsibility for there being one writer.
	UnsafeSingleWriter bool `json:"unsafe_single_writer,omitempty"`
}

// Encrypted says whether everything of value in the repository is encrypted.
func (i Info) Encrypted() bool { return i.Encryption == encryptionAge }

const (
	encryptionAge  = "age"
	encryptionNone = "none"
)

// Repository is an initialised repository and the means to seal and open
// what it keeps. Opener may lack identities: then only what needs none works.
type Repository struct {
	Store  storage.Store
	Info   Info
	Sealer *object.Sealer
	Opener *object.Opener
}

// Suffix is what the keys of sealed objects end in.
func (r *Repository) Suffix() string { return object.Suffix(r.Info.Encrypted()) }

// maxInfo bounds the size of repository.json.
const maxInfo = 64 << 10

// Open reads repository.json. It returns ErrNotInitialised when the storage
// says that there is none.
func Open(ctx context.Context, store storage.Store) (Info, error) {
	data, err := readObject(ctx, store, infoKey, maxInfo)
	if errors.Is(err, storage.ErrNotExist) {
		return Info{}, ErrNotInitialised
	}
	if err != nil {
		return Info{}, fmt.Errorf("open repository: %w", err)
	}
	var info Info
	if err := unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("open repository: read %s: %w", infoKey, err)
	}
	if info.Format != Format {
		return Info{}, fmt.Errorf("open repository: its format is %d, this walship reads %d: use a newer walship", info.Format, Format)
	}
	if raw, err := hex.DecodeString(info.ID); err != nil || len(raw) != 16 {
		return Info{}, fmt.Errorf("open repository: %s has no valid id", infoKey)
	}
	if info.Encryption != encryptionAge && info.Encryption != encryptionNone {
		return Info{}, fmt.Errorf("open repository: unknown encryption %q: use a newer walship", info.Encryption)
	}
	return info, nil
}

// InitOptions say what kind of repository Init makes.
type InitOptions struct {
	Encrypted bool
	// UnsafeSingleWriter accepts a storage that ignores conditional writes.
	UnsafeSingleWriter bool
	Now                time.Time
}

// Init probes the storage and makes it a repository. It writes
// repository.json last, create-only: of several at once one succeeds, and an
// error leaves nothing behind that would pass for a repository. The result of
// the probe is returned with an error too.
func Init(ctx context.Context, store storage.Store, o InitOptions) (Info, error) {
	if existing, err := Open(ctx, store); err == nil {
		return existing, ErrInitialised
	} else if !errors.Is(err, ErrNotInitialised) {
		return Info{}, err
	}
	probe, err := RunProbe(ctx, store)
	info := Info{Format: Format, ID: randomID(), Created: o.Now.UTC(), Encryption: encryptionNone, Probe: probe}
	if err != nil {
		return info, fmt.Errorf("probe storage: %w", err)
	}
	if o.Encrypted {
		info.Encryption = encryptionAge
	}
	if !probe.ConditionalWrites {
		if !o.UnsafeSingleWriter {
			return info, fmt.Errorf("probe storage: %w: %s", ErrUnconditional, probe.Detail)
		}
		info.UnsafeSingleWriter = true
	}
	data, err := marshal(info)
	if err != nil {
		return info, err
	}
	_, err = store.Put(ctx, infoKey, bytes.NewReader(data))
	if errors.Is(err, storage.ErrExist) {
		// Either our own response was lost, or another init won.
		there, openErr := Open(ctx, store)
		if openErr == nil && there.ID == info.ID {
			return there, nil
		}
		return there, ErrInitialised
	}
	if err != nil {
		return info, fmt.Errorf("write %s: %w", infoKey, err)
	}
	return info, nil
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// readObject reads a small object whole.
func readObject(ctx context.Context, store storage.Store, key string, most int64) ([]byte, error) {
	body, info, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if info.Size > most {
		return nil, fmt.Errorf("object %s has %d bytes, more than the %d that it may have", key, info.Size, most)
	}
	return io.ReadAll(io.LimitReader(body, most))
}

// Errors of keys that don't suit a repository.
var (
	// ErrNoRecipients: the repository is encrypted and no recipient is
	// configured, so that nothing can be stored.
	ErrNoRecipients = errors.New("the repository is encrypted, but no recipient is configured: set encryption.recipients")
	// ErrUnexpectedRecipients: recipients are configured, but the repository
	// stores everything in the clear.
	ErrUnexpectedRecipients = errors.New("encryption.recipients is set, but the repository was initialised without encryption: " +
		"unset it, or initialise another repository with encryption")
)

// Keys are what a host has to write to and read from a repository; each may
// be nil.
type Keys struct {
	Recipients *crypto.Recipients
	Identities *crypto.Identities
	Level      compress.Level
}

// New puts a repository together. Without recipients, an encrypted one can be
// read only (Sealer is nil); without identities, only what needs none works.
func New(store storage.Store, info Info, keys Keys) (*Repository, error) {
	r := &Repository{
		Store:  store,
		Info:   info,
		Opener: &object.Opener{Repository: info.ID, Encrypted: info.Encrypted(), Identities: keys.Identities},
	}
	if !info.Encrypted() && keys.Recipients != nil {
		return nil, ErrUnexpectedRecipients
	}
	if !info.Encrypted() || keys.Recipients != nil {
		r.Sealer = &object.Sealer{Repository: info.ID, Recipients: keys.Recipients, Level: keys.Level}
	}
	return r, nil
}
