package pgdata

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/walship/walship/pkg/wal"
)

// ChecksumAlgorithm is how a backup manifest checks files, by the name that
// stands in it (pg_checksum_type in src/include/common/checksum_helper.h).
type ChecksumAlgorithm string

// The algorithms of PostgreSQL 13 to 18.
const (
	ChecksumNone   ChecksumAlgorithm = "NONE"
	ChecksumCRC32C ChecksumAlgorithm = "CRC32C"
	ChecksumSHA224 ChecksumAlgorithm = "SHA224"
	ChecksumSHA256 ChecksumAlgorithm = "SHA256"
	ChecksumSHA384 ChecksumAlgorithm = "SHA384"
	ChecksumSHA512 ChecksumAlgorithm = "SHA512"
)

// ParseChecksumAlgorithm reads the name of an algorithm in any case, as
// pg_basebackup --manifest-checksums does.
func ParseChecksumAlgorithm(name string) (ChecksumAlgorithm, error) {
	a := ChecksumAlgorithm(strings.ToUpper(name))
	if !a.valid() {
		return "", fmt.Errorf("unknown checksum algorithm %q: use NONE, CRC32C, SHA224, SHA256, SHA384 or SHA512", name)
	}
	return a, nil
}

func (a ChecksumAlgorithm) valid() bool { return a == ChecksumNone || a.New() != nil }

// New makes a hash of the algorithm; nil for ChecksumNone and unknown ones.
// Its sum is what stands in the manifest: for CRC32C the four bytes of the
// number, lowest first, as on the machines that PostgreSQL usually runs on.
func (a ChecksumAlgorithm) New() hash.Hash {
	switch a {
	case ChecksumCRC32C:
		return littleEndianCRC{crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	case ChecksumSHA224:
		return sha256.New224()
	case ChecksumSHA256:
		return sha256.New()
	case ChecksumSHA384:
		return sha512.New384()
	case ChecksumSHA512:
		return sha512.New()
	}
	return nil
}

type littleEndianCRC struct{ hash.Hash32 }

func (h littleEndianCRC) Sum(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, h.Sum32()) }

// ManifestFile is one file in a backup manifest.
type ManifestFile struct {
	Path      string            // relative to the data directory, with slashes; any bytes, not only UTF-8
	Size      int64             // bytes
	Modified  time.Time         // whole seconds
	Algorithm ChecksumAlgorithm // ChecksumNone for a file without a checksum
	Checksum  []byte            // nil for ChecksumNone
}

// ManifestWALRange is a stretch of WAL that a backup needs.
type ManifestWALRange struct {
	Timeline   wal.TimelineID
	Start, End wal.LSN
}

// ManifestVersion is the version of the manifests that a major writes: 2,
// with the system identifier, from 17 on.
func ManifestVersion(major int) int {
	if major >= 17 {
		return 2
	}
	return 1
}

// ManifestWriter writes a backup manifest byte for byte as PostgreSQL does
// (src/backend/backup/backup_manifest.c). It isn't for several goroutines at
// once. After an error all further calls fail with it.
type ManifestWriter struct {
	dst   io.Writer
	hash  hash.Hash
	files int64
	line  []byte
	err   error
}

// NewManifestWriter begins a manifest of version 1 or 2; systemID stands in
// the latter only.
func NewManifestWriter(dst io.Writer, version int, systemID uint64) (*ManifestWriter, error) {
	if version != 1 && version != 2 {
		return nil, fmt.Errorf("write manifest: unknown version %d", version)
	}
	w := &ManifestWriter{dst: dst, hash: sha256.New()}
	w.write(appendManifestHead(nil, version, systemID))
	return w, w.err
}

func appendManifestHead(line []byte, version int, systemID uint64) []byte {
	line = fmt.Appendf(line, "{ \"PostgreSQL-Backup-Manifest-Version\": %d,\n", version)
	if version > 1 {
		line = fmt.Appendf(line, "\"System-Identifier\": %d,\n", systemID)
	}
	return append(line, `"Files": [`...)
}

func (w *ManifestWriter) write(p []byte) {
	if w.err != nil {
		return
	}
	w.hash.Write(p)
	if _, err := w.dst.Write(p); err != nil {
		w.err = fmt.Errorf("write manifest: %w", err)
	}
}

// Add writes the entry of one file. The caller sees to it that no path comes
// twice.
func (w *ManifestWriter) Add(f ManifestFile) error {
	if w.err != nil {
		return w.err
	}
	if err := f.validate(); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	w.line = append(w.line[:0], ",\n"...)
	if w.files == 0 {
		w.line = append(w.line[:0], '\n')
	}
	w.files++
	w.line = appendManifestFile(w.line, f, !utf8.ValidString(f.Path))
	w.write(w.line)
	return w.err
}

// Close ends the manifest with the WAL that the backup needs, oldest range
// last as PostgreSQL writes them, and its own checksum. It doesn't close the
// underlying writer.
func (w *ManifestWriter) Close(ranges []ManifestWALRange) error {
	end := []byte("\n],\n\"WAL-Ranges\": [\n")
	for i, r := range ranges {
		if i > 0 {
			end = append(end, ",\n"...)
		}
		end = appendManifestRange(end, r)
	}
	w.write(append(end, "\n],\n"...))
	w.write(fmt.Appendf(nil, "\"Manifest-Checksum\": \"%x\"}\n", w.hash.Sum(nil)))
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("write manifest: it is closed")
	return nil
}

// validate refuses what can't stand in a manifest, or mustn't be believed when
// it does.
func (f ManifestFile) validate() error {
	if err := validManifestPath(f.Path); err != nil {
		return err
	}
	if f.Size < 0 {
		return fmt.Errorf("file %q has size %d", f.Path, f.Size)
	}
	if y := f.Modified.UTC().Year(); y < 1000 || y > 9999 {
		return fmt.Errorf("file %q has no usable modification time", f.Path)
	}
	h := f.Algorithm.New()
	switch {
	case h == nil && f.Algorithm != ChecksumNone:
		return fmt.Errorf("file %q has a checksum of unknown algorithm %q", f.Path, f.Algorithm)
	case h == nil && len(f.Checksum) != 0, h != nil && len(f.Checksum) != h.Size():
		return fmt.Errorf("file %q has a checksum of %d bytes for %s", f.Path, len(f.Checksum), f.Algorithm)
	}
	return nil
}

// validManifestPath refuses paths that aren't plain relative ones: "/x",
// "a//b", "a/../b", "./a", those with a zero byte or longer than PostgreSQL's
// limit.
func validManifestPath(name string) error {
	if name == "" || len(name) >= MaxPath {
		return fmt.Errorf("a path of %d bytes", len(name))
	}
	if strings.ContainsRune(name, 0) {
		return fmt.Errorf("path %q has a zero byte", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("path %q isn't plain and relative", name)
		}
	}
	return nil
}

const manifestTimeLayout = "2006-01-02 15:04:05 GMT"

// appendManifestFile encodes a file's object; encoded writes the path in
// hexadecimal digits, which paths that aren't UTF-8 need.
func appendManifestFile(line []byte, f ManifestFile, encoded bool) []byte {
	if encoded {
		line = append(line, `{ "Encoded-Path": "`...)
		line = hex.AppendEncode(line, []byte(f.Path))
		line = append(line, '"')
	} else {
		line = append(line, `{ "Path": `...)
		line = appendJSONString(line, f.Path)
	}
	line = append(line, `, "Size": `...)
	line = strconv.AppendInt(line, f.Size, 10)
	line = append(line, `, "Last-Modified": "`...)
	line = f.Modified.UTC().AppendFormat(line, manifestTimeLayout)
	line = append(line, '"')
	if f.Algorithm != ChecksumNone {
		line = append(line, `, "Checksum-Algorithm": "`...)
		line = append(line, f.Algorithm...)
		line = append(line, `", "Checksum": "`...)
		line = hex.AppendEncode(line, f.Checksum)
		line = append(line, '"')
	}
	return append(line, " }"...)
}

func appendManifestRange(line []byte, r ManifestWALRange) []byte {
	return fmt.Appendf(line, `{ "Timeline": %d, "Start-LSN": "%s", "End-LSN": "%s" }`, uint32(r.Timeline), r.Start, r.End)
}

// appendJSONString quotes as escape_json does (src/backend/utils/adt/json.c).
func appendJSONString(line []byte, s string) []byte {
	line = append(line, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			line = append(line, '\\', c)
		case c == '\b':
			line = append(line, `\b`...)
		case c == '\f':
			line = append(line, `\f`...)
		case c == '\n':
			line = append(line, `\n`...)
		case c == '\r':
			line = append(line, `\r`...)
		case c == '\t':
			line = append(line, `\t`...)
		case c < ' ':
			line = fmt.Appendf(line, `\u%04x`, c)
		default:
			line = append(line, c)
		}
	}
	return append(line, '"')
}
