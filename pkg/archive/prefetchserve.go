package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

const (
	watchEvery = 200 * time.Millisecond
	// idleEnd is how long nobody asks until fetching ahead ends by itself:
	// recovery is paused, or replays very slowly.
	idleEnd = 5 * time.Minute
	// stalledAfter is how long a segment that the server waits for may make
	// no progress until the server is told to fetch it by itself.
	stalledAfter = 3 * waitEvery
)

// PrefetchOptions say what is fetched ahead, and for whom.
type PrefetchOptions struct {
	SystemID    uint64
	SegmentSize uint64 // bytes
	Segments    int    // the most that are ahead at a time
	Workers     int    // how many are fetched at once
	State       *os.Root
	Key         string // AheadKey
	Folder      string // where the server wants its files: pg_wal
	// Last is the segment behind which to begin.
	Last wal.FileName
	// Over tells that nobody will ask any more. It is called often.
	Over func() bool
	Log  *slog.Logger
}

// errEnd is why fetching ahead ends by itself.
var errEnd = errors.New("fetching ahead has ended")

// Prefetch fetches segments ahead of a server in recovery, and gives them out
// to the calls of Fetch that have an Ahead with the same State and Key. It
// ends by itself, with no error: when the recovery run is over, nobody has
// asked for long, the end of the archive is reached, or when there is such a
// process already. Its files have no names (see durable.Spare), so nothing
// remains of it, however it ends.
//
// At most SegmentSize * Segments bytes of disk space are used, at most 1 GiB
// if that is room for a segment, and at most a quarter of what is free.
func Prefetch(ctx context.Context, open Opener, o PrefetchOptions) error {
	err := prefetch(ctx, open, o)
	if errors.Is(err, errEnd) {
		o.Log.Info(err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("fetch ahead: %w", err)
	}
	return nil
}

func prefetch(ctx context.Context, open Opener, o PrefetchOptions) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	folder, err := os.OpenRoot(o.Folder)
	if err != nil {
		return err
	}
	defer folder.Close()
	lock, err := lockPrefetch(o.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	p := &prefetcher{o: o, end: end}
	p.used.Store(time.Now().UnixNano())
	var running sync.WaitGroup
	defer running.Wait()
	defer end(nil)
	// From here on the storage may be silent.
	running.Go(func() { p.watch(ctx) })
	repository, err := openUntil(ctx, open)
	if err != nil {
		return err
	}
	listener, err := listenState(o.State)
	if err != nil {
		return err
	}
	defer func() { _ = o.State.Remove(prefetchSocket) }() // the next one does it too
	p.window = &window{
		repository: repository, systemID: o.SystemID, size: o.SegmentSize, folder: folder,
		largest: int(min(uint64(o.Segments), max(aheadBytes/o.SegmentSize, 1))),
		workers: o.Workers, log: o.Log, ctx: ctx,
	}
	o.Log.Debug("fetching ahead", "segments", p.window.largest, "workers", o.Workers)
	p.window.follow(o.Last)
	running.Go(func() {
		<-ctx.Done()
		_ = listener.Close()
	})
	p.accept(ctx, listener)
	p.window.stop()
	return context.Cause(ctx)
}

// openUntil opens the repository, and returns when ctx ends even if the storage
// doesn't notice: the process ends then.
func openUntil(ctx context.Context, open Opener) (*repo.Repository, error) {
	type opened struct {
		repository *repo.Repository
		err        error
	}
	result := make(chan opened, 1)
	go func() {
		r, err := open(ctx)
		result <- opened{r, err}
	}()
	select {
	case o := <-result:
		return o.repository, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// lockPrefetch makes sure that there is one process for a server.
func lockPrefetch(state *os.Root) (*os.File, error) {
	if err := makePrefetchFolder(state); err != nil {
		return nil, err
	}
	lock, err := state.OpenFile(prefetchLock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another process does it", errEnd)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// listenState listens at the socket in the state folder. One that is there
// was left by a process that was killed: its lock is ours.
func listenState(state *os.Root) (listener *net.UnixListener, err error) {
	if err := state.Remove(prefetchSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = inState(state, prefetchSocket, func(path string) error {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // its path is no longer valid
	return listener, nil
}

// prefetcher answers a server's fetches from its window.
type prefetcher struct {
	o      PrefetchOptions
	window *window
	end    context.CancelCauseFunc
	used   atomic.Int64 // when somebody last asked, in nanoseconds
}

// watch ends everything when nobody needs it any more.
func (p *prefetcher) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case p.o.Over():
			p.end(fmt.Errorf("%w: the recovery run is over", errEnd))
		case time.Since(time.Unix(0, p.used.Load())) > idleEnd:
			p.end(fmt.Errorf("%w: nobody has asked for %s", errEnd, idleEnd))
		}
	}
}

// accept serves connections until the listener is closed.
func (p *prefetcher) accept(ctx context.Context, listener net.Listener) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.end(err)
			}
			return
		}
		running.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if err := errors.Join(p.serve(ctx, conn), conn.Close()); err != nil {
				p.o.Log.Debug("an asker went away", "error", err)
			}
		})
	}
}

// serve answers one call of Fetch.
func (p *prefetcher) serve(ctx context.Context, conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<10)
	if !lines.Scan() {
		return lines.Err()
	}
	key, text, _ := strings.Cut(lines.Text(), " ")
	name, err := wal.ParseFileName(text)
	if err == nil && name.Kind != wal.KindSegment {
		err = errors.New("only segments are fetched ahead")
	}
	if err != nil {
		return fmt.Errorf("answer a fetch: %w", err)
	}
	if key != p.o.Key {
		p.end(fmt.Errorf("%w: somebody asks for another recovery run, or with other settings", errEnd))
		return nil
	}
	p.used.Store(time.Now().UnixNano())
	if s := p.window.take(name); s != nil {
		done, err := p.give(ctx, conn, lines, s)
		p.window.discard(s)
		if done || err != nil {
			return err
		}
	}
	return p.hear(conn, lines, name)
}

// give gives a segment out, when it is complete. It returns false when the
// asker is better off without.
func (p *prefetcher) give(ctx context.Context, conn net.Conn, lines *bufio.Scanner, s *piece) (done bool, err error) {
	if there, err := s.await(ctx, conn); !there || err != nil {
		return false, err
	}
	temp, err := s.file.Offer()
	if err != nil {
		p.window.giveUp()
		p.o.Log.Warn("fetching ahead ends: a segment can't be given out", "segment", s.name.String(), "error", err)
		return false, nil
	}
	if _, err := fmt.Fprintln(conn, replyTake, temp); err != nil {
		return false, err
	}
	lines.Scan() // until the asker hangs up
	return true, nil
}

// await waits for a segment to be complete, as long as there is progress.
func (s *piece) await(ctx context.Context, conn net.Conn) (bool, error) {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	written, since := s.written.Load(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-s.done:
			return s.err == nil, nil
		case <-tick.C:
		}
		if now := s.written.Load(); now != written {
			written, since = now, time.Now()
		}
		if time.Since(since) > stalledAfter {
			return false, nil
		}
		if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
			return false, err
		}
		if _, err := fmt.Fprintln(conn, replyWait); err != nil {
			return false, err
		}
	}
}

// hear says that a segment isn't there, and hears how the asker's own fetch
// ends. That takes as long as it takes.
func (p *prefetcher) hear(conn net.Conn, lines *bufio.Scanner, name wal.FileName) error {
	if _, err := fmt.Fprintln(conn, replyNone); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if !lines.Scan() {
		return lines.Err()
	}
	switch lines.Text() {
	case reportHave:
		p.used.Store(time.Now().UnixNano())
		p.window.follow(name)
	case reportAbsent:
		if p.window.atEnd() {
			p.end(fmt.Errorf("%w: %s is not in the archive", errEnd, name))
		}
	}
	return nil
}
