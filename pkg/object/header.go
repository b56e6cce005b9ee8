package object

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/wal"
)

// Kind says what an object holds.
type Kind string

// The kinds of objects in format 1. Readers accept others by name, so that a
// later version can add some.
const (
	KindSegment       Kind = "wal"            // a whole WAL segment
	KindPartial       Kind = "partial"        // a segment that its timeline never completed
	KindBackupHistory Kind = "backup-history" // PostgreSQL's SEGMENT.OFFSET.backup
	KindPart          Kind = "part"           // a tar of a base backup
	KindManifest      Kind = "manifest"       // a base backup's backup_manifest
	KindConfiguration Kind = "configuration"  // a tar of configuration files from outside the data directory
	KindCanary        Kind = "canary"         // a repository's proof that an identity opens its objects
)

// Format is the first line's value in every context header of format 1.
const Format = "walship.dev/v1"

// MaxHeader is the greatest length of a context header in bytes.
const MaxHeader = crypto.MaxRecord

// Header is the context header: the short text at the start of every object
// that says what the object is. See docs/repository-format.md.
type Header struct {
	Repository string   // random id of the repository
	Kind       Kind     // what it holds
	SystemID   uint64   // the cluster; 0 for what belongs to none
	Name       string   // which one of its kind: a file name of PostgreSQL, or a backup's id and part
	PlainSize  int64    // bytes of the content; -1: not known when the header was written
	Digest     Digest   // of the content; zero: not known when the header was written
	Recipients []string // fingerprints of the recipients; empty when the object isn't encrypted
	// Host is the name of the machine that wrote it, which tells people who
	// the other writer is; "" when that isn't known. One that can't be
	// written, of more than 255 bytes for example, is left out.
	Host string
	// Fields are optional statements about the content: keys of lower-case
	// letters, digits, "-", "_" and ".", each once, in the writer's order. A
	// reader ignores those that it doesn't know.
	Fields []wal.Field
}

// Keys of the lines, in their order. Fields stand before the last.
const (
	keyFormat     = "format"
	keyRepository = "repository"
	keyKind       = "kind"
	keySystemID   = "system_id"
	keyName       = "name"
	keySize       = "size"
	keyDigest     = "digest"
	keyRecipients = "recipients"
	keyHost       = "host"
	keyEnd        = "end"
)

// critical marks a key that a reader must know to read the object.
const critical = "!"

// Marshal returns the header as text. It fails when a value can't be written:
// control characters, an empty name, a header longer than MaxHeader.
func (h Header) Marshal() ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, fmt.Errorf("write context header: %w", err)
	}
	var b bytes.Buffer
	line := func(key, value string) {
		b.WriteString(key + "=" + value + "\n")
	}
	line(keyFormat, Format)
	line(keyRepository, h.Repository)
	line(keyKind, string(h.Kind))
	line(keySystemID, strconv.FormatUint(h.SystemID, 10))
	line(keyName, h.Name)
	if h.PlainSize >= 0 {
		line(keySize, strconv.FormatInt(h.PlainSize, 10))
	}
	if !h.Digest.IsZero() {
		line(keyDigest, h.Digest.String())
	}
	if len(h.Recipients) > 0 {
		line(keyRecipients, strings.Join(h.Recipients, ","))
	}
	if validName(h.Host) {
		line(keyHost, h.Host)
	}
	for _, f := range h.Fields {
		line(f.Key, f.Value)
	}
	line(keyEnd, endOf(b.Bytes()))
	if b.Len() > MaxHeader {
		return nil, fmt.Errorf("write context header: it has %d bytes, allowed are %d", b.Len(), MaxHeader)
	}
	return b.Bytes(), nil
}

// endOf returns the value of the last line: the digest of the lines before it.
func endOf(lines []byte) string {
	sum := sha256.Sum256(lines)
	return Digest{SHA256, sum[:]}.String()
}

// ParseHeader reads what Marshal writes and nothing else: whatever it accepts,
// Marshal writes again, byte for byte. Errors wrap ErrUnsupported for a header
// that a later version wrote, and ErrCorrupt for any other.
func ParseHeader(record []byte) (Header, error) {
	h, err := parseHeader(record)
	if err == nil || errors.Is(err, ErrUnsupported) {
		return h, err
	}
	return Header{}, fmt.Errorf("%w: context header: %w", ErrCorrupt, err)
}

func parseHeader(record []byte) (Header, error) {
	if len(record) > MaxHeader {
		return Header{}, fmt.Errorf("%d bytes, allowed are %d", len(record), MaxHeader)
	}
	at := bytes.LastIndex(record, []byte("\n"+keyEnd+"=")) + 1
	lines, end := record[:at], record[at:]
	if at == 0 || string(end) != keyEnd+"="+endOf(lines)+"\n" {
		return Header{}, errors.New("its own digest doesn't match")
	}
	h := Header{PlainSize: -1}
	for i, line := range strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok || i == 0 && key != keyFormat {
			return Header{}, fmt.Errorf("malformed line %d", i+1)
		}
		if err := h.set(key, value); err != nil {
			return Header{}, err
		}
	}
	// Order, repeated keys, other spellings of a number, missing lines: one
	// rule refuses all of them.
	again, err := h.Marshal()
	if err != nil {
		return Header{}, err
	}
	if !bytes.Equal(again, record) {
		return Header{}, errors.New("lines are missing, repeated or out of order")
	}
	return h, nil
}

func (h *Header) set(key, value string) (err error) {
	switch key {
	case keyFormat:
		if value != Format {
			err = fmt.Errorf("%w: its format is %.80q, this version reads %s", ErrUnsupported, value, Format)
		}
	case keyRepository:
		h.Repository = value
	case keyKind:
		h.Kind = Kind(value)
	case keySystemID:
		h.SystemID, err = strconv.ParseUint(value, 10, 64)
	case keyName:
		h.Name = value
	case keySize:
		h.PlainSize, err = strconv.ParseInt(value, 10, 64)
	case keyDigest:
		h.Digest, err = ParseDigest(value)
	case keyRecipients:
		h.Recipients = strings.Split(value, ",")
	case keyHost:
		h.Host = value
	default:
		if strings.HasPrefix(key, critical) {
			return fmt.Errorf("%w: its context header has %.80q, which a reader must know", ErrUnsupported, key)
		}
		h.Fields = append(h.Fields, wal.Field{Key: key, Value: value})
	}
	return err
}

const (
	maxWord       = 64  // bytes of a repository id, a kind, a fingerprint, a field's key
	maxNameLength = 255 // bytes of a name, of an object or a host
)

func (h Header) validate() error {
	if !validWord(h.Repository) {
		return fmt.Errorf("malformed repository id %.80q", h.Repository)
	}
	if !validWord(string(h.Kind)) {
		return fmt.Errorf("malformed kind %.80q", h.Kind)
	}
	if !validName(h.Name) {
		return fmt.Errorf("malformed name %.80q", h.Name)
	}
	if h.PlainSize < -1 {
		return fmt.Errorf("malformed size %d", h.PlainSize)
	}
	if _, err := ParseDigest(h.Digest.String()); err != nil && !h.Digest.IsZero() {
		return err
	}
	for i, r := range h.Recipients {
		if !validWord(r) || slices.Contains(h.Recipients[:i], r) {
			return fmt.Errorf("malformed or repeated recipient %.80q", r)
		}
	}
	seen := make(map[string]bool, len(h.Fields))
	for _, f := range h.Fields {
		if !validWord(f.Key) || reserved(f.Key) || seen[f.Key] {
			return fmt.Errorf("malformed or repeated key %.80q", f.Key)
		}
		if !validValue(f.Value) {
			return fmt.Errorf("malformed value of %s", f.Key)
		}
		seen[f.Key] = true
	}
	return nil
}

func reserved(key string) bool {
	switch key {
	case keyFormat, keyRepository, keyKind, keySystemID, keyName, keySize, keyDigest, keyRecipients, keyHost, keyEnd:
		return true
	}
	return false
}

// validWord tells whether s is made of lower-case letters, digits, "-", "_" and ".".
func validWord(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxWord
}

// validName tells whether s is a value that isn't empty, nor longer than a name.
func validName(s string) bool {
	return 0 < len(s) && len(s) <= maxNameLength && validValue(s)
}

// validValue tells whether s is UTF-8 without control characters.
func validValue(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
