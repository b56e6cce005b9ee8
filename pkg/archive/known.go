package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/walship/walship/pkg/done"
	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/repo"
)

const (
	knownFile = "repository"
	// KnownLife is how long repository.json isn't read again. A repository
	// that is made anew at the same URL gets objects of the old one's id for
	// no longer than that.
	KnownLife = done.KnownLife
)

// Known remembers for a short time what repository.json says, so that a push
// needn't ask. What can't be read, is older, or is of another place isn't known.
type Known struct {
	// State is the private state folder of this server.
	State *os.Root
	// Place is the repository's URL, and what else leads to its storage.
	Place string

	now func() time.Time // nil: time.Now
}

// remembered is the file's content, behind a line with the digest of it.
type remembered struct {
	Place string    `json:"place_digest"` // it may be long, and isn't this folder's business
	Read  time.Time `json:"read"`
	Info  repo.Info `json:"info"`
}

func (k *Known) time() time.Time {
	if k.now != nil {
		return k.now()
	}
	return time.Now()
}

func (k *Known) placeDigest() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(k.Place))) }

// Info returns what is known, and when it was read.
func (k *Known) Info() (info repo.Info, read time.Time, known bool) {
	data, err := k.State.ReadFile(knownFile)
	if err != nil {
		return info, read, false
	}
	digest, content, _ := bytes.Cut(data, []byte("\n"))
	if string(digest) != digestLine(content) {
		return info, read, false
	}
	var there remembered
	if err := json.Unmarshal(content, &there); err != nil || there.Place != k.placeDigest() {
		return info, read, false
	}
	if age := k.time().Sub(there.Read); age < 0 || age >= KnownLife {
		return info, read, false
	}
	return there.Info, there.Read, true
}

// Remember keeps what was read at a time.
func (k *Known) Remember(info repo.Info, read time.Time) error {
	content, err := json.Marshal(remembered{k.placeDigest(), read, info})
	if err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	f, err := durable.Create(k.State, knownFile)
	if err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	defer f.Discard()
	if _, err := f.Write(append([]byte(digestLine(content)+"\n"), content...)); err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	if err := f.RenameVolatile(); err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	return nil
}

// Forget drops what is known.
func (k *Known) Forget() error {
	if err := k.State.Remove(knownFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the repository: %w", err)
	}
	return nil
}

func digestLine(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }
