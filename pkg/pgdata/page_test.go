package pgdata

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// realPage is the first block of pg_authid as initdb of PostgreSQL 15 wrote it.
func realPage(t testing.TB) []byte {
	t.Helper()
	page, err := os.ReadFile("testdata/page")
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestPageChecksum(t *testing.T) { // fault 35
	page := realPage(t)
	if got, want := PageChecksum(page, 0), binary.LittleEndian.Uint16(page[pageChecksum:]); got != want {
		t.Errorf("the checksum is %d, PostgreSQL wrote %d", got, want)
	}
	if !PageIsSound(page, 0) {
		t.Error("PostgreSQL's page isn't sound")
	}
	if PageIsSound(page, 1) {
		t.Error("the page is sound in another place, too")
	}
	if lsn := PageLSN(page); lsn == 0 || lsn > wal.LSN(0x2000000) {
		t.Errorf("the page's LSN is %s", lsn)
	}
	for at := range page {
		page[at] ^= 0x10
		if PageIsSound(page, 0) {
			t.Errorf("with byte %d changed, the page is sound", at)
		}
		page[at] ^= 0x10
	}
}

func TestNewPage(t *testing.T) { // fault 35
	page := make([]byte, 8192)
	if !PageIsSound(page, 7) {
		t.Error("a page of zeros isn't sound")
	}
	for _, at := range []int{0, 100, 8191} {
		page[at] = 1
		if PageIsSound(page, 7) {
			t.Errorf("a page with a header of zeros and something at %d is sound", at)
		}
		page[at] = 0
	}
}

// Whatever the machine uses must agree with the plain way.
func FuzzMixRows(f *testing.F) {
	f.Add([]byte("seed"), uint32(0))
	f.Add(bytes.Repeat([]byte{0xff}, 300), uint32(1<<31))
	f.Fuzz(func(t *testing.T, data []byte, start uint32) {
		page := make([]byte, 4*checksumRow)
		for at := 0; at < len(page) && len(data) > 0; {
			at += copy(page[at:], data)
		}
		var plain [checksumLanes]uint32
		for lane := range plain {
			plain[lane] = start + uint32(lane)
		}
		quick := plain
		mixRowsGeneric(&plain, page)
		mixRows(&quick, page)
		if quick != plain {
			t.Errorf("mixed to %x, want %x", quick, plain)
		}
	})
}

func BenchmarkPageChecksum(b *testing.B) {
	data := make([]byte, 64<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(data)
	each := func(b *testing.B, f func(page []byte)) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for at := 0; at < len(data); at += 8192 {
				f(data[at : at+8192])
			}
		}
	}
	page := make([]byte, 8192)
	b.Run("check", func(b *testing.B) { each(b, func(p []byte) { PageIsSound(p, 1) }) })
	b.Run("generic", func(b *testing.B) {
		each(b, func(p []byte) { sums := checksumBasis; mixRowsGeneric(&sums, p) })
	})
	b.Run("copy", func(b *testing.B) { each(b, func(p []byte) { copy(page, p) }) })
}
