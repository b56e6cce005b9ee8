package wal

import "testing"

func TestLSN(t *testing.T) {
	for _, test := range []struct {
		text string
		lsn  LSN
		want string // "" for an error
	}{
		{"0/3000028", 0x3000028, "0/3000028"},
		{"0/0", 0, "0/0"},
		{"0/03000028", 0x3000028, "0/3000028"},
		{"1/0", 1 << 32, "1/0"},
		{"16/B374D848", 0x16B374D848, "16/B374D848"},
		{"16/b374d848", 0x16B374D848, "16/B374D848"},
		{"FFFFFFFF/FFFFFFFF", 1<<64 - 1, "FFFFFFFF/FFFFFFFF"},
		{text: ""},
		{text: "0"},
		{text: "/"},
		{text: "0/"},
		{text: "/0"},
		{text: "0/0/0"},
		{text: "0/000000000"},
		{text: "100000000/0"},
		{text: "+1/0"},
		{text: "0/-1"},
		{text: "0/0x1"},
		{text: " 0/1"},
		{text: "0/1_0"},
		{text: "G/0"},
	} {
		lsn, err := ParseLSN(test.text)
		if test.want == "" {
			if err == nil {
				t.Errorf("ParseLSN(%q) = %s, want an error", test.text, lsn)
			}
			continue
		}
		if err != nil || lsn != test.lsn || lsn.String() != test.want {
			t.Errorf("ParseLSN(%q) = %s (%#x), %v, want %s", test.text, lsn, uint64(lsn), err, test.want)
		}
	}
}

func TestValidSegmentSize(t *testing.T) {
	for size, want := range map[uint64]bool{
		0: false, 1: false, 1 << 19: false, 1 << 20: true, 1<<20 + 1: false, 3 << 20: false,
		16 << 20: true, 64 << 20: true, 1 << 30: true, 1 << 31: false, 1 << 63: false,
	} {
		if got := ValidSegmentSize(size); got != want {
			t.Errorf("ValidSegmentSize(%d) = %t, want %t", size, got, want)
		}
	}
}
