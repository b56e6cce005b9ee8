package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	// copyBuffer is what is written at once: what was hashed is still in the
	// processor's cache when it is written.
	copyBuffer = 256 << 10
	// writeBehind is how much of a file is written before the disk is told to
	// begin with it, so that the fsync at its end finds little to do.
	writeBehind = 8 << 20
	// Files that wait for their fsync while others are written, and how many
	// are at it at once: the journal of a file system makes many durable
	// together.
	maxUnsynced = 256
	syncers     = 16
)

// fileWriter makes the files of a restore, and makes them durable while the
// next ones are written. A page without content is written like any other:
// PostgreSQL takes it that a file has all the room on disk that its size says.
type fileWriter struct {
	queue   chan unsynced
	group   errgroup.Group
	cancel  context.CancelCauseFunc
	written atomic.Int64 // bytes

	mu   sync.Mutex
	made map[madeDir]bool
}

type madeDir struct {
	root *os.Root
	name string
}

// unsynced is a file with all its content.
type unsynced struct {
	root *os.Root
	name string
	file *os.File
}

// newFileWriter starts the writer; wait ends it. A failed fsync ends the
// context that it returns.
func newFileWriter(ctx context.Context) (*fileWriter, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &fileWriter{queue: make(chan unsynced, maxUnsynced), cancel: cancel, made: map[madeDir]bool{}}
	for range syncers {
		w.group.Go(func() error {
			var failed error
			for u := range w.queue { // to its end: each file has to be closed
				if err := u.sync(); err != nil && failed == nil {
					failed = err
					cancel(err)
				}
			}
			return failed
		})
	}
	return w, ctx
}

// sync makes the file durable. One that isn't is removed: a restore that goes
// on later would read its pages from memory and find them right.
func (u unsynced) sync() error {
	err := u.file.Sync()
	if err != nil {
		err = errors.Join(err, u.root.Remove(u.name))
	}
	if err := errors.Join(err, u.file.Close()); err != nil {
		return fmt.Errorf("make file %q durable: %w", u.name, err)
	}
	return nil
}

// wait waits until all files are durable.
func (w *fileWriter) wait() error {
	close(w.queue)
	defer w.cancel(nil)
	return w.group.Wait()
}

// mkdir makes a directory and those above it, each once.
func (w *fileWriter) mkdir(root *os.Root, dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if dir == "." || w.made[madeDir{root, dir}] {
		return nil
	}
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w.made[madeDir{root, dir}] = true
	return nil
}

// create opens a new file of a size that is known.
func (w *fileWriter) create(root *os.Root, name string, size int64, perm fs.FileMode) (*os.File, error) {
	if err := w.mkdir(root, path.Dir(name)); err != nil {
		return nil, err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(chmod(file, perm), reserve(file, size)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// copy writes a file's content and checks it against the manifest.
func (w *fileWriter) copy(file *os.File, content io.Reader, name string, expected *manifestFile, buffer []byte) error {
	check := expected.checker()
	var begun, at int64
	for {
		n, err := io.ReadFull(content, buffer)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("read file %q: %w", name, err)
		}
		if check.hash != nil {
			check.hash.Write(buffer[:n])
		}
		if _, err := file.Write(buffer[:n]); err != nil {
			return fmt.Errorf("write file %q: %w", name, err)
		}
		at += int64(n)
		w.written.Add(int64(n))
		if at-begun >= writeBehind {
			beginWriting(file, begun, at-begun)
			begun = at
		}
		if err != nil {
			return check.check(name)
		}
	}
}

// finish hands a file over to be made durable and closed.
func (w *fileWriter) finish(ctx context.Context, root *os.Root, name string, file *os.File) error {
	select {
	case w.queue <- unsynced{root, name, file}:
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), file.Close())
	}
}
