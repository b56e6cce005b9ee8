// Package crypto encrypts objects to age recipients and opens them with age
// identities. It is the only importer of age.
//
// A sealed stream is an ordinary age file, so `age -d` opens it. Its header
// has one more stanza, of the type StanzaType, whose body is a record about
// the content. age's header MAC covers it; the stock tool passes over it.
// Who has an identity reads a record that is bound to the content; who has
// none can read it all the same, but can't tell whether it is genuine.
package crypto

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

const (
	// StanzaType is the type of the age stanza that carries the record.
	StanzaType = "walship.dev/v1"
	// MaxHeader is the greatest length, in bytes, of an age header that is
	// read. What Seal writes is shorter.
	MaxHeader = 64 << 10
	// MaxStanzas is the greatest number of stanzas in an age header that is
	// read, the record's included.
	MaxStanzas = 32
	// MaxRecipients is the greatest number of recipients, so that with the
	// longest record and post-quantum recipients, of 1.6 kB each, a header
	// stays below MaxHeader.
	MaxRecipients = 20
	// MaxRecord is the greatest length of a record in bytes.
	MaxRecord = 16 << 10
)

// ErrNoIdentity means that none of the identities opens the stream. The
// stream may be meant for another identity or be damaged: its record says
// for whom it was written.
var ErrNoIdentity = errors.New("no identity opens it")

const intro = "age-encryption.org/"

// IsSealed tells whether head, the first bytes of a stream, starts an age file.
func IsSealed(head []byte) bool {
	return len(head) >= len(intro) && string(head[:len(intro)]) == intro
}

// Seal returns a writer that encrypts to dst what is written to it, with
// record bound to it. The record is stored in the clear. The caller closes the
// writer, which ends the encrypted stream and leaves dst open.
func (r *Recipients) Seal(dst io.Writer, record []byte) (io.WriteCloser, error) {
	if len(record) == 0 || len(record) > MaxRecord {
		return nil, fmt.Errorf("encrypt: the record has %d bytes, it must have 1 to %d", len(record), MaxRecord)
	}
	recipients := make([]age.Recipient, len(r.list))
	for i, recipient := range r.list {
		recipients[i] = recipient
	}
	recipients[0] = recordRecipient{recipients[0], record}
	w, err := age.Encrypt(dst, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return w, nil
}

// recordRecipient is a recipient that puts the record's stanza in front of its
// own.
type recordRecipient struct {
	age.Recipient
	record []byte
}

func (r recordRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := r.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels passes the labels of the recipient on, by which age refuses to
// mix those that are safe against quantum computers with those that are not.
func (r recordRecipient) WrapWithLabels(fileKey []byte) (stanzas []*age.Stanza, labels []string, err error) {
	if labelled, ok := r.Recipient.(age.RecipientWithLabels); ok {
		stanzas, labels, err = labelled.WrapWithLabels(fileKey)
	} else {
		stanzas, err = r.Recipient.Wrap(fileKey)
	}
	if err != nil {
		return nil, nil, err
	}
	record := &age.Stanza{Type: StanzaType, Body: r.record}
	return append([]*age.Stanza{record}, stanzas...), labels, nil
}

// Open decrypts src, which starts with an age header. The record that it
// returns is covered by the header's MAC, which has been checked; the reader
// fails unless the content is genuine and whole.
//
// When no identity opens src, the error wraps ErrNoIdentity and the record is
// returned with it, unchecked. A nil receiver has no identities.
func (ids *Identities) Open(src io.Reader) (record []byte, plain io.Reader, err error) {
	h := &headReader{src: src, left: MaxHeader}
	if ids != nil {
		h.identities = ids.list
	}
	plain, err = age.Decrypt(h, h)
	if err != nil {
		err = h.explain(err)
		if errors.Is(err, ErrNoIdentity) {
			record = h.record
		}
		return record, nil, fmt.Errorf("decrypt: %w", err)
	}
	return h.record, plain, nil
}

// ReadRecord returns the record of the age file that starts in src, whose first
// MaxHeader bytes suffice. Without an identity nothing shows that the record
// is genuine: it is for hints, never for decisions that can do harm.
func ReadRecord(src io.Reader) ([]byte, error) {
	h := &headReader{src: src, left: MaxHeader}
	// Without identities the header is parsed, and opening ends there.
	if _, err := age.Decrypt(h, h); !errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("read age header: %w", h.explain(err))
	}
	return h.record, nil
}

// headReader stands on both sides of age's parser. As its source it ends the
// reading of an overlong header; as its identity it is handed the stanzas of
// that header, the very ones whose MAC age checks afterwards.
type headReader struct {
	src        io.Reader
	left       int // bytes that may still be read as header; negative once it has been parsed
	sourceErr  error
	identities []age.Identity
	record     []byte
}

var errLongHeader = fmt.Errorf("age header is longer than %d bytes", MaxHeader)

func (h *headReader) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, errLongHeader
	}
	if h.left > 0 {
		p = p[:min(len(p), h.left)]
	}
	n, err := h.src.Read(p)
	if h.left > 0 {
		h.left -= n
		if err != nil && err != io.EOF {
			h.sourceErr = err
		}
	}
	return n, err
}

// Unwrap implements age.Identity.
func (h *headReader) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	h.left = -1
	if len(stanzas) > MaxStanzas {
		return nil, fmt.Errorf("age header has %d stanzas, allowed are %d", len(stanzas), MaxStanzas)
	}
	var others []*age.Stanza
	for _, s := range stanzas {
		switch {
		case s.Type != StanzaType:
			others = append(others, s)
		case h.record != nil:
			return nil, errors.New("age header has two records")
		case len(s.Args) > 0 || len(s.Body) == 0 || len(s.Body) > MaxRecord:
			return nil, errors.New("age header has a malformed record")
		default:
			h.record = s.Body
		}
	}
	if h.record == nil {
		return nil, errors.New("age header has no record: not written by walship")
	}
	for _, identity := range h.identities {
		fileKey, err := identity.Unwrap(others)
		if err == nil || !errors.Is(err, age.ErrIncorrectIdentity) {
			return fileKey, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// explain turns an error of age.Decrypt into one of this package. age's own
// texts quote what they couldn't parse, so they are cut.
func (h *headReader) explain(err error) error {
	switch {
	case h.sourceErr != nil:
		return h.sourceErr
	case errors.Is(err, age.ErrIncorrectIdentity):
		return ErrNoIdentity
	case errors.Is(err, errLongHeader):
		return errLongHeader
	}
	const most = 160
	text := strings.ReplaceAll(err.Error(), "failed to ", "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return errors.New(text)
}
