package object

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
)

// Opener opens objects of one repository.
type Opener struct {
	Repository string             // the repository's id
	Encrypted  bool               // whether its objects are; others are refused
	Identities *crypto.Identities // nil: none, so that encrypted objects can't be opened
}

// Reader reads the content of one object. Bytes are checked against cuts and
// changes as they come where the object is encrypted, and as a whole at the
// end: only a Reader that has returned io.EOF has shown genuine content.
type Reader struct {
	header Header
	src    *source
	zstd   *compress.Reader
	size   int64 // announced; -1 when it isn't
	read   int64
	checks []check
	err    error
}

// check is a digest that the content must have.
type check struct {
	hash hash.Hash
	want Digest
}

// Open starts to read the object in src, which must be the one that want
// describes: its kind, system identifier and name, in the Opener's repository.
// A digest in want, and with it the size (or -1), comes from a commit record
// and is checked as the header's own are; without a digest, a size of 0 or less
// says nothing. Other fields of want don't matter.
//
// Errors wrap ErrCorrupt or ErrMismatch for a bad object, ErrUnsupported for
// one of a later version, and crypto.ErrNoIdentity where the identities are
// not those of its recipients. Any other is an error of src.
func (o *Opener) Open(src io.Reader, want Header) (*Reader, error) {
	r, err := o.open(src, want)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", want.Name, err)
	}
	return r, nil
}

func (o *Opener) open(src io.Reader, want Header) (*Reader, error) {
	s := newSource(src)
	head, err := s.head()
	if err != nil {
		return nil, err
	}
	want.Repository = o.Repository
	var h Header
	content := io.Reader(s)
	switch {
	case crypto.IsSealed(head) && o.Encrypted:
		h, content, err = o.openEncrypted(s, want)
	case compress.IsSkippable(head) && !o.Encrypted:
		h, err = openPlain(s)
	case crypto.IsSealed(head):
		err = fmt.Errorf("%w: it is encrypted, the repository is not", ErrMismatch)
	case compress.IsSkippable(head):
		err = fmt.Errorf("%w: it is not encrypted, the repository is", ErrMismatch)
	default:
		err = s.corrupt(errForeign)
	}
	if err != nil {
		return nil, err
	}
	if err := h.match(want); err != nil {
		return nil, err
	}
	r := &Reader{header: h, src: s, size: h.PlainSize}
	if err := r.expect(want); err != nil {
		return nil, err
	}
	if r.zstd, err = compress.NewReader(content, compress.MaxWindow); err != nil {
		return nil, err
	}
	return r, nil
}

func openPlain(s *source) (Header, error) {
	record, err := compress.ReadSkippable(s, MaxHeader)
	if err != nil {
		return Header{}, s.corrupt(err)
	}
	return parseForm(record, false)
}

func (o *Opener) openEncrypted(s *source, want Header) (Header, io.Reader, error) {
	record, content, err := o.Identities.Open(s)
	if err != nil && !errors.Is(err, crypto.ErrNoIdentity) {
		return Header{}, nil, s.corrupt(err)
	}
	h, parseErr := parseForm(record, true)
	if parseErr != nil {
		return Header{}, nil, parseErr
	}
	if err == nil {
		return h, content, nil
	}
	// The header isn't authentic here. It can only choose between errors.
	if err := h.match(want); err != nil {
		return Header{}, nil, err
	}
	have := o.Identities.Fingerprints()
	for _, fingerprint := range have {
		if slices.Contains(h.Recipients, fingerprint) {
			return Header{}, nil, fmt.Errorf("%w: it is for recipient %s, whose identity doesn't open it", ErrCorrupt, fingerprint)
		}
	}
	hint := "no identity is configured"
	if len(have) > 0 {
		hint = "the identities at hand are " + strings.Join(have, ", ")
	}
	return Header{}, nil, fmt.Errorf("%w: it is encrypted to %s, %s", crypto.ErrNoIdentity, strings.Join(h.Recipients, ", "), hint)
}

// match checks that h is the header of the object that was asked for.
func (h Header) match(want Header) error {
	switch {
	case h.Repository != want.Repository:
		return fmt.Errorf("%w: it belongs to repository %s, this is %s", ErrMismatch, h.Repository, want.Repository)
	case h.Kind != want.Kind:
		return fmt.Errorf("%w: its kind is %s, not %s", ErrMismatch, h.Kind, want.Kind)
	case h.SystemID != want.SystemID:
		return fmt.Errorf("%w: it belongs to system identifier %d, not %d", ErrMismatch, h.SystemID, want.SystemID)
	case h.Name != want.Name:
		return fmt.Errorf("%w: its name is %s, not %s", ErrMismatch, h.Name, want.Name)
	}
	return nil
}

// expect sets up what the content is checked against: what the header says,
// and what want adds.
func (r *Reader) expect(want Header) error {
	if want.PlainSize > 0 || want.PlainSize == 0 && !want.Digest.IsZero() {
		if r.size >= 0 && r.size != want.PlainSize {
			return fmt.Errorf("%w: its size is %d, not %d", ErrMismatch, r.size, want.PlainSize)
		}
		r.size = want.PlainSize
	}
	own := r.header.Digest
	if own.Algorithm == want.Digest.Algorithm && !own.Equal(want.Digest) {
		return fmt.Errorf("%w: its digest is %s, not %s", ErrMismatch, own, want.Digest)
	}
	for _, digest := range []Digest{own, want.Digest} {
		if digest.IsZero() || len(r.checks) > 0 && digest.Equal(own) {
			continue
		}
		h, err := NewHash(digest.Algorithm)
		if err != nil {
			return err
		}
		r.checks = append(r.checks, check{h, digest})
	}
	return nil
}

// Header returns the object's context header. Where the object is encrypted it
// is authentic already; otherwise it is as good as the content.
func (r *Reader) Header() Header {
	return r.header
}

// Read returns bytes of the content, never more than are announced, and io.EOF
// only when the object ended as it should and the content has the announced
// size and digest.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.size >= 0 && r.read == r.size {
		// Nothing more may come but the end.
		var one [1]byte
		if _, err := io.ReadFull(r.zstd, one[:]); err == nil {
			r.fail(fmt.Errorf("%w: the content is longer than %d bytes", ErrCorrupt, r.size))
		} else {
			r.finish(err)
		}
		return 0, r.err
	}
	if r.size >= 0 {
		p = p[:min(int64(len(p)), r.size-r.read)]
	}
	n, err := r.zstd.Read(p)
	r.read += int64(n)
	for _, c := range r.checks {
		c.hash.Write(p[:n])
	}
	if err != nil {
		r.finish(err)
	}
	return n, r.err
}

// finish decides what the end of the stream, or the error that ended it, means.
func (r *Reader) finish(err error) {
	if err != io.EOF {
		r.fail(r.src.corrupt(err))
		return
	}
	if r.size >= 0 && r.read != r.size {
		r.fail(fmt.Errorf("%w: the content has %d bytes, announced are %d", ErrCorrupt, r.read, r.size))
		return
	}
	for _, c := range r.checks {
		if got := (Digest{c.want.Algorithm, c.hash.Sum(nil)}); !got.Equal(c.want) {
			r.fail(fmt.Errorf("%w: the content's digest is %s, announced is %s", ErrCorrupt, got, c.want))
			return
		}
	}
	r.err = io.EOF
}

func (r *Reader) fail(err error) {
	r.err = fmt.Errorf("read %s: %w", r.header.Name, err)
}

// Close releases the Reader, whether or not it was read to its end. It doesn't
// close the source.
func (r *Reader) Close() error {
	if r.err == nil {
		r.err = errors.New("object is closed")
	}
	return r.zstd.Close()
}
