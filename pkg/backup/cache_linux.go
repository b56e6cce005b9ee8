package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// cacheWindow is the size in bytes of the stretches of a file that are kept in
// the kernel's page cache, or not, as one.
const cacheWindow = 4 << 20

// pageCache remembers which stretches of a file the kernel didn't hold before it
// was read, so that a backup doesn't take the place of what the server reads.
// The nil pageCache does nothing.
type pageCache struct {
	file *os.File
	cold []bool // by window
	done int    // windows that were dealt with
}

// watchCache looks at a file before it is read from its start to its end; nil
// where the kernel, before Linux 6.5, can't tell.
func watchCache(file *os.File, size int64) *pageCache {
	c := &pageCache{file: file}
	for offset := int64(0); offset < size; offset += cacheWindow {
		var held unix.Cachestat_t
		window := unix.CachestatRange{Off: uint64(offset), Len: uint64(min(cacheWindow, size-offset))}
		if err := unix.Cachestat(uint(file.Fd()), &window, &held, 0); err != nil {
			return nil
		}
		c.cold = append(c.cold, held.Cache == 0)
	}
	return c
}

// read is told up to where the file has been read, and lets go of what nobody
// else had in the cache.
func (c *pageCache) read(offset int64, ended bool) {
	if c == nil {
		return
	}
	for c.done < len(c.cold) && (ended || int64(c.done+1)*cacheWindow <= offset) {
		if c.cold[c.done] {
			// It is advice: nothing is lost if it isn't taken.
			_ = unix.Fadvise(int(c.file.Fd()), int64(c.done)*cacheWindow, cacheWindow, unix.FADV_DONTNEED)
		}
		c.done++
	}
}
