package backup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// held is how many pages of a window the kernel holds.
func held(t *testing.T, file *os.File, window int64) uint64 {
	t.Helper()
	var state unix.Cachestat_t
	stretch := unix.CachestatRange{Off: uint64(window * cacheWindow), Len: cacheWindow}
	if err := unix.Cachestat(uint(file.Fd()), &stretch, &state, 0); err != nil {
		t.Fatalf("this test needs Linux 6.5: %v", err)
	}
	return state.Cache
}

// A backup leaves the page cache as it was: what was there stays, and what
// wasn't goes again.
func TestPageCache(t *testing.T) {
	s := pageSite(t)
	s.archiveWAL(t, 6, 7)
	const windows = 4
	writePages(t, s, "base/1/4000", pagesFrom(0, windows*cacheWindow/testBlock))
	file, err := os.Open(filepath.Join(s.dir, "base/1/4000"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Only what is on disk can leave the cache.
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	drop := func() {
		if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	drop()
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // without reading ahead
		t.Fatal(err)
	}
	if _, err := file.ReadAt(make([]byte, testBlock), 2*cacheWindow); err != nil {
		t.Fatal(err)
	}
	for window, warm := range []bool{false, false, true, false} {
		if n := held(t, file, int64(window)); warm != (n > 0) {
			t.Fatalf("before, %d pages of window %d are held", n, window)
		}
	}
	if _, err := s.push(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The kernel may need some pages for something else.
	half := cacheWindow / uint64(os.Getpagesize()) / 2
	for window, warm := range []bool{false, false, true, false} {
		if n := held(t, file, int64(window)); warm && n < half || !warm && n > 0 {
			t.Errorf("afterwards, %d pages of window %d are held; it was in use: %t", n, window, warm)
		}
	}
}
