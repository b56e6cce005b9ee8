package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/storage"
)

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	f, err := s.write(ctx, key, body)
	if err != nil {
		return storage.Info{}, err
	}
	return s.link(ctx, key, f)
}

// Stage implements storage.Stager: it leaves to Publish the link and the fsync
// of the folder.
func (s *Store) Stage(ctx context.Context, key string, body io.Reader) (storage.Staged, error) {
	f, err := s.write(ctx, key, body)
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		f.Discard()
		return nil, s.putError(key, err)
	}
	return &staged{s, key, f}, nil
}

// staged is a complete object under a temporary name.
type staged struct {
	store *Store
	key   string
	file  *durable.File
}

// Publish implements storage.Staged.
func (o *staged) Publish(ctx context.Context) (storage.Info, error) {
	if err := check(ctx, "put", o.key); err != nil {
		return storage.Info{}, err
	}
	return o.store.link(ctx, o.key, o.file)
}

// Discard implements storage.Staged.
func (o *staged) Discard() { o.file.Discard() }

// write writes an object beside its place. The caller links or discards it.
func (s *Store) write(ctx context.Context, key string, body io.Reader) (*durable.File, error) {
	if err := check(ctx, "put", key); err != nil {
		return nil, err
	}
	if err := s.makeFolder(path.Dir(key)); err != nil {
		return nil, s.putError(key, err)
	}
	f, err := durable.Create(s.root, key)
	if err != nil {
		return nil, s.putError(key, err)
	}
	if err := s.fill(ctx, f, key, body); err != nil {
		f.Discard()
		return nil, err
	}
	return f, nil
}

// link puts an object in its place, if that is free.
func (s *Store) link(ctx context.Context, key string, f *durable.File) (storage.Info, error) {
	if err := f.Link(); err != nil {
		return storage.Info{}, s.linkError(key, err)
	}
	return s.Stat(context.WithoutCancel(ctx), key) // it is done, whatever ctx says now
}

// fill copies body, to its end, into f.
func (s *Store) fill(ctx context.Context, f *durable.File, key string, body io.Reader) error {
	buffer := make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := f.Write(buffer[:n]); err != nil {
				return s.putError(key, err)
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil: // it may have ended while body was read
			return fmt.Errorf("put %s: %w", key, ctx.Err())
		case err == io.EOF:
			return nil
		default:
			return fmt.Errorf("put %s: read body: %w", key, err)
		}
	}
}

// makeFolder makes a folder durable, once in the life of s.
func (s *Store) makeFolder(folder string) error {
	s.mu.Lock()
	known := s.folders[folder]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := durable.MkdirAll(s.root, folder, 0o700); err != nil {
		return err
	}
	s.mu.Lock()
	s.folders[folder] = true
	s.mu.Unlock()
	return nil
}

// putError says what failed a write before its link. Whatever the file system
// says about missing files, the object's absence isn't the reason.
func (s *Store) putError(key string, err error) error {
	s.mu.Lock()
	delete(s.folders, path.Dir(key)) // it may have been removed: look again next time
	s.mu.Unlock()
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("put %s: %w: one of its folders is an object", key, storage.ErrInvalid)
	case errors.Is(err, fs.ErrNotExist):
		if err := s.gone(); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
		return fmt.Errorf("put %s: its folder or temporary file was removed meanwhile: %w", key, err)
	}
	if err = denied(err); strings.Contains(err.Error(), key) {
		return err // it says what was being done with the file
	}
	return fmt.Errorf("put %s: %w", key, err)
}

func (s *Store) linkError(key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		if info, err := s.root.Lstat(key); err == nil && info.IsDir() {
			return fmt.Errorf("put %s: %w: it is the folder of other objects", key, storage.ErrInvalid)
		}
		return fmt.Errorf("put %s: %w", key, storage.ErrExist)
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("put %s: %w: the file system of %s has no hard links: %w", key, storage.ErrInvalid, s.dir, err)
	}
	return s.putError(key, err)
}
