package wal

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestMajorVersion(t *testing.T) {
	majors := map[uint16]int{0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
	for magic := range uint16(0xFFFF) {
		if major, ok := MajorVersion(magic); major != majors[magic] || ok != (majors[magic] != 0) {
			t.Errorf("magic %#x is of major %d, %t", magic, major, ok)
		}
	}
}

func TestPageHeader(t *testing.T) {
	w := newWAL(0x5_0000_0000)
	w.timeline = 7
	w.noop(3 * testBlockSize)
	data := w.segment(t)

	long, err := ParsePageHeader(data)
	want := PageHeader{
		Magic: 0xD110, Info: LongHeader, Timeline: 7, Address: 0x5_0000_0000,
		Long: true, SystemID: testSystemID, SegmentSize: testSegmentSize, BlockSize: testBlockSize,
	}
	if err != nil || long != want {
		t.Errorf("got %+v, %v, want %+v", long, err, want)
	}
	short, err := ParsePageHeader(data[testBlockSize:])
	want = PageHeader{
		Magic: 0xD110, Info: FirstIsContRecord, Timeline: 7, Address: 0x5_0000_2000,
		RemainingLength: 3*testBlockSize - (testBlockSize - LongHeaderSize),
	}
	if err != nil || short != want {
		t.Errorf("got %+v, %v, want %+v", short, err, want)
	}
	for _, n := range []int{0, 23, 24, 39} {
		if h, err := ParsePageHeader(data[:n]); err == nil {
			t.Errorf("%d bytes of a long header are read as %+v", n, h)
		}
	}
	none := bytes.Clone(data)
	none[4] = 0
	if h, err := ParsePageHeader(none); err == nil {
		t.Errorf("timeline 0 is read as %+v", h)
	}
}

func TestReadLongHeader(t *testing.T) {
	w := newWAL(3 * testSegmentSize)
	w.noop(100)
	data := w.segment(t)
	if h, err := ReadLongHeader(bytes.NewReader(data)); err != nil || h.Address != 3*testSegmentSize || h.SystemID != testSystemID {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := ReadLongHeader(bytes.NewReader(data[:40])); err != nil {
		t.Errorf("a file of just a header: %v", err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut": data[:39], "a short header": data[testBlockSize:], "zeros": make([]byte, 100)} {
		if h, err := ReadLongHeader(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: read as %+v", name, h)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadLongHeader(readerAt{iotest.ErrReader(broken)}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the source's error", err)
	}
}

type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.Read(p) }
