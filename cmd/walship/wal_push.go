package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/done"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// A push of one segment ends before there is much garbage, and to look for it
// takes a tenth of its time. In a batch, the memory of a database's host has
// better use than to hold garbage, and what is held is a few large buffers, so
// that looking through them takes no time.
const (
	pushHeap     = 104 << 20 // bytes at which Go collects rather than grow; a batch is bounded below that
	pushGarbage  = 800       // percent of what is in use before Go collects: not below 32 MiB
	batchGarbage = 50
	pushSegment  = 16 << 20 // bytes of a segment; a larger one is pushed as a batch is
)

// pushWAL archives one file, and the segments that wait behind it.
func (e *environment) pushWAL(c *cli.Context, path string) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	ctx, cancel := e.deadline(c.Context, settings.WAL.PushDeadline.Duration)
	defer cancel()
	name, err := wal.ParseFileName(filepath.Base(path))
	if err != nil {
		return &usageError{err.Error()}
	}
	s, err := e.findServer(c.String("system-id"), path, settings)
	if err != nil {
		return err
	}
	memory := e.remember(s, settings)
	defer memory.close()
	taken, known := memory.taken(path, name)
	if taken {
		return nil
	}
	debug.SetMemoryLimit(pushHeap)
	debug.SetGCPercent(pushGarbage)
	if s.segmentSize > pushSegment {
		debug.SetGCPercent(batchGarbage)
	}
	o := archive.PushOptions{
		SystemID: s.systemID, Strict: c.Bool("strict"), Batch: memory.batch(settings),
		Processors: pushProcessors(settings), Host: hostName(), Log: e.logger(),
		AskFirst: !isDirectory(settings.Repository) && memory.again(),
	}
	if o.Standby, err = isStandby(s.dataDirectory); err != nil {
		return err
	}
	repository, remembered, err := e.pushRepository(ctx, memory)
	if err != nil {
		return err
	}
	if !known { // before, which repository it is
		if taken, _ = memory.taken(path, name); taken {
			return nil
		}
	}
	pushed, err := archive.Push(ctx, repository, path, o)
	if err != nil && remembered && ctx.Err() == nil {
		pushed, err = e.pushAgain(ctx, memory, path, o, repository.Info.ID, err)
	}
	if err != nil {
		return err
	}
	memory.noteAgain(pushed.Already)
	e.logger().Debug("archived", "file", pushed.Name.String(), "key", pushed.Key, "already", pushed.Already, "stored", pushed.StoredSize, "along", pushed.Along)
	return nil
}

// hostName is the name of this machine; "" where it has none, which is no
// reason not to archive.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// pushAgain follows a push that failed in a repository as it was remembered, which
// may be outdated: the repository is asked, and if it has another id by now, the
// file is pushed there.
func (e *environment) pushAgain(ctx context.Context, memory *pushMemory, path string, o archive.PushOptions, id string, failed error) (archive.Pushed, error) {
	memory.forget()
	now, _, err := e.pushRepository(ctx, memory)
	switch {
	case errors.Is(err, repo.ErrNotInitialised):
		return archive.Pushed{}, err
	case err != nil || now.Info.ID == id:
		return archive.Pushed{}, failed
	}
	return archive.Push(ctx, now, path, o)
}

// pushRepository opens the repository for writing, without a request if it is
// remembered what it is. A directory is asked all the same: it costs nothing.
func (e *environment) pushRepository(ctx context.Context, memory *pushMemory) (r *repo.Repository, remembered bool, err error) {
	store, err := e.openStore(ctx)
	if err != nil {
		return nil, false, err
	}
	if info, known := memory.info(); known && !isDirectory(e.settings.Repository) {
		r, err := e.assemble(store, info, false)
		return r, true, err
	}
	asked := time.Now()
	info, err := openInfo(ctx, store)
	if err != nil {
		memory.forget()
		return nil, false, err
	}
	memory.keep(info, asked)
	r, err = e.assemble(store, info, false)
	return r, false, err
}

// pushMemory is what one push leaves for the next ones; nil remembers nothing.
type pushMemory struct {
	e     *environment
	known archive.Known
	done  archive.Done
	found archive.Again
}

// remember opens what earlier pushes left.
func (e *environment) remember(s server, settings *config.Config) *pushMemory {
	m, err := e.openPushMemory(s, settings)
	if err != nil {
		e.logger().Debug("there is no state folder, so that every segment is pushed by itself", "error", err)
		return nil
	}
	return m
}

func (e *environment) openPushMemory(s server, settings *config.Config) (*pushMemory, error) {
	call, err := e.call(settings)
	if err != nil {
		return nil, err
	}
	dataDirectory, err := filepath.Abs(s.dataDirectory)
	if err == nil {
		dataDirectory, err = filepath.EvalSymlinks(dataDirectory)
	}
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	state, err := e.state(s.systemID, s.dataDirectory)
	if err != nil {
		return nil, err
	}
	folder, err := e.stateFolder(done.Folder(dataDirectory))
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return &pushMemory{
		e:     e,
		known: archive.Known{State: state, Place: e.place()},
		done:  archive.Done{State: state, Folder: folder, Call: call, Target: done.NewTarget(e.place(), s.systemID)},
		found: archive.Again{State: state},
	}, nil
}

// call is the digest of this call, as package early makes it.
func (e *environment) call(settings *config.Config) (done.Digest, error) {
	directory, err := syscall.Getwd() // os.Getwd goes by PWD
	if err != nil {
		return 0, fmt.Errorf("find the working directory: %w", err)
	}
	var variables []string
	if e.environ != nil {
		variables = e.environ()
	}
	return done.NewCall(e.args[:max(len(e.args)-1, 0)], variables, directory, settings.Content()), nil
}

func (m *pushMemory) close() {
	if m != nil {
		m.done.Folder.Close()
		m.done.State.Close()
	}
}

// taken tells whether an earlier push took the file along. It can't say yes
// unless it is known which repository this is.
func (m *pushMemory) taken(path string, name wal.FileName) (taken, known bool) {
	info, known := m.info()
	if !known || !m.done.Take(info.ID, path, name) {
		return false, known
	}
	m.e.logger().Debug("archived by an earlier call", "file", name.String())
	return true, true
}

func (m *pushMemory) info() (repo.Info, bool) {
	if m == nil {
		return repo.Info{}, false
	}
	info, read, known := m.known.Info()
	m.done.Read = read
	return info, known
}

// keep remembers which repository there was at that time. What is remembered of
// another one is wrong by now.
func (m *pushMemory) keep(info repo.Info, read time.Time) {
	if m == nil {
		return
	}
	m.done.Read = read
	if err := m.known.Remember(info, read); err != nil {
		m.e.logger().Debug("the next push will ask again", "error", err)
	}
	if err := m.done.Clear(info.ID); err != nil {
		m.e.logger().Debug("outdated records stay for a while", "error", err)
	}
}

func (m *pushMemory) forget() {
	if m == nil {
		return
	}
	if err := errors.Join(m.known.Forget(), m.done.Clear("")); err != nil {
		m.e.logger().Debug("outdated records stay for a while", "error", err)
	}
}

// again tells whether the last push found its file in the repository.
func (m *pushMemory) again() bool { return m != nil && m.found.Expected() }

func (m *pushMemory) noteAgain(already bool) {
	if m == nil {
		return
	}
	if err := m.found.Note(already); err != nil {
		m.e.logger().Debug("the next push may ask in vain", "error", err)
	}
}

// batch says how a push takes others along: in the first quarter of its time
// it begins with them, and in the second it ends with them, so that PostgreSQL
// has its answer well before the deadline.
func (m *pushMemory) batch(settings *config.Config) *archive.Batch {
	if m == nil {
		return nil
	}
	deadline := settings.WAL.PushDeadline.Duration
	return &archive.Batch{
		Done: &m.done, Concurrency: pushConcurrency(settings),
		Starts: func() { debug.SetGCPercent(batchGarbage) },
		Begin:  deadline / 4, End: deadline / 2,
	}
}

// pushConcurrency is the setting wal.concurrency, or what suits the machine: one
// more than there are processors, because one mostly waits for a disk.
func pushConcurrency(settings *config.Config) int {
	const most = 4 // more don't help: segments are published one by one
	if n := settings.WAL.Concurrency; n > 0 {
		return n
	}
	return min(runtime.GOMAXPROCS(0)+1, most)
}

// pushProcessors is how many processors a segment with nothing behind it takes.
func pushProcessors(settings *config.Config) int {
	if settings.WAL.Concurrency == 1 {
		return 1
	}
	return min(runtime.GOMAXPROCS(0), 2)
}
