package wal

import (
	"strings"
	"testing"
)

func TestParseFileName(t *testing.T) {
	for text, want := range map[string]FileName{
		"00000001000000000000003A":                 {KindSegment, 1, 0, 0x3A, 0},
		"0000000A000000FF000000FF":                 {KindSegment, 10, 0xFF, 0xFF, 0},
		"FFFFFFFFFFFFFFFF00000FFF":                 {KindSegment, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFF, 0},
		"00000001000000000000003A.partial":         {KindPartial, 1, 0, 0x3A, 0},
		"00000001000000000000003A.00000028.backup": {KindBackupHistory, 1, 0, 0x3A, 0x28},

		"00000001000000000000003A.00000028.partial": {KindPartial, 1, 0, 0x3A, 0x28},
		"00000001000000000000003A.40000000.partial": {KindPartial, 1, 0, 0x3A, 1 << 30},
		"00000002.history":                          {Kind: KindTimelineHistory, Timeline: 2},
	} {
		name, err := ParseFileName(text)
		if err != nil || name != want || name.String() != text {
			t.Errorf("ParseFileName(%q) = %+v (%s), %v", text, name, name, err)
		}
	}
	for _, text := range []string{
		"", "x", "00000001", "00000001.", ".history", "1.history", "0000000g.history", "00000000.history",
		"000000010.history", "00000002.history.gz",
		"00000001000000000000003", "00000001000000000000003a", "00000001000000000000003A0",
		"000000000000000000000001", "000000010000000000001000", " 0000001000000000000003A",
		"00000001000000000000003A.PARTIAL", "00000001000000000000003A.partial.gz",
		"00000001000000000000003A.backup", "00000001000000000000003A.28.backup",
		"00000001000000000000003A00000028.backup", "00000001000000000000003A.40000000.backup",
		"00000001000000000000003A.0000002a.backup", "00000001000000000000003A.00000000.partial",
		"00000001000000000000003A.40000001.partial", "00000001000000000000003A.28.partial", "00000001000000000000003A.00000028.history",
		"RECOVERYXLOG", "../00000002.history", "00000001000000000000003A\x00",
		strings.Repeat("0", 1<<20),
	} {
		if name, err := ParseFileName(text); err == nil {
			t.Errorf("ParseFileName(%.60q) = %s, want an error", text, name)
		} else if len(err.Error()) > 300 {
			t.Errorf("ParseFileName(%.60q): the error has %d bytes", text, len(err.Error()))
		}
	}
}

func TestSegmentArithmetic(t *testing.T) {
	for _, test := range []struct {
		size  uint64
		name  string
		segno uint64
		start string
		next  string
	}{
		{1 << 20, "000000010000000000000000", 0, "0/0", "000000010000000000000001"},
		{1 << 20, "000000010000000000000FFF", 4095, "0/FFF00000", "000000010000000100000000"},
		{16 << 20, "0000000100000000000000FF", 255, "0/FF000000", "000000010000000100000000"},
		{16 << 20, "0000000300000001000000A0", 416, "1/A0000000", "0000000300000001000000A1"},
		{64 << 20, "00000001000000010000003F", 127, "1/FC000000", "000000010000000200000000"},
		{1 << 30, "000000010000000200000003", 11, "2/C0000000", "000000010000000300000000"},
	} {
		name, err := ParseFileName(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := name.SegmentNumber(test.size); got != test.segno {
			t.Errorf("%s of %d bytes has number %d, want %d", name, test.size, got, test.segno)
		}
		start := name.Start(test.size)
		if start.String() != test.start {
			t.Errorf("%s of %d bytes starts at %s, want %s", name, test.size, start, test.start)
		}
		if got := name.Next(test.size).String(); got != test.next {
			t.Errorf("behind %s of %d bytes comes %s, want %s", name, test.size, got, test.next)
		}
		for _, lsn := range []LSN{start, start + LSN(test.size) - 1} {
			if got := SegmentName(name.Timeline, SegmentNumber(lsn, test.size), test.size); got != name {
				t.Errorf("the segment of %s is %s, want %s", lsn, got, name)
			}
		}
	}
}

func TestValidFor(t *testing.T) {
	for _, test := range []struct {
		name string
		size uint64
		want bool
	}{
		{"0000000100000000000000FF", 16 << 20, true},
		{"000000010000000000000100", 16 << 20, false},
		{"000000010000000000000100", 1 << 20, true},
		{"000000010000000000000004", 1 << 30, false},
		{"000000010000000000000003", 1 << 30, true},
		{"000000010000000000000001.00100000.backup", 1 << 20, false},
		{"000000010000000000000001.000FFFFF.backup", 1 << 20, true},
		{"000000010000000000000001.00100000.backup", 16 << 20, true},
		{"00000001.history", 16 << 20, true},
	} {
		name, err := ParseFileName(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := name.ValidFor(test.size); got != test.want {
			t.Errorf("ValidFor(%s, %d) = %t, want %t", name, test.size, got, test.want)
		}
	}
}

func TestSegmentOfName(t *testing.T) {
	for text, want := range map[string]string{
		"00000001000000000000003A":                 "00000001000000000000003A",
		"00000001000000000000003A.partial":         "00000001000000000000003A",
		"00000001000000000000003A.00000028.backup": "00000001000000000000003A",
	} {
		name, err := ParseFileName(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := name.Segment().String(); got != want {
			t.Errorf("the segment of %s is %s, want %s", text, got, want)
		}
	}
}
