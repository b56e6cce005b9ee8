package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/wal"
)

// walStream brings the WAL of a backup into the repository while the backup is
// going on, for a server that doesn't archive. Segments are stored as an
// archive command would store them: one that is there already has to be the
// same.
type walStream struct {
	run     *run
	session *postgres.Replication
	slot    string
	dir     string                  // private; holds the segment that is being received
	lock    *os.File                // of dir, for as long as this process lives
	cancel  context.CancelCauseFunc // ends the stream
	ended   chan error

	mu   sync.Mutex
	at   wal.LSN // all before is in the repository
	stop wal.LSN // end of the backup; 0 while that isn't known

	file *os.File // the segment that is being received; nil between two
	next wal.LSN  // what comes next
}

// errWholeWAL ends a stream that has all it needs.
var errWholeWAL = errors.New("all the WAL that the backup needs is stored")

// reserveWAL opens the session that streams WAL, and has the server keep what
// the backup is going to need. Without Options.WithWAL it does nothing.
func (r *run) reserveWAL(ctx context.Context) error {
	if !r.options.WithWAL {
		return nil
	}
	session, err := r.deps.Replication(ctx)
	if err != nil {
		return fmt.Errorf("stream the WAL of the backup: %w", err)
	}
	r.stream = &walStream{run: r, session: session}
	r.stream.slot, err = session.ReserveWAL(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.options.WorkDirectory, 0o700); err != nil {
		return fmt.Errorf("make a folder for WAL: %w", err)
	}
	if err := sweepStreams(r.options.WorkDirectory); err != nil {
		r.log.Warn("remove what a stream of WAL left that was killed", "error", err)
	}
	if r.stream.dir, err = os.MkdirTemp(r.options.WorkDirectory, streamPrefix); err != nil {
		return fmt.Errorf("make a folder for WAL: %w", err)
	}
	if r.stream.lock, err = lockFolder(r.stream.dir); err != nil {
		return fmt.Errorf("lock the folder for WAL: %w", err)
	}
	return nil
}

// streamWAL starts to receive, from the start of the segment in which the
// backup starts. It returns a context that ends when that fails. Without
// Options.WithWAL it does nothing.
func (r *run) streamWAL(ctx context.Context) context.Context {
	s := r.stream
	if s == nil {
		return ctx
	}
	b := &r.record
	copying, fail := context.WithCancelCause(ctx)
	ctx, s.cancel = context.WithCancelCause(ctx)
	s.next = wal.LSN(wal.SegmentNumber(b.StartLSN, b.SegmentSize) * b.SegmentSize)
	s.at, s.ended = s.next, make(chan error, 1)
	go func() {
		err := s.history(ctx)
		if err == nil {
			err = s.session.StreamWAL(ctx, s.slot, s.next, b.Timeline, func(at wal.LSN, data []byte) (wal.LSN, bool, error) { return s.take(ctx, at, data) })
		}
		if err != nil && !errors.Is(err, errWholeWAL) {
			fail(err)
		}
		s.ended <- err
	}()
	return copying
}

// history stores the history file of the backup's timeline.
func (s *walStream) history(ctx context.Context) error {
	timeline := s.run.record.Timeline
	if timeline == 1 {
		return nil
	}
	content, err := s.session.TimelineHistory(ctx, timeline)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, wal.HistoryName(timeline).String())
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return s.push(ctx, path)
}

// take adds what came to the segment, and stores that when it is whole.
func (s *walStream) take(ctx context.Context, at wal.LSN, data []byte) (safe wal.LSN, done bool, err error) {
	if at != s.next {
		return 0, false, fmt.Errorf("the server sent WAL from %s on, expected from %s on", at, s.next)
	}
	size := s.run.record.SegmentSize
	for len(data) > 0 {
		if s.file == nil {
			name := wal.SegmentName(s.run.record.Timeline, wal.SegmentNumber(s.next, size), size)
			s.file, err = os.OpenFile(filepath.Join(s.dir, name.String()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return 0, false, err
			}
		}
		left := size - uint64(s.next)%size
		chunk := data[:min(uint64(len(data)), left)]
		if _, err := s.file.Write(chunk); err != nil {
			return 0, false, err
		}
		data = data[len(chunk):]
		s.next += wal.LSN(len(chunk))
		if uint64(len(chunk)) == left {
			if done, err = s.store(ctx); done || err != nil {
				return s.next, done, err
			}
		}
	}
	return s.at, false, nil
}

// store puts the segment that is whole into the repository.
func (s *walStream) store(ctx context.Context) (done bool, err error) {
	path := s.file.Name()
	err = s.file.Close()
	s.file = nil
	if err != nil {
		return false, err
	}
	if err := s.push(ctx, path); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.next
	return s.stop != 0 && s.at >= s.stop, nil
}

func (s *walStream) push(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, s.run.options.WALTimeout)
	defer cancel()
	_, err := archive.Push(ctx, s.run.repository, path, archive.PushOptions{SystemID: s.run.record.SystemID, Host: s.run.record.Host, Log: s.run.log})
	return errors.Join(err, os.Remove(path))
}

// finish waits until all before stop is in the repository.
func (s *walStream) finish(ctx context.Context, stop wal.LSN) error {
	s.mu.Lock()
	s.stop = stop
	// Nothing may come any more that would end the stream.
	if s.at >= stop {
		s.cancel(errWholeWAL)
	}
	s.mu.Unlock()
	known, progressed := s.stored(), time.Now()
	ticker := time.NewTicker(mostProvePause)
	defer ticker.Stop()
	for {
		select {
		case err := <-s.ended:
			s.ended <- nil // for close
			if errors.Is(err, errWholeWAL) {
				err = nil
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		if at := s.stored(); at != known {
			known, progressed = at, time.Now()
		}
		if time.Since(progressed) >= s.run.options.WALTimeout {
			return fmt.Errorf("the server hasn't sent all the WAL up to %s, only up to %s, and no segment came for %s%s", stop, known, s.run.options.WALTimeout, s.run.waitHint())
		}
	}
}

func (s *walStream) stored() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// close ends the stream, and removes what it left.
func (s *walStream) close() {
	if s == nil {
		return
	}
	if s.cancel != nil {
		s.cancel(context.Canceled)
		if err := <-s.ended; err != nil { // finish has said it to whoever asked
			s.run.log.Debug("the stream of WAL was ended", "error", err)
		}
	}
	_ = s.session.Close() // the slot goes with the session, however that ends
	if s.file != nil {
		_ = s.file.Close() // it is given up
	}
	if s.dir != "" {
		if err := os.RemoveAll(s.dir); err != nil {
			s.run.log.Warn("remove the folder for WAL", "error", err)
		}
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}
