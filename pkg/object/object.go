// Package object makes one stored object of some content, and the content of a
// stored object: context header, compression, encryption.
//
// Sealing and opening are streams; memory doesn't grow with the content.
// Whoever has read an opened object to its end without an error has the bytes
// that were sealed, under the name, kind, cluster and repository that he asked
// for. Whoever can write to the storage and knows the recipient can still make
// a new object: age says for whom a file is, not from whom.
package object

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
)

var (
	// ErrCorrupt means that the stored bytes are not a whole object as it
	// was sealed: cut, changed, or never one.
	ErrCorrupt = errors.New("corrupt object")
	// ErrMismatch means that the object is not the one that was asked for:
	// renamed, swapped, copied from another repository, or encrypted in a
	// repository that isn't and the other way round. It wraps ErrCorrupt.
	ErrMismatch = fmt.Errorf("%w: not the one asked for", ErrCorrupt)
	// ErrUnsupported means that a later version of walship wrote the
	// object and this one can't read it.
	ErrUnsupported = errors.New("object needs a later version of walship")
)

// HeadSize is the number of bytes at the start of an object that always hold
// its whole context header.
const HeadSize = crypto.MaxHeader

// ReadHeader returns the context header of the object that starts in src, of
// which HeadSize bytes suffice. It needs no identity, so nothing shows that
// the header of an encrypted object is genuine: it serves to recognise one's
// own objects and to show hints, not to decide what could do harm.
func ReadHeader(src io.Reader) (Header, error) {
	s := newSource(src)
	head, err := s.head()
	if err != nil {
		return Header{}, err
	}
	var record []byte
	encrypted := crypto.IsSealed(head)
	switch {
	case encrypted:
		record, err = crypto.ReadRecord(s)
	case compress.IsSkippable(head):
		record, err = compress.ReadSkippable(s, MaxHeader)
	default:
		err = errForeign
	}
	if err != nil {
		return Header{}, s.corrupt(err)
	}
	return parseForm(record, encrypted)
}

var errForeign = errors.New("it starts like no object of walship")

// parseForm parses a context header and checks it against the object's form.
func parseForm(record []byte, encrypted bool) (Header, error) {
	h, err := ParseHeader(record)
	if err == nil && encrypted != (len(h.Recipients) > 0) {
		return Header{}, fmt.Errorf("%w: context header of the other form, encrypted or not", ErrCorrupt)
	}
	return h, err
}

// source reads an object's bytes and remembers why that failed, so that a
// broken connection isn't taken for a broken object.
type source struct {
	*bufio.Reader
	raw rawSource
}

type rawSource struct {
	io.Reader
	err error
}

func (r *rawSource) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func newSource(src io.Reader) *source {
	s := &source{raw: rawSource{Reader: src}}
	s.Reader = bufio.NewReaderSize(&s.raw, 64<<10)
	return s
}

// head returns the first bytes, without consuming them; fewer if there are
// fewer.
func (s *source) head() ([]byte, error) {
	head, err := s.Peek(32)
	if err != nil && err != io.EOF {
		return nil, s.corrupt(err)
	}
	return head, nil
}

// corrupt wraps an error of reading the object: that of the source where there
// was one, else err as ErrCorrupt.
func (s *source) corrupt(err error) error {
	if s.raw.err != nil {
		return fmt.Errorf("read object: %w", s.raw.err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
