package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Seeds of the fuzz targets are in testdata/fuzz; most come from real servers
// of the majors 14 to 18.

func FuzzFileName(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		name, err := ParseFileName(text)
		if err != nil {
			return
		}
		if name.String() != text {
			t.Errorf("%q is written again as %q", text, name)
		}
		if name.Kind == KindTimelineHistory {
			return
		}
		for size := uint64(MinSegmentSize); size <= MaxSegmentSize; size *= 2 {
			if again := SegmentName(name.Timeline, name.SegmentNumber(size), size); name.ValidFor(size) && again != name.Segment() {
				t.Errorf("%s of %d bytes: its number is that of %s", name, size, again)
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Fuzz(func(t *testing.T, tli uint32, data []byte) {
		history, err := ParseHistory(TimelineID(tli), data)
		if err != nil {
			return
		}
		again, err := ParseHistory(TimelineID(tli), history.Format())
		if err != nil || !reflect.DeepEqual(again, history) {
			t.Fatalf("%+v is read again as %+v, %v", history, again, err)
		}
		for _, e := range history.Entries {
			for _, lsn := range []LSN{0, e.Switch - 1, e.Switch, e.Switch + 1} {
				owner := history.TimelineAt(lsn)
				begin, ok := history.Begin(owner)
				if !ok || begin > lsn {
					t.Errorf("%s belongs to timeline %d, which begins at %s, %t", lsn, owner, begin, ok)
				}
				if tli := history.SegmentTimeline(SegmentNumber(lsn, MinSegmentSize), MinSegmentSize); tli < owner {
					t.Errorf("the segment of %s is timeline %d's, the byte timeline %d's", lsn, tli, owner)
				}
			}
		}
	})
}

func FuzzPageHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, page []byte) {
		header, err := ParsePageHeader(page)
		if err != nil {
			return
		}
		again := header.AppendHeader(nil)
		if len(again) != header.Size() {
			t.Fatalf("the header takes %d bytes, %d are written", header.Size(), len(again))
		}
		copy(again[20:24], page[20:24]) // padding
		if !bytes.Equal(again, page[:len(again)]) {
			t.Errorf("written again: %x, was %x", again, page[:len(again)])
		}
	})
}

// FuzzRecord decodes records whose CRC nobody has checked.
func FuzzRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, magic uint16, resource, info uint8, content []byte) {
		data := append(make([]byte, recordHeaderSize), content...)
		r := Record{LSN: 8, Resource: ResourceManager(resource), Info: info, Data: data, magic: magic}
		var c Contents
		if err := r.Decode(&c); err != nil {
			return
		}
		size := len(c.Main)
		for _, block := range c.Blocks {
			size += len(block.Image) + len(block.Data)
		}
		if size > len(content) {
			t.Errorf("%d bytes are decoded from %d", size, len(content))
		}
		if x, err := r.Transaction(&c); err == nil {
			if n := 4*len(x.Subtransactions) + relFileSize*(len(x.Dropped)+len(x.DroppedOnAbort)); n > len(c.Main) {
				t.Errorf("%d bytes of lists are decoded from %d", n, len(c.Main))
			}
		}
		if x, err := r.Storage(&c); err == nil && 4*len(x.Tablespaces) > len(c.Main) {
			t.Errorf("%d tablespaces are decoded from %d bytes", len(x.Tablespaces), len(c.Main))
		}
		// Nothing but a panic can be wrong with these.
		_, _ = r.Checkpoint(&c)
		_, _ = r.EndOfRecovery(&c)
		_, _ = r.RestorePoint(&c)
		_, _ = r.ParameterChange(&c)
		_, _ = r.OverwrittenContRecord(&c)
	})
}

// FuzzReader reads any bytes as WAL. So that more than the first checksum is
// reached, some that are wrong are put right.
func FuzzReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		for range 20 {
			if !mendChecksum(data) {
				break
			}
		}
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		last := LSN(0)
		for {
			record, err := r.Next()
			if err != nil {
				break
			}
			if record.LSN < last || record.Next <= record.LSN || len(record.Data) > len(data) {
				t.Fatalf("a record of %d bytes from %s to %s behind %s", len(record.Data), record.LSN, record.Next, last)
			}
			last = record.Next
		}
		s, err := summarizeAll(data)
		if err != nil {
			return
		}
		again, err := ParseSummary(s.Fields())
		s.Problem = ""
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("written and read again:\n%+v, %v\nwas\n%+v", again, err, s)
		}
	})
}

// mendChecksum puts the first wrong checksum right that a record on one page
// has, and reports whether there was one.
func mendChecksum(data []byte) bool {
	r, err := NewReader(bytes.NewReader(data))
	for err == nil {
		_, err = r.Next()
	}
	var invalid *InvalidError
	if !errors.As(err, &invalid) || !strings.Contains(invalid.Problem, "checksum") {
		return false
	}
	start := int64(invalid.LSN - r.first.Address)
	if start < 0 || start > int64(len(data))-recordHeaderSize {
		return false
	}
	record := data[start:]
	length := binary.LittleEndian.Uint32(record)
	if uint64(length) > uint64(len(r.page)) || uint64(length) > uint64(len(record)) {
		return false
	}
	crc := crc32.Update(0, castagnoli, record[recordHeaderSize:length])
	binary.LittleEndian.PutUint32(record[recordCRCOffset:], crc32.Update(crc, castagnoli, record[:recordCRCOffset]))
	return true
}

func summarizeAll(data []byte) (Summary, error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return Summary{}, err
	}
	return summarize(r)
}

func FuzzSummary(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var fields []Field
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			fields = append(fields, Field{key, value})
		}
		s, err := ParseSummary(fields)
		if err != nil {
			return
		}
		again, err := ParseSummary(s.Fields())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("written and read again:\n%+v, %v\nwas\n%+v", again, err, s)
		}
	})
}

// TestFuzzSeeds holds that each fuzz target has seeds.
func TestFuzzSeeds(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "fuzz_test.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	targets := 0
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		targets++
		seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", fn.Name.Name))
		if err != nil || len(seeds) < 5 {
			t.Errorf("%s has %d seeds (%v), want at least 5", fn.Name.Name, len(seeds), err)
		}
	}
	if targets < 6 {
		t.Errorf("%d fuzz targets, want at least 6", targets)
	}
}
