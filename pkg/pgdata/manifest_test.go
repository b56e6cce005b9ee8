package pgdata

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var manifestTime = time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)

func checksum(a ChecksumAlgorithm, content string) []byte {
	h := a.New()
	h.Write([]byte(content))
	return h.Sum(nil)
}

func oddFiles() []ManifestFile {
	return []ManifestFile{
		{Path: "PG_VERSION", Size: 3, Modified: manifestTime, Algorithm: ChecksumCRC32C, Checksum: checksum(ChecksumCRC32C, "17\n")},
		{Path: "global/pg_control", Size: 8192, Modified: manifestTime, Algorithm: ChecksumSHA224, Checksum: checksum(ChecksumSHA224, "x")},
		{Path: "a \"quoted\" \\ name\n\t\b\f\r\x01", Modified: manifestTime, Algorithm: ChecksumSHA256, Checksum: checksum(ChecksumSHA256, "")},
		{Path: "no\xfftext", Size: 1 << 40, Modified: manifestTime, Algorithm: ChecksumSHA384, Checksum: checksum(ChecksumSHA384, "")},
		{Path: "größe/日本\u2028", Modified: manifestTime, Algorithm: ChecksumSHA512, Checksum: checksum(ChecksumSHA512, "")},
		{Path: "plain", Modified: manifestTime, Algorithm: ChecksumNone},
	}
}

func writeManifest(t testing.TB, version int, systemID uint64, files []ManifestFile, ranges []ManifestWALRange) string {
	t.Helper()
	var out bytes.Buffer
	w, err := NewManifestWriter(&out, version, systemID)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(ranges); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func readManifest(src io.Reader, limits ManifestLimits) (*ManifestReader, []ManifestFile, []ManifestWALRange, error) {
	m, err := ReadManifest(src, limits)
	if err != nil {
		return nil, nil, nil, err
	}
	var files []ManifestFile
	for f, err := range m.Files() {
		if err != nil {
			return nil, nil, nil, err
		}
		files = append(files, f)
	}
	ranges, err := m.Finish()
	return m, files, ranges, err
}

var twoRanges = []ManifestWALRange{{Timeline: 2, Start: 0x3000000, End: 0x1_00000028}, {Timeline: 1, Start: 0x2000028, End: 0x3000000}}

func TestManifestRoundTrip(t *testing.T) {
	for version := 1; version <= 2; version++ {
		for _, files := range [][]ManifestFile{nil, oddFiles()} {
			text := writeManifest(t, version, 7523456789012345678, files, twoRanges)
			m, got, ranges, err := readManifest(iotest.OneByteReader(strings.NewReader(text)), ManifestLimits{})
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if m.Version() != version || version == 2 && m.SystemID() != 7523456789012345678 {
				t.Errorf("version %d, system id %d", m.Version(), m.SystemID())
			}
			if again := writeManifest(t, m.Version(), m.SystemID(), got, ranges); again != text {
				t.Errorf("read and written again:\n%s\nwas\n%s", again, text)
			}
		}
	}
}

func TestManifestGolden(t *testing.T) {
	want := `{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-11-20 14:25:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64440205" },
{ "Encoded-Path": "61ff", "Size": 0, "Last-Modified": "2026-11-20 14:25:00 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
`
	want += fmt.Sprintf("\"Manifest-Checksum\": \"%x\"}\n", sha256.Sum256([]byte(want)))
	files := []ManifestFile{oddFiles()[0], {Path: "a\xff", Modified: manifestTime, Algorithm: ChecksumNone}}
	if got := writeManifest(t, 1, 0, files, []ManifestWALRange{{1, 0x2000028, 0x2000100}}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A hostile manifest is refused (fault 50), and one that breaks off (fault 13).
func TestReadManifestRefuses(t *testing.T) {
	file := func(path string, size int64) string {
		return fmt.Sprintf(`{ "Path": "%s", "Size": %d, "Last-Modified": "2026-11-20 14:25:00 GMT" }`, path, size)
	}
	manifest := func(files ...string) string {
		text := "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n" + strings.Join(files, ",\n") +
			"\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\" }\n],\n"
		return text + fmt.Sprintf("\"Manifest-Checksum\": \"%x\"}\n", sha256.Sum256([]byte(text)))
	}
	good := manifest(file("a", 1), file("b", 2))
	if _, _, _, err := readManifest(strings.NewReader(good), ManifestLimits{Files: 2, FileSize: 2, TotalSize: 3}); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, text string
		limits     ManifestLimits
	}{
		{"climbing path", manifest(file("../etc/passwd", 1)), ManifestLimits{}},
		{"climbing inside", manifest(file("base/../../x", 1)), ManifestLimits{}},
		{"absolute path", manifest(file("/etc/passwd", 1)), ManifestLimits{}},
		{"empty part", manifest(file("a//b", 1)), ManifestLimits{}},
		{"dot part", manifest(file("./a", 1)), ManifestLimits{}},
		{"folder", manifest(file("a/", 1)), ManifestLimits{}},
		{"no path", manifest(file("", 1)), ManifestLimits{}},
		{"long path", manifest(file(strings.Repeat("a", 1024), 1)), ManifestLimits{}},
		{"zero byte", manifest(file(`a\u0000b`, 1)), ManifestLimits{}},
		{"other escape", manifest(file(`\u0061`, 1)), ManifestLimits{}},
		{"lone surrogate", manifest(file(`\ud800`, 1)), ManifestLimits{}},
		{"negative size", manifest(file("a", -1)), ManifestLimits{}},
		{"duplicate", manifest(file("a", 1), file("b", 1), file("a", 1)), ManifestLimits{}},
		{"too many files", good, ManifestLimits{Files: 1}},
		{"file too large", good, ManifestLimits{FileSize: 1}},
		{"files too large", good, ManifestLimits{TotalSize: 2}},
		{"unknown key", manifest(strings.Replace(file("a", 1), "{ ", `{ "X": 1, `, 1)), ManifestLimits{}},
		{"repeated key", manifest(strings.Replace(file("a", 1), "{ ", `{ "Path": "b", `, 1)), ManifestLimits{}},
		{"other case", manifest(strings.Replace(file("a", 1), "Path", "path", 1)), ManifestLimits{}},
		{"other blanks", manifest(strings.Replace(file("a", 1), "{ ", "{", 1)), ManifestLimits{}},
		{"number in another form", manifest(strings.Replace(file("a", 1), ": 1,", ": 1e0,", 1)), ManifestLimits{}},
		{"unknown algorithm", manifest(strings.Replace(file("a", 1), " }", `, "Checksum-Algorithm": "MD5", "Checksum": "00" }`, 1)), ManifestLimits{}},
		{"short checksum", manifest(strings.Replace(file("a", 1), " }", `, "Checksum-Algorithm": "SHA256", "Checksum": "00" }`, 1)), ManifestLimits{}},
		{"endless line", "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n" + strings.Repeat(" ", 1<<20), ManifestLimits{}},
		{"comma before the end", manifest(file("a", 1) + ","), ManifestLimits{}},
		{"two files without comma", manifest(file("a", 1) + "\n" + file("b", 1)), ManifestLimits{}},
		{"version 3", strings.Replace(good, "Version\": 1", "Version\": 3", 1), ManifestLimits{}},
		{"version 2 without system id", strings.Replace(good, "Version\": 1", "Version\": 2", 1), ManifestLimits{}},
		{"changed content", strings.Replace(good, `"Size": 1`, `"Size": 7`, 1), ManifestLimits{}},
		{"changed checksum", strings.Replace(good, `Manifest-Checksum": "`, `Manifest-Checksum": "0`, 1), ManifestLimits{}},
		{"trailing bytes", good + "\n", ManifestLimits{}},
		{"backward range", strings.Replace(good, `"End-LSN": "0/2"`, `"End-LSN": "0/0"`, 1), ManifestLimits{}},
		{"not a manifest", "hello\n", ManifestLimits{}},
		{"empty", "", ManifestLimits{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, files, _, err := readManifest(strings.NewReader(c.text), c.limits); err == nil {
				t.Errorf("accepted: %d files", len(files))
			}
		})
	}
	for i := range good {
		if _, _, _, err := readManifest(strings.NewReader(good[:i]), ManifestLimits{}); err == nil {
			t.Fatalf("accepted when cut behind byte %d", i)
		}
	}
	broken := errors.New("broken")
	src := io.MultiReader(strings.NewReader(good[:200]), iotest.ErrReader(broken))
	if _, _, _, err := readManifest(src, ManifestLimits{}); !errors.Is(err, broken) {
		t.Errorf("error of the source: %v", err)
	}
}

func TestManifestWriterRefuses(t *testing.T) {
	good := oddFiles()[0]
	cases := map[string]func(f *ManifestFile){
		"path":            func(f *ManifestFile) { f.Path = "../x" },
		"size":            func(f *ManifestFile) { f.Size = -1 },
		"no time":         func(f *ManifestFile) { f.Modified = time.Time{} },
		"checksum length": func(f *ManifestFile) { f.Checksum = nil },
		"algorithm":       func(f *ManifestFile) { f.Algorithm = "MD5" },
		"none with sum":   func(f *ManifestFile) { f.Algorithm = ChecksumNone },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			w, err := NewManifestWriter(io.Discard, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			f := good
			change(&f)
			if err := w.Add(f); err == nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := NewManifestWriter(io.Discard, 3, 0); err == nil {
		t.Error("version 3 accepted")
	}
	w, err := NewManifestWriter(&failingWriter{left: 200}, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		err = w.Add(good)
	}
	if closeErr := w.Close(nil); !errors.Is(err, io.ErrShortWrite) || !errors.Is(closeErr, io.ErrShortWrite) {
		t.Errorf("errors %v, %v", err, closeErr)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// seeds are the files of a testdata folder.
func seeds(f *testing.F, folder string) [][]byte {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", folder, "*"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds in testdata/%s: %v", folder, err)
	}
	var all [][]byte
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

// What is read is what would be written: there is no second form of a
// manifest, whatever the input.
func FuzzReadManifest(f *testing.F) {
	for _, seed := range seeds(f, "manifest") {
		if _, _, _, err := readManifest(bytes.NewReader(seed), ManifestLimits{}); err != nil {
			f.Fatal(err)
		}
		f.Add(cutChecksum(seed))
	}
	f.Add(cutChecksum([]byte(writeManifest(f, 2, 1, oddFiles(), twoRanges))))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := fmt.Appendf(bytes.Clone(body), "%s%x\"}\n", manifestChecksumKey, sha256.Sum256(body))
		m, files, ranges, err := readManifest(bytes.NewReader(data), ManifestLimits{})
		if err != nil || bytes.Contains(body, []byte("Encoded-Path")) {
			return
		}
		if again := writeManifest(t, m.Version(), m.SystemID(), files, ranges); again != string(data) {
			t.Errorf("read:\n%s\nwritten again:\n%s", data, again)
		}
	})
}

func cutChecksum(manifest []byte) []byte {
	return manifest[:bytes.LastIndex(manifest, []byte(manifestChecksumKey))]
}

func BenchmarkReadManifest(b *testing.B) {
	var files []ManifestFile
	for i := range 10_000 {
		files = append(files, ManifestFile{
			Path: fmt.Sprintf("base/16384/%d", i+1), Size: 8192, Modified: manifestTime,
			Algorithm: ChecksumCRC32C, Checksum: []byte{1, 2, 3, 4},
		})
	}
	text := writeManifest(b, 1, 0, files, twoRanges)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, _, _, err := readManifest(strings.NewReader(text), ManifestLimits{}); err != nil {
			b.Fatal(err)
		}
	}
}
