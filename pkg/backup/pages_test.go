package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

const testBlock = 8192

// onePage makes a page as the server writes it.
func onePage(block uint32, lsn wal.LSN) []byte {
	page := make([]byte, testBlock)
	binary.LittleEndian.PutUint32(page[0:], uint32(lsn>>32))
	binary.LittleEndian.PutUint32(page[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(page[14:], testBlock) // pd_upper
	copy(page[100:], fmt.Sprintf("rows of block %d", block))
	binary.LittleEndian.PutUint16(page[8:], pgdata.PageChecksum(page, block))
	return page
}

// pagesFrom makes pages that are older than the backup, from a block on.
func pagesFrom(first, count uint32) []byte {
	var content []byte
	for block := first; block < first+count; block++ {
		content = append(content, onePage(block, testRedo-1)...)
	}
	return content
}

// useChecksums gives the data directory a control file with data checksums.
func useChecksums(t testing.TB, s *site) {
	t.Helper()
	const dataChecksumVersion = 252
	changeControl(t, s, func(content []byte) { binary.LittleEndian.PutUint32(content[dataChecksumVersion:], 1) })
}

// pageSite is a site with data checksums, whose pages are sound.
func pageSite(t *testing.T) *site {
	s := newSite(t)
	useChecksums(t, s)
	for _, name := range []string{"global/1262", "base/1/1259"} {
		writePages(t, s, name, pagesFrom(0, 1))
	}
	s.options.Concurrency = 1
	return s
}

func writePages(t testing.TB, s *site, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadPages(t *testing.T) { // fault 35
	s := pageSite(t)
	const segment = 131072 // blocks, what pg_control says
	broken := func(content []byte, blocks ...int) []byte {
		for _, block := range blocks {
			content[block*testBlock+500] ^= 1
		}
		return content
	}
	writePages(t, s, "base/1/4000", broken(pagesFrom(0, 100), 3, 40, 41, 42, 99))
	writePages(t, s, "base/1/4000_fsm", broken(pagesFrom(0, 2), 1))
	writePages(t, s, "base/1/4000_vm", pagesFrom(0, 2))
	writePages(t, s, "base/1/4001.2", broken(pagesFrom(2*segment, 3), 2))
	writePages(t, s, "base/1/4002_init", broken(pagesFrom(0, 1), 0))
	// What isn't judged: new pages, those that WAL brings right, the start of
	// a page, and what isn't a relation.
	writePages(t, s, "base/1/4003", slices.Concat(make([]byte, 2*testBlock), broken(onePage(2, testRedo), 0), pagesFrom(3, 1), []byte("half a page")))
	writePages(t, s, "pg_xact/0001", make([]byte, testBlock-1))
	writePages(t, s, "base/1/notes", broken(pagesFrom(0, 1), 0))
	// Nor could WAL have been where this page claims to be from.
	writePages(t, s, "base/1/4004", broken(onePage(0, s.server.stop.LSN+1), 0))

	b, _ := s.mustPush(t)
	want := []string{
		"wrong page checksum: base/1/4000, main fork, block 3",
		"wrong page checksum: base/1/4000, main fork, blocks 40 to 42",
		"wrong page checksum: base/1/4000, main fork, block 99",
		"wrong page checksum: base/1/4000_fsm, fsm fork, block 1",
		"wrong page checksum: base/1/4001.2, main fork, block 262146",
		"wrong page checksum: base/1/4002_init, init fork, block 0",
		"wrong page checksum: base/1/4004, main fork, block 0",
	}
	if !slices.Equal(b.Degraded, want) {
		t.Errorf("degraded:\n%s\nwant\n%s", strings.Join(b.Degraded, "\n"), strings.Join(want, "\n"))
	}
	if b.PagesBad != 9 || b.PagesChecked != 2+100+2+2+3+1+4+1 {
		t.Errorf("%d bad pages of %d", b.PagesBad, b.PagesChecked)
	}
}

func TestManyBadPages(t *testing.T) { // fault 35
	s := pageSite(t)
	content := pagesFrom(0, 3000)
	for at := 100; at < len(content); at += 2 * testBlock { // every second one
		content[at] ^= 1
	}
	writePages(t, s, "base/1/4000", content)
	r := s.begin(t)
	var paused int
	r.pages.pause = func(_ context.Context, d time.Duration) error {
		if d > 0 {
			paused++
		}
		return nil
	}
	s.archiveWAL(t, 6, 7)
	if err := r.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.record.PagesBad != 1500 || len(r.record.Degraded) != maxBadLines+1 || paused != maxPagePauses {
		t.Errorf("%d bad pages, %d lines, %d pauses", r.record.PagesBad, len(r.record.Degraded), paused)
	}
	if last := r.record.Degraded[maxBadLines]; last != "wrong page checksum: 1400 more pages" {
		t.Errorf("the last line is %q", last)
	}
}

func TestPageChecksumsIgnored(t *testing.T) {
	bad := pagesFrom(0, 1)
	bad[200] ^= 1
	for what, prepare := range map[string]func(s *site){
		"by a flag":      func(s *site) { useChecksums(t, s); s.options.IgnorePageChecksums = true },
		"by the cluster": func(*site) {},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			prepare(s)
			writePages(t, s, "base/1/4000", bad)
			if b, _ := s.mustPush(t); len(b.Degraded) != 0 || b.PagesChecked != 0 {
				t.Errorf("%d pages were checked: %q", b.PagesChecked, b.Degraded)
			}
		})
	}
}

// A page that fails is read again, because the server may have been writing it.
func TestPageReadAgain(t *testing.T) { // fault 35
	torn := func() []byte {
		content := pagesFrom(0, 3)
		content[testBlock+testBlock/2] ^= 1
		return content
	}
	for what, test := range map[string]struct {
		then    func(t *testing.T, s *site) // while the backup waits for the n-th time
		content []byte                      // in the backup
	}{
		"written in full": {func(t *testing.T, s *site) { writePages(t, s, "base/1/4000", pagesFrom(0, 3)) }, pagesFrom(0, 3)},
		"changed since": {func(t *testing.T, s *site) {
			writePages(t, s, "base/1/4000", slices.Concat(pagesFrom(0, 1), onePage(1, testRedo+8)))
		}, slices.Concat(pagesFrom(0, 1), onePage(1, testRedo+8), pagesFrom(2, 1))},
		"cut off": {func(t *testing.T, s *site) { truncate(t, filepath.Join(s.dir, "base/1/4000"), testBlock) },
			slices.Concat(pagesFrom(0, 1), make([]byte, testBlock), pagesFrom(2, 1))},
	} {
		t.Run(what, func(t *testing.T) {
			s := pageSite(t)
			s.archiveWAL(t, 6, 7)
			writePages(t, s, "base/1/4000", torn())
			r := s.begin(t)
			pauses := 0
			r.pages.pause = func(context.Context, time.Duration) error {
				if pauses++; pauses == 3 {
					test.then(t, s)
				}
				return nil
			}
			if err := r.finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if pauses != 3 {
				t.Errorf("the page was read again %d times, want 3", pauses)
			}
			if len(r.record.Degraded) != 0 {
				t.Errorf("degraded: %q", r.record.Degraded)
			}
			if got := s.restore(t, &r.record).entries["base/1/4000"]; got != string(test.content) {
				t.Error("the backup doesn't have the page as it was read last")
			}
		})
	}
}

// A page of a free space map is read again even if it is newer than the backup's
// start; where it stays as it is, it is one that WAL brings right.
func TestFreeSpacePageReadAgain(t *testing.T) {
	for _, healed := range []bool{true, false} {
		s := pageSite(t)
		s.archiveWAL(t, 6, 7)
		sound := slices.Concat(pagesFrom(0, 1), onePage(1, testRedo+8))
		torn := slices.Clone(sound)
		torn[testBlock+testBlock/2] ^= 1
		writePages(t, s, "base/1/4000_fsm", torn)
		r := s.begin(t)
		pauses, want := 0, torn
		if healed {
			want = sound
		}
		r.pages.pause = func(context.Context, time.Duration) error {
			if pauses++; pauses == 2 {
				writePages(t, s, "base/1/4000_fsm", want)
			}
			return nil
		}
		if err := r.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := pauses > 2; again == healed || len(r.record.Degraded) != 0 {
			t.Errorf("healed %t: read again %d times, degraded: %q", healed, pauses, r.record.Degraded)
		}
		if got := s.restore(t, &r.record).entries["base/1/4000_fsm"]; got != string(want) {
			t.Errorf("healed %t: the backup doesn't have the page as it was read last", healed)
		}
	}
}
