package pgdata

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// ManifestLimits caps what a manifest may claim. Zero stands for the default.
type ManifestLimits struct {
	Files     int64 // number of files; default 50 million
	FileSize  int64 // bytes of one file; default 32 TiB
	TotalSize int64 // bytes of all files; default 8 EiB - 1
}

const (
	defaultManifestFiles    = 50_000_000
	defaultManifestFileSize = 32 << 40
	maxManifestLine         = 16 << 10 // a path of 1,023 bytes takes 6 each at most
	maxManifestRanges       = 10_000
)

// ManifestReader reads a backup manifest as a stream. It takes exactly what
// PostgreSQL and ManifestWriter write: an entry is decoded, encoded again, and
// refused if that isn't the same line. So there are no unknown or repeated
// keys, no other escapes, and no second spelling of anything.
//
// Files are delivered before the manifest's own checksum is seen: don't act on
// them for good until Finish returned without an error.
type ManifestReader struct {
	version  int
	systemID uint64
	limits   ManifestLimits

	src    *bufio.Reader
	hash   hash.Hash
	number int // of the line last read
	err    error

	files, total int64
	list         listState
	filesRead    bool                   // the list of files has ended
	paths        map[[2]uint64]struct{} // two hashes of each path
	seeds        [2]maphash.Seed
}

// ReadManifest begins to read a manifest: its head, up to the first file.
func ReadManifest(src io.Reader, limits ManifestLimits) (*ManifestReader, error) {
	if limits.Files == 0 {
		limits.Files = defaultManifestFiles
	}
	if limits.FileSize == 0 {
		limits.FileSize = defaultManifestFileSize
	}
	if limits.TotalSize == 0 {
		limits.TotalSize = math.MaxInt64
	}
	m := &ManifestReader{
		limits: limits,
		src:    bufio.NewReaderSize(src, maxManifestLine),
		hash:   sha256.New(),
		paths:  make(map[[2]uint64]struct{}),
		seeds:  [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	m.readHead()
	return m, m.err
}

// Version is the manifest's: 1, or 2 from PostgreSQL 17 on.
func (m *ManifestReader) Version() int { return m.version }

// SystemID is the system identifier of a version 2 manifest; 0 otherwise.
func (m *ManifestReader) SystemID() uint64 { return m.systemID }

// Files yields the files in the manifest's order. An error is yielded last,
// and is Finish's too. The entries' Checksum isn't used again.
func (m *ManifestReader) Files() iter.Seq2[ManifestFile, error] {
	return func(yield func(ManifestFile, error) bool) {
		for {
			f, ok := m.nextFile()
			if m.err != nil {
				yield(ManifestFile{}, m.err)
				return
			}
			if !ok || !yield(f, nil) {
				return
			}
		}
	}
}

// Finish reads what is left of the manifest, checks its own checksum, and
// returns the WAL that the backup needs.
func (m *ManifestReader) Finish() ([]ManifestWALRange, error) {
	for m.err == nil && !m.filesRead {
		m.nextFile()
	}
	ranges := m.readRanges()
	m.readChecksum()
	if m.err != nil {
		return nil, m.err
	}
	m.err = errors.New("read manifest: it has been read")
	return ranges, nil
}

func (m *ManifestReader) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("read manifest: line %d: "+format, append([]any{m.number}, args...)...)
	}
}

// line reads the next line without its line end; valid until the next call.
// The line's bytes go into the manifest's checksum.
func (m *ManifestReader) line() []byte {
	if m.err != nil {
		return nil
	}
	m.number++
	line, err := m.src.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		m.fail("it has more than %d bytes", maxManifestLine)
		return nil
	case errors.Is(err, io.EOF):
		m.fail("the manifest is cut")
		return nil
	case err != nil:
		m.fail("%w", err)
		return nil
	}
	if !bytes.HasPrefix(line, []byte(manifestChecksumKey)) {
		m.hash.Write(line)
	}
	return line[:len(line)-1]
}

func (m *ManifestReader) expect(want string) {
	if line := m.line(); m.err == nil && string(line) != want {
		m.fail("%q is expected", want)
	}
}

func (m *ManifestReader) readHead() {
	switch string(m.line()) {
	case `{ "PostgreSQL-Backup-Manifest-Version": 1,`:
		m.version = 1
	case `{ "PostgreSQL-Backup-Manifest-Version": 2,`:
		m.version = 2
		line := m.line()
		id, foundKey := bytes.CutPrefix(line, []byte(`"System-Identifier": `))
		id, foundEnd := bytes.CutSuffix(id, []byte(","))
		n, err := strconv.ParseUint(string(id), 10, 64)
		if !foundKey || !foundEnd || err != nil || strconv.FormatUint(n, 10) != string(id) {
			m.fail("a system identifier is expected")
		}
		m.systemID = n
	default:
		m.fail("it isn't the beginning of a backup manifest of version 1 or 2")
	}
	m.expect(`"Files": [`)
}

const (
	manifestListEnd     = `],`
	manifestChecksumKey = `"Manifest-Checksum": "`
)

// listState is what the line before said of the next one in a list.
type listState int

const (
	listBegins listState = iota // an entry or the list's end
	listComma                   // an entry follows
	listLast                    // the list's end follows
)

// nextEntry is the next object of a list, without its comma; false at the
// list's end.
func (m *ManifestReader) nextEntry() ([]byte, bool) {
	line := m.line()
	if m.err != nil {
		return nil, false
	}
	if string(line) == manifestListEnd {
		if m.list == listComma {
			m.fail("an entry is missing behind a comma")
		}
		m.list = listBegins
		return nil, false
	}
	if m.list == listLast {
		m.fail("%q is expected", manifestListEnd)
		return nil, false
	}
	line, comma := bytes.CutSuffix(line, []byte(","))
	m.list = listLast
	if comma {
		m.list = listComma
	}
	return line, true
}

// nextFile is the next file; false at the end of the files and at an error.
func (m *ManifestReader) nextFile() (ManifestFile, bool) {
	if m.filesRead {
		return ManifestFile{}, false
	}
	line, more := m.nextEntry()
	if !more {
		m.filesRead = true
		return ManifestFile{}, false
	}
	f, err := decodeManifestFile(line)
	if err != nil {
		m.fail("%w", err)
		return ManifestFile{}, false
	}
	m.files++
	key := [2]uint64{maphash.String(m.seeds[0], f.Path), maphash.String(m.seeds[1], f.Path)}
	_, twice := m.paths[key]
	switch {
	case m.files > m.limits.Files:
		m.fail("there are more than %d files", m.limits.Files)
	case f.Size > m.limits.FileSize:
		m.fail("file %q has more than %d bytes", f.Path, m.limits.FileSize)
	case f.Size > m.limits.TotalSize-m.total:
		m.fail("the files have more than %d bytes together", m.limits.TotalSize)
	case twice:
		m.fail("file %q stands there twice", f.Path)
	}
	m.total += f.Size
	m.paths[key] = struct{}{}
	return f, m.err == nil
}

// decodeManifestFile is the inverse of appendManifestFile.
func decodeManifestFile(line []byte) (ManifestFile, error) {
	var entry struct {
		Path         *string
		EncodedPath  *string `json:"Encoded-Path"`
		Size         int64
		LastModified string            `json:"Last-Modified"`
		Algorithm    ChecksumAlgorithm `json:"Checksum-Algorithm"`
		Checksum     string
	}
	if err := json.Unmarshal(line, &entry); err != nil {
		return ManifestFile{}, fmt.Errorf("decode file: %w", err)
	}
	f := ManifestFile{Size: entry.Size, Algorithm: entry.Algorithm}
	var err error
	encoded := entry.EncodedPath != nil
	switch {
	case encoded:
		var path []byte
		path, err = hex.DecodeString(*entry.EncodedPath)
		f.Path = string(path)
	case entry.Path != nil:
		f.Path = *entry.Path
	}
	if err != nil {
		return ManifestFile{}, fmt.Errorf("decode path: %w", err)
	}
	if f.Modified, err = time.Parse(manifestTimeLayout, entry.LastModified); err != nil {
		return ManifestFile{}, fmt.Errorf("decode modification time: %w", err)
	}
	if f.Algorithm == "" {
		f.Algorithm = ChecksumNone
	} else if f.Checksum, err = hex.DecodeString(entry.Checksum); err != nil {
		return ManifestFile{}, fmt.Errorf("decode checksum: %w", err)
	}
	if err := f.validate(); err != nil {
		return ManifestFile{}, err
	}
	if !bytes.Equal(appendManifestFile(nil, f, encoded), line) {
		return ManifestFile{}, fmt.Errorf("the entry of file %q isn't in PostgreSQL's form", f.Path)
	}
	return f, nil
}

func (m *ManifestReader) readRanges() []ManifestWALRange {
	m.expect(`"WAL-Ranges": [`)
	var ranges []ManifestWALRange
	for {
		line, more := m.nextEntry()
		if !more {
			return ranges
		}
		r, err := decodeManifestRange(line)
		if err != nil {
			m.fail("%w", err)
			return nil
		}
		if ranges = append(ranges, r); len(ranges) > maxManifestRanges {
			m.fail("there are more than %d ranges of WAL", maxManifestRanges)
			return nil
		}
	}
}

// decodeManifestRange is the inverse of appendManifestRange.
func decodeManifestRange(line []byte) (ManifestWALRange, error) {
	var entry struct {
		Timeline uint32
		Start    string `json:"Start-LSN"`
		End      string `json:"End-LSN"`
	}
	if err := json.Unmarshal(line, &entry); err != nil {
		return ManifestWALRange{}, fmt.Errorf("decode range of WAL: %w", err)
	}
	start, err := wal.ParseLSN(entry.Start)
	if err != nil {
		return ManifestWALRange{}, fmt.Errorf("decode range of WAL: %w", err)
	}
	end, err := wal.ParseLSN(entry.End)
	if err != nil {
		return ManifestWALRange{}, fmt.Errorf("decode range of WAL: %w", err)
	}
	r := ManifestWALRange{Timeline: wal.TimelineID(entry.Timeline), Start: start, End: end}
	if r.Timeline == 0 || r.Start > r.End || !bytes.Equal(appendManifestRange(nil, r), line) {
		return ManifestWALRange{}, errors.New("the range of WAL isn't in PostgreSQL's form")
	}
	return r, nil
}

func (m *ManifestReader) readChecksum() {
	want := fmt.Sprintf("%s%x\"}", manifestChecksumKey, m.hash.Sum(nil))
	line := m.line()
	switch {
	case m.err != nil:
	case !bytes.HasPrefix(line, []byte(manifestChecksumKey)):
		m.fail("the manifest's checksum is expected")
	case string(line) != want:
		m.fail("the manifest's checksum doesn't match its content")
	default:
		if _, err := m.src.ReadByte(); err == nil {
			m.fail("there is something behind the manifest's end")
		} else if !errors.Is(err, io.EOF) {
			m.fail("%w", err)
		}
	}
}
