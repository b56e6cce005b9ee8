package object_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

var exampleHeader = object.Header{
	Repository: "0123456789abcdef0123456789abcdef",
	Kind:       object.KindSegment,
	SystemID:   7431234567890123456,
	Name:       "0000000100000000000000A7",
	PlainSize:  16777216,
	Digest:     object.Digest{Algorithm: object.BLAKE3, Sum: bytes.Repeat([]byte{0xAB}, 32)},
	Recipients: []string{"0f1e2d3c4b5a6978", "8796a5b4c3d2e1f0"},
	Host:       "db1.example.org",
	Fields:     []wal.Field{{Key: "wal.end", Value: "0/A7FFFFF8"}, {Key: "wal.points", Value: "vor dem Löschen"}, {Key: "x", Value: ""}},
}

const exampleText = `format=walship.dev/v1
repository=0123456789abcdef0123456789abcdef
kind=wal
system_id=7431234567890123456
name=0000000100000000000000A7
size=16777216
digest=blake3:abababababababababababababababababababababababababababababababab
recipients=0f1e2d3c4b5a6978,8796a5b4c3d2e1f0
host=db1.example.org
wal.end=0/A7FFFFF8
wal.points=vor dem Löschen
x=
`

// closed adds the last line to the lines of a header.
func closed(lines string) string {
	return lines + fmt.Sprintf("end=sha256:%x\n", sha256.Sum256([]byte(lines)))
}

func TestHeaderText(t *testing.T) {
	least := object.Header{Repository: "r", Kind: "later-kind", Name: "n", PlainSize: -1}
	older := exampleHeader // as it was written before there were hosts
	older.Host = ""
	empty := object.Header{Repository: "r", Kind: "part", SystemID: 1<<64 - 1, Name: "20261120T142500Z/000001.tar", PlainSize: 0}
	for _, test := range []struct {
		header object.Header
		text   string
	}{
		{exampleHeader, exampleText},
		{older, strings.Replace(exampleText, "host=db1.example.org\n", "", 1)},
		{least, "format=walship.dev/v1\nrepository=r\nkind=later-kind\nsystem_id=0\nname=n\n"},
		{empty, "format=walship.dev/v1\nrepository=r\nkind=part\nsystem_id=18446744073709551615\nname=20261120T142500Z/000001.tar\nsize=0\n"},
	} {
		text, err := test.header.Marshal()
		if err != nil || string(text) != closed(test.text) {
			t.Errorf("Marshal = %v\n%s", err, text)
		}
		header, err := object.ParseHeader([]byte(closed(test.text)))
		if err != nil || !reflect.DeepEqual(header, test.header) {
			t.Errorf("ParseHeader = %v, %+v\nwant %+v", err, header, test.header)
		}
	}
}

// TestHostLeftOut: an object isn't refused because its writer's machine has a
// name that no header can have.
func TestHostLeftOut(t *testing.T) {
	longest := exampleHeader
	longest.Host = strings.Repeat("h", 255)
	text, err := longest.Marshal()
	if err != nil || !strings.Contains(string(text), "\nhost="+longest.Host+"\n") {
		t.Errorf("Marshal = %v\n%s", err, text)
	}
	for _, host := range []string{longest.Host + "h", "two\nlines", "\xff", "\x1b[31m"} {
		h := exampleHeader
		h.Host = host
		text, err := h.Marshal()
		if err != nil || strings.Contains(string(text), "host") {
			t.Errorf("host %.20q: Marshal = %v\n%s", host, err, text)
		}
		forged := strings.Replace(exampleText, "db1.example.org", host, 1)
		if h, err := object.ParseHeader([]byte(closed(forged))); !errors.Is(err, object.ErrCorrupt) {
			t.Errorf("host %.20q: ParseHeader = %v, %+v", host, err, h)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	change := func(f func(*object.Header)) object.Header {
		h := exampleHeader
		f(&h)
		return h
	}
	var manyFields []wal.Field
	for i := range 300 {
		manyFields = append(manyFields, wal.Field{Key: fmt.Sprint("k", i), Value: strings.Repeat("v", 60)})
	}
	for name, h := range map[string]object.Header{
		"no repository":     change(func(h *object.Header) { h.Repository = "" }),
		"no kind":           change(func(h *object.Header) { h.Kind = "" }),
		"upper-case kind":   change(func(h *object.Header) { h.Kind = "WAL" }),
		"no name":           change(func(h *object.Header) { h.Name = "" }),
		"newline in name":   change(func(h *object.Header) { h.Name = "a\nb" }),
		"long name":         change(func(h *object.Header) { h.Name = strings.Repeat("n", 256) }),
		"invalid UTF-8":     change(func(h *object.Header) { h.Name = "\xff" }),
		"negative size":     change(func(h *object.Header) { h.PlainSize = -2 }),
		"unknown digest":    change(func(h *object.Header) { h.Digest.Algorithm = "md5" }),
		"short digest":      change(func(h *object.Header) { h.Digest.Sum = []byte{1} }),
		"comma":             change(func(h *object.Header) { h.Recipients = []string{"a,b"} }),
		"same recipient":    change(func(h *object.Header) { h.Recipients = []string{"a", "a"} }),
		"critical field":    change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "!x"}} }),
		"known key":         change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "name"}} }),
		"last key":          change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "end"}} }),
		"same key":          change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "a"}, {Key: "a"}} }),
		"equals in key":     change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "a=b"}} }),
		"control character": change(func(h *object.Header) { h.Fields = []wal.Field{{Key: "a", Value: "\x1b[31m"}} }),
		"too long":          change(func(h *object.Header) { h.Fields = manyFields }),
	} {
		if text, err := h.Marshal(); err == nil {
			t.Errorf("%s: accepted\n%s", name, text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	lines := strings.SplitAfter(exampleText, "\n")
	swap := func(old, new string) string { return closed(strings.Replace(exampleText, old, new, 1)) }
	tests := []struct {
		name, text string
		err        error
	}{
		{"empty", "", object.ErrCorrupt},
		{"no end", exampleText, object.ErrCorrupt},
		{"only an end", closed(""), object.ErrCorrupt},
		{"changed", strings.Replace(closed(exampleText), "A7", "A8", 1), object.ErrCorrupt},
		{"cut", closed(exampleText)[:100], object.ErrCorrupt},
		{"no last newline", strings.TrimSuffix(closed(exampleText), "\n"), object.ErrCorrupt},
		{"behind the end", closed(exampleText) + "x=1\n", object.ErrCorrupt},
		{"two ends", closed(closed(exampleText)), object.ErrCorrupt},
		{"CRLF", swap("kind=wal\n", "kind=wal\r\n"), object.ErrCorrupt},
		{"empty line", swap("kind=wal\n", "kind=wal\n\n"), object.ErrCorrupt},
		{"no equals", swap("kind=wal\n", "kind\n"), object.ErrCorrupt},
		{"no format", closed(exampleText[len(lines[0]):]), object.ErrCorrupt},
		{"other format", swap("walship.dev/v1", "walship.dev/v2"), object.ErrUnsupported},
		{"critical key", swap("wal.end=", "!wal.end="), object.ErrUnsupported},
		{"other algorithm", swap("blake3:", "blake4:"), object.ErrUnsupported},
		{"missing line", swap(lines[3], ""), object.ErrCorrupt},
		{"repeated line", swap(lines[2], lines[2]+lines[2]), object.ErrCorrupt},
		{"order", swap(lines[2]+lines[3], lines[3]+lines[2]), object.ErrCorrupt},
		{"field before its place", swap(lines[5], "y=1\n"+lines[5]), object.ErrCorrupt},
		{"field before the host", swap(lines[8]+lines[9], lines[9]+lines[8]), object.ErrCorrupt},
		{"repeated host", swap(lines[8], lines[8]+lines[8]), object.ErrCorrupt},
		{"empty host", swap(lines[8], "host=\n"), object.ErrCorrupt},
		{"repeated field", swap(lines[9], lines[9]+lines[9]), object.ErrCorrupt},
		{"leading zero", swap("size=1", "size=01"), object.ErrCorrupt},
		{"plus", swap("size=1", "size=+1"), object.ErrCorrupt},
		{"size -1", swap("size=16777216", "size=-1"), object.ErrCorrupt},
		{"size over 63 bits", swap("size=16777216", "size=9223372036854775808"), object.ErrCorrupt},
		{"system id over 64 bits", swap("7431234567890123456", "18446744073709551616"), object.ErrCorrupt},
		{"upper-case digest", swap("abab", "ABab"), object.ErrCorrupt},
		{"short digest", swap("blake3:ab", "blake3:"), object.ErrCorrupt},
		{"no recipients", swap("0f1e2d3c4b5a6978,8796a5b4c3d2e1f0", ""), object.ErrCorrupt},
		{"control character", swap("0/A7FFFFF8", "\x00"), object.ErrCorrupt},
		{"too long", swap("x=\n", "x="+strings.Repeat("x", object.MaxHeader)+"\n"), object.ErrCorrupt},
	}
	for _, test := range tests {
		if h, err := object.ParseHeader([]byte(test.text)); !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v; %+v", test.name, err, test.err, h)
		}
	}
}

func TestDigest(t *testing.T) {
	for text, algorithm := range map[string]string{
		"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad": object.SHA256,
		"blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85": object.BLAKE3,
	} {
		hash, err := object.NewHash(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		hash.Write([]byte("abc"))
		digest := object.Digest{Algorithm: algorithm, Sum: hash.Sum(nil)}
		parsed, err := object.ParseDigest(text)
		if digest.String() != text || err != nil || !parsed.Equal(digest) || parsed.IsZero() {
			t.Errorf("digest of abc: %s, want %s; parsed %v, %v", digest, text, parsed, err)
		}
		if algorithm == object.Fastest() && !object.DigestOf([]byte("abc")).Equal(digest) {
			t.Errorf("DigestOf(abc) = %v", object.DigestOf([]byte("abc")))
		}
	}
	for _, text := range []string{"", "sha256", "sha256:", "sha256:00", "sha256:" + strings.Repeat("0", 63) + "A", "sha256:" + strings.Repeat("0", 66)} {
		if d, err := object.ParseDigest(text); err == nil {
			t.Errorf("ParseDigest(%q) = %v", text, d)
		}
	}
	if _, err := object.NewHash("md5"); !errors.Is(err, object.ErrUnsupported) {
		t.Errorf("NewHash(md5): %v", err)
	}
	if !(object.Digest{}).IsZero() || (object.Digest{}).String() != "" {
		t.Error("the zero Digest isn't zero")
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte(closed(exampleText)))
	f.Add([]byte(closed(strings.Replace(exampleText, "host=db1.example.org\n", "", 1))))
	f.Add([]byte(closed("format=walship.dev/v1\nrepository=r\nkind=canary\nsystem_id=0\nname=n\n")))
	f.Fuzz(func(t *testing.T, record []byte) {
		for _, text := range [][]byte{record, []byte(closed(string(record)))} {
			h, err := object.ParseHeader(text)
			if err != nil {
				if !errors.Is(err, object.ErrCorrupt) && !errors.Is(err, object.ErrUnsupported) {
					t.Fatal(err)
				}
				continue
			}
			again, err := h.Marshal()
			if err != nil || !bytes.Equal(again, text) {
				t.Fatalf("written again: %v\n%q\n%q", err, again, text)
			}
		}
	})
}

// TestSummaryFits: the longest summary of a segment can be written and read,
// beside the longest name of a host and the most recipients. Restore points and
// tablespaces have as many bytes as a summary lists (8 KiB and 3 KiB).
func TestSummaryFits(t *testing.T) {
	const high = 0xFFFFFFFFF7000028
	s := wal.Summary{
		Records: 1 << 40, First: high, Prev: high, Last: high, End: high, Ending: wal.EndingCrossing, Overwritten: high,
		Head: wal.Fragment{Remaining: 1 << 30, Length: 1 << 30, CRC: 1<<32 - 1}, Tail: wal.Fragment{Remaining: 1 << 30, Length: 1 << 29, CRC: 1<<32 - 1},
		Commits: 1 << 40, Stops: 1 << 40, MinTime: 846000000000000, MaxTime: 846000001000000,
		Demands: wal.Demands{
			MaxConnections: 1<<31 - 1, MaxWorkerProcesses: 1<<31 - 1, MaxWALSenders: 1<<31 - 1,
			MaxPreparedTransactions: 1<<31 - 1, MaxLocksPerTransaction: 1<<31 - 1, Minimal: true,
		},
		RestorePointCount: 1 << 40, TablespaceCount: 1 << 40,
	}
	for range 64 {
		s.RestorePoints = append(s.RestorePoints, wal.RestorePoint{LSN: high, Time: 846000000000000, Name: strings.Repeat("\x01", 20)})
		s.Tablespaces = append(s.Tablespaces, wal.CreatedTablespace{LSN: high, Path: "/" + strings.Repeat("t", 26)})
	}
	h := exampleHeader
	h.Host = strings.Repeat("h", 255)
	h.Recipients = nil
	for i := range 20 {
		h.Recipients = append(h.Recipients, fmt.Sprintf("%016x", i))
	}
	h.Fields = s.Fields()
	text, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := object.ParseHeader(text)
	if err != nil || !reflect.DeepEqual(parsed, h) {
		t.Fatalf("ParseHeader = %v\n%+v", err, parsed)
	}
}
