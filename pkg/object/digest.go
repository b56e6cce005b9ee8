package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/cpu"
)

// The digest algorithms that readers know. Both are 32 bytes long, and Debian
// has tools for both (sha256sum, b3sum).
const (
	SHA256 = "sha256"
	BLAKE3 = "blake3"
)

const digestSize = 32

// Digest is a digest of some bytes, with the algorithm that made it. The zero
// Digest is one that isn't known.
type Digest struct {
	Algorithm string // SHA256 or BLAKE3
	Sum       []byte // 32 bytes
}

// NewHash returns a hash of that algorithm; an unknown one is ErrUnsupported.
func NewHash(algorithm string) (hash.Hash, error) {
	switch algorithm {
	case SHA256:
		return sha256.New(), nil
	case BLAKE3:
		return blake3.New(), nil
	}
	return nil, fmt.Errorf("%w: unknown digest algorithm %q", ErrUnsupported, algorithm)
}

// Fastest returns the quicker algorithm on this processor: BLAKE3 where its
// vector code runs (amd64), else SHA-256, for which others have instructions.
func Fastest() string {
	if cpu.X86.HasSSE41 {
		return BLAKE3
	}
	return SHA256
}

// DigestOf returns the digest of data by the Fastest algorithm.
func DigestOf(data []byte) Digest {
	if Fastest() == BLAKE3 {
		sum := blake3.Sum256(data)
		return Digest{BLAKE3, sum[:]}
	}
	sum := sha256.Sum256(data)
	return Digest{SHA256, sum[:]}
}

// ParseDigest reads what String writes: an algorithm, a colon and lower-case
// hex. An unknown algorithm is ErrUnsupported.
func ParseDigest(s string) (Digest, error) {
	algorithm, text, ok := strings.Cut(s, ":")
	if !ok {
		return Digest{}, fmt.Errorf("parse digest %.80q: no algorithm", s)
	}
	if _, err := NewHash(algorithm); err != nil {
		return Digest{}, fmt.Errorf("parse digest: %w", err)
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != digestSize || strings.ToLower(text) != text {
		return Digest{}, fmt.Errorf("parse digest %.80q: not %d lower-case hex digits", s, 2*digestSize)
	}
	return Digest{algorithm, sum}, nil
}

// String returns "blake3:" or "sha256:" and the sum in hex; "" for the zero
// Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Algorithm + ":" + hex.EncodeToString(d.Sum)
}

// IsZero tells whether the digest isn't known.
func (d Digest) IsZero() bool {
	return d.Algorithm == "" && len(d.Sum) == 0
}

// Equal tells whether both digests have the same algorithm and sum. Digests of
// different algorithms are never equal, whatever they are of.
func (d Digest) Equal(other Digest) bool {
	return d.Algorithm == other.Algorithm && bytes.Equal(d.Sum, other.Sum)
}
