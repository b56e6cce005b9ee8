package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

const (
	// aheadBytes bounds the disk space of what is fetched ahead, except that
	// one segment always may be.
	aheadBytes = 1 << 30
	// freeShare: at most one part in so many of the free disk space is used;
	// the server needs it more.
	freeShare = 4
	// firstAhead is how many segments are fetched ahead at first.
	firstAhead = 2
)

// window is the segments ahead of a server in recovery: complete and checked
// in files that nobody sees yet, or on their way there. They follow each
// other on one timeline, and each is given out only to who asks for it by
// name: what other timelines hold doesn't matter.
//
// It begins small, and grows with each segment that the server takes. It
// stands still before a segment that couldn't be had, whatever the reason,
// until the server got one by itself: absence is nothing to remember, and an
// outage nothing to make worse.
type window struct {
	repository *repo.Repository
	systemID   uint64
	size       uint64   // of a segment, bytes
	folder     *os.Root // where the server wants its files
	largest    int      // segments
	workers    int      // at once
	log        *slog.Logger

	ctx     context.Context // ends all fetching
	running sync.WaitGroup

	mu     sync.Mutex
	ahead  []*piece     // in order, the first one is what the server asks for next
	last   wal.FileName // before the first one; the zero name until it is known
	limit  int          // segments, as long as it grows
	busy   int          // workers
	halted bool
	full   bool // the disk was: nothing is fetched ahead any more
}

// piece is a segment that is fetched ahead.
type piece struct {
	name    wal.FileName
	cancel  context.CancelFunc
	done    chan struct{} // closed when file or err is set
	file    *durable.Spare
	err     error
	written atomic.Int64 // bytes of its content
	dropped bool         // guarded by the window
}

// follow goes on behind a segment that the server got by itself.
func (w *window) follow(name wal.FileName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ahead) == 0 || w.ahead[0].name != name.Next(w.size) {
		w.keep(0)
		w.limit = min(firstAhead, w.largest)
	}
	// What couldn't be had may be there now.
	if i := slices.IndexFunc(w.ahead, (*piece).failed); i >= 0 {
		w.keep(i)
	}
	w.last, w.halted = name, false
	w.fill()
}

// take removes a segment from the window, which goes on behind it. It returns
// nil when it isn't in. The caller waits for it and discards it.
func (w *window) take(name wal.FileName) *piece {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.ahead, func(s *piece) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	s := w.ahead[i]
	for _, passed := range w.ahead[:i] {
		passed.drop()
	}
	w.ahead = w.ahead[i+1:]
	w.last, w.limit = name, min(2*w.limit, w.largest)
	w.fill()
	return s
}

// atEnd tells whether nothing is left that the server could ask for.
func (w *window) atEnd() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.ahead, func(s *piece) bool { return !s.failed() })
}

// stopWait is how long the end of fetching ahead waits for a storage that
// doesn't notice it, such as a directory whose server is silent.
const stopWait = time.Second

// stop drops everything; ctx must have ended, and the process must end then.
func (w *window) stop() {
	w.mu.Lock()
	w.halted = true
	w.keep(0)
	w.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopWait):
		w.log.Warn("the storage is silent: what is being fetched ends with the process")
	}
}

// keep drops all but the first n segments.
func (w *window) keep(n int) {
	for _, s := range w.ahead[n:] {
		s.drop()
	}
	w.ahead = w.ahead[:n]
}

// fill begins to fetch as many segments as there is room for.
func (w *window) fill() {
	for w.ctx.Err() == nil && !w.halted && !w.full && len(w.ahead) < w.limit && w.busy < w.workers && w.room() {
		after := w.last
		if n := len(w.ahead); n > 0 {
			after = w.ahead[n-1].name
		}
		ctx, cancel := context.WithCancel(w.ctx)
		s := &piece{name: after.Next(w.size), cancel: cancel, done: make(chan struct{})}
		w.ahead = append(w.ahead, s)
		w.busy++
		w.running.Go(func() { w.fetch(ctx, s) })
	}
}

// room tells whether the disk has room for another segment.
func (w *window) room() bool {
	dir, err := w.folder.Open(".")
	if err != nil {
		return false
	}
	defer dir.Close()
	var disk syscall.Statfs_t
	if err := syscall.Fstatfs(int(dir.Fd()), &disk); err != nil {
		return false
	}
	free := disk.Bavail * uint64(disk.Bsize)
	return uint64(w.busy+1)*w.size*freeShare <= free
}

// fetch fetches one segment, and lets the next one begin.
func (w *window) fetch(ctx context.Context, s *piece) {
	file, err := w.download(ctx, s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	s.file, s.err = file, err
	close(s.done)
	s.cancel()
	switch {
	case s.dropped:
		file.Discard()
	case errors.Is(err, syscall.ENOSPC):
		w.log.Warn("fetching ahead ends: the disk is full", "segment", s.name.String(), "error", err)
		w.full = true
		w.keep(0)
	case err != nil:
		w.log.Info("fetching ahead stands still", "segment", s.name.String(), "error", err)
		w.halted = true
	}
	w.fill()
}

// download writes a segment, opened and checked, into a file without a name.
func (w *window) download(ctx context.Context, s *piece) (file *durable.Spare, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v\n%s", p, debug.Stack())
		}
		if err != nil {
			file.Discard()
			file = nil
		}
	}()
	if file, err = durable.CreateSpare(w.folder, "."); err != nil {
		return nil, err
	}
	key := w.repository.FileKey(w.systemID, s.name)
	body, info, err := w.repository.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return file, err
	}
	defer body.Close()
	if err := copyContent(w.repository, w.systemID, s.name, &progress{file, s}, body, info); err != nil {
		return file, err
	}
	if n := s.written.Load(); uint64(n) != w.size {
		return file, fmt.Errorf("object %s has %d bytes of WAL, the server's segments have %d", key, n, w.size)
	}
	return file, nil
}

// progress counts what is written of a segment.
type progress struct {
	w io.Writer
	s *piece
}

func (p *progress) Write(data []byte) (int, error) {
	n, err := p.w.Write(data)
	p.s.written.Add(int64(n))
	return n, err
}

// drop gives a segment up. The window's lock is held.
func (s *piece) drop() {
	s.dropped = true
	s.cancel()
	if s.complete() {
		s.file.Discard()
	}
}

// complete tells whether a segment's fetching has ended.
func (s *piece) complete() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *piece) failed() bool { return s.complete() && s.err != nil }

// discard ends the use of a segment that was taken.
func (w *window) discard(s *piece) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.drop()
}

// giveUp drops everything, and has nothing more fetched.
func (w *window) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = true
	w.keep(0)
}
