package object

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
)

// Sealer makes objects of one repository, several at a time if need be. Its
// fields don't change once it is in use.
type Sealer struct {
	Repository string             // the repository's id
	Recipients *crypto.Recipients // nil: objects are not encrypted
	Level      compress.Level

	// Window bounds the window of what is compressed, in bytes, and with it
	// the memory that this takes; 0 is the level's own.
	Window int
	// Segments says that what is compressed are WAL segments, as Packers do it; Window
	// is of no account then.
	Segments bool

	mu sync.Mutex
	// idle are compressors to use again: to allocate one takes a quarter of the
	// time to compress a segment. There are never more of them than were in use
	// at once, where a sync.Pool may not find what another processor gave back.
	idle []compressor
}

// Suffix returns what the keys of the objects end in: which commands open them.
func (s *Sealer) Suffix() string {
	return Suffix(s.Recipients != nil)
}

// Suffix returns ".zst.age" for encrypted objects, ".zst" for others.
func Suffix(encrypted bool) string {
	if encrypted {
		return ".zst.age"
	}
	return ".zst"
}

// Result describes a sealed object.
type Result struct {
	PlainSize    int64  // bytes of the content
	PlainDigest  Digest // of the content, by the header's algorithm or the Fastest
	StoredSize   int64  // bytes of the object
	StoredDigest Digest // of the object, always SHA-256, so that sha256sum checks it
}

// Writer seals one object. What has been written to the destination is an
// object only when Close has succeeded. A Writer that is given up needs no
// Close.
type Writer struct {
	sealer    *Sealer
	header    Header
	stored    *meter
	encrypted io.WriteCloser // nil when it isn't
	zstd      compressor
	hash      hash.Hash
	size      int64
	err       error
	result    Result
}

// Seal starts an object on dst. The Sealer fills in the header's repository and
// recipients. A size or digest in the header is a promise that Close checks;
// where it can't be known, the size is -1 and the digest zero, and whoever
// keeps the Result passes both to Open.
func (s *Sealer) Seal(dst io.Writer, h Header) (*Writer, error) {
	record, err := s.record(h)
	if err != nil {
		return nil, err
	}
	algorithm := h.Digest.Algorithm
	if h.Digest.IsZero() {
		algorithm = Fastest()
	}
	w := &Writer{sealer: s, header: h, stored: &meter{w: dst, hash: sha256.New()}}
	if w.hash, err = NewHash(algorithm); err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.Name, err)
	}
	inner := io.Writer(w.stored)
	if s.Recipients != nil {
		w.encrypted, err = s.Recipients.Seal(w.stored, record)
		inner = w.encrypted
	} else {
		err = compress.WriteSkippable(w.stored, record)
	}
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.Name, err)
	}
	if w.zstd, err = s.compressor(inner); err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.Name, err)
	}
	return w, nil
}

// record is the header's text, with the repository and the recipients.
func (s *Sealer) record(h Header) ([]byte, error) {
	h.Repository = s.Repository
	h.Recipients = nil
	if s.Recipients != nil {
		h.Recipients = s.Recipients.Fingerprints()
	}
	record, err := h.Marshal()
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.Name, err)
	}
	return record, nil
}

// compressor compresses one object after the other.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

func (s *Sealer) compressor(dst io.Writer) (compressor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.idle) - 1; last >= 0 {
		w := s.idle[last]
		s.idle = s.idle[:last]
		w.Reset(dst)
		return w, nil
	}
	switch {
	case s.Segments:
		return compress.NewSegmentWriter(dst, s.Level, 1)
	case s.Window > 0:
		return compress.NewNarrowWriter(dst, s.Level, s.Window)
	}
	return compress.NewWriter(dst, s.Level)
}

// release keeps a compressor for the next object.
func (s *Sealer) release(w compressor) {
	w.Reset(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, w)
}

// Write adds to the content. It fails when that becomes longer than the header
// says.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.header.PlainSize >= 0 && int64(len(p)) > w.header.PlainSize-w.size {
		return 0, w.fail(fmt.Errorf("the content is longer than the %d bytes announced", w.header.PlainSize))
	}
	n, err := w.zstd.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, w.fail(err)
	}
	return n, nil
}

// Close ends the object. It fails, and the object must not be used, when the
// content isn't what the header says.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	digest := Digest{w.header.Digest.Algorithm, w.hash.Sum(nil)}
	switch {
	case w.header.PlainSize >= 0 && w.size != w.header.PlainSize:
		return w.fail(fmt.Errorf("the content has %d bytes, announced were %d", w.size, w.header.PlainSize))
	case w.header.Digest.IsZero():
		digest.Algorithm = Fastest()
	case !digest.Equal(w.header.Digest):
		return w.fail(fmt.Errorf("the content's digest is %s, announced was %s", digest, w.header.Digest))
	}
	if err := w.zstd.Close(); err != nil {
		return w.fail(err)
	}
	if w.encrypted != nil {
		if err := w.encrypted.Close(); err != nil {
			return w.fail(err)
		}
	}
	w.sealer.release(w.zstd)
	w.result = Result{w.size, digest, w.stored.size, Digest{SHA256, w.stored.hash.Sum(nil)}}
	w.err = errors.New("object is closed")
	return nil
}

// Result describes the object once Close has succeeded.
func (w *Writer) Result() Result {
	return w.result
}

func (w *Writer) fail(err error) error {
	w.err = fmt.Errorf("seal %s: %w", w.header.Name, err)
	return w.err
}

// meter counts and hashes what is stored.
type meter struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.hash.Write(p[:n])
	m.size += int64(n)
	return n, err
}
