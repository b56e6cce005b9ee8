package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

const (
	// maxBadPages is how many bad pages are remembered one by one; beyond,
	// they are counted.
	maxBadPages = 1000
	// maxPagePauses bounds how often a backup waits before it reads a page
	// again, so that a disk full of bad pages doesn't hold it up.
	maxPagePauses = 200
)

// pagePauses returns how long to wait before each further reading of a page
// that fails its checksum. A page may be read while the server writes it, and
// the second half comes later than the first if the writer had to wait for a
// processor in between.
func pagePauses() []time.Duration {
	return []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}
}

// badPage is a page with a wrong checksum.
type badPage struct {
	name  string // of its file in the backup
	fork  pgdata.Fork
	block uint32 // number in the fork, across segments
	lsn   wal.LSN
}

// pageCheck verifies the checksums of pages while they are copied, for all
// workers; see sendFile and verify_page_checksum in
// src/backend/backup/basebackup.c.
type pageCheck struct {
	blockSize  int
	segment    uint32  // blocks in a segment of a relation
	start      wal.LSN // of the backup
	pause      func(context.Context, time.Duration) error
	pausesLeft atomic.Int64
	checked    atomic.Int64 // pages

	mu    sync.Mutex
	bad   []badPage
	count int64 // of bad pages
	// later are pages that fail but are newer than the start of the backup:
	// they were read while they were written, and WAL brings them right. Only
	// the end of the backup tells whether there was such an LSN at all.
	later []badPage
}

func newPageCheck(control pgdata.ControlFile, start wal.LSN) *pageCheck {
	c := &pageCheck{blockSize: int(control.BlockSize), segment: control.RelSegSize, start: start, pause: sleep}
	c.pausesLeft.Store(maxPagePauses)
	return c
}

// filePages checks the pages of one file. The nil filePages checks nothing.
type filePages struct {
	check *pageCheck
	file  io.ReaderAt
	name  string
	fork  pgdata.Fork
	first uint32 // number of the file's first block in its fork
}

// of returns the check for a file: nil unless it is a relation's.
func (c *pageCheck) of(src *source) *filePages {
	path := pgdata.ClassifyPath(src.name)
	if c == nil || path.Kind != pgdata.KindRelation {
		return nil
	}
	return &filePages{check: c, file: src.file, name: src.name, fork: path.Fork, first: path.Segment * c.segment}
}

// verify checks what was read from an offset of the file that is a multiple of
// the page's size. Pages that fail are read again, into data. What is left at
// the end and isn't a whole page isn't looked at: the file is just growing.
func (f *filePages) verify(ctx context.Context, data []byte, offset int64) error {
	if f == nil {
		return nil
	}
	size := f.check.blockSize
	f.check.checked.Add(int64(len(data) / size))
	for ; len(data) >= size; data, offset = data[size:], offset+int64(size) {
		page, block := data[:size], f.first+uint32(offset/int64(size))
		if pgdata.PageIsSound(page, block) {
			continue
		}
		if err := f.readAgain(ctx, page, block, offset); err != nil {
			return err
		}
	}
	return nil
}

// readAgain reads a page that failed until it is sound, or newer than the
// start of the backup, or has failed often enough. One of a free space map is
// read again even if it is newer: an incremental backup may go on with it, and
// the server's WAL summaries don't name the images that would bring it right.
func (f *filePages) readAgain(ctx context.Context, page []byte, block uint32, offset int64) error {
	c := f.check
	for _, pause := range pagePauses() {
		if lsn := pgdata.PageLSN(page); lsn >= c.start && f.fork != pgdata.ForkFSM {
			c.noteLater(badPage{f.name, f.fork, block, lsn})
			return nil
		}
		if pause > 0 && c.pausesLeft.Add(-1) < 0 {
			break
		}
		if err := c.pause(ctx, pause); err != nil {
			return err
		}
		n, err := f.file.ReadAt(page, offset)
		if errors.Is(err, io.EOF) {
			clear(page[n:]) // cut off meanwhile: WAL knows
			return nil
		}
		if err != nil {
			return err
		}
		if pgdata.PageIsSound(page, block) {
			return nil
		}
	}
	if lsn := pgdata.PageLSN(page); lsn >= c.start {
		c.noteLater(badPage{f.name, f.fork, block, lsn})
		return nil
	}
	c.noteBad(badPage{f.name, f.fork, block, pgdata.PageLSN(page)})
	return nil
}

func (c *pageCheck) noteBad(p badPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	if len(c.bad) < maxBadPages {
		c.bad = append(c.bad, p)
	}
}

// noteLater remembers those with the highest LSNs.
func (c *pageCheck) noteLater(p badPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.later) < maxBadPages {
		c.later = append(c.later, p)
		return
	}
	least := 0
	for i := range c.later {
		if c.later[i].lsn < c.later[least].lsn {
			least = i
		}
	}
	if p.lsn > c.later[least].lsn {
		c.later[least] = p
	}
}

// finish is told where the backup ended, and returns how many pages were bad,
// and a line for each of them, or for each stretch of them in a file.
func (c *pageCheck) finish(stop wal.LSN) (count int64, lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.later {
		// WAL is written before pages are, so no page can be ahead of it.
		if p.lsn > stop {
			c.count++
			c.bad = append(c.bad, p)
		}
	}
	c.later = nil
	slices.SortFunc(c.bad, func(a, b badPage) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.block, b.block))
	})
	var listed int64
	for i := 0; i < len(c.bad) && len(lines) < maxBadLines; {
		end := i + 1
		for end < len(c.bad) && c.bad[end].name == c.bad[i].name && c.bad[end].block == c.bad[end-1].block+1 {
			end++
		}
		lines = append(lines, describeBad(c.bad[i:end]))
		listed += int64(end - i)
		i = end
	}
	if listed < c.count {
		lines = append(lines, fmt.Sprintf("wrong page checksum: %d more pages", c.count-listed))
	}
	return c.count, lines
}

// maxBadLines bounds what a backup's record says of bad pages.
const maxBadLines = 100

// describeBad describes a stretch of pages of one file.
func describeBad(pages []badPage) string {
	first, last := pages[0], pages[len(pages)-1]
	fork := map[pgdata.Fork]string{pgdata.ForkMain: "main", pgdata.ForkFSM: "fsm", pgdata.ForkVM: "vm", pgdata.ForkInit: "init"}[first.fork]
	if len(pages) == 1 {
		return fmt.Sprintf("wrong page checksum: %s, %s fork, block %d", first.name, fork, first.block)
	}
	return fmt.Sprintf("wrong page checksum: %s, %s fork, blocks %d to %d", first.name, fork, first.block, last.block)
}
