// Package file keeps objects in a directory, each as a file whose path below
// the directory is its key. It promises what storage.Store does:
//
//   - An object is written beside its place and linked into it, so that it
//     appears whole, and never in place of another. Success is returned after
//     the fsync of the file, of its folder and of the folders above.
//   - Folders are 0700 and files 0600: only the user that walship runs as reads
//     them.
//   - Nothing outside the directory is reached. Symbolic links are no objects.
//   - A directory that is missing, or was replaced since it was opened, is
//     never taken for an empty one.
//
// A directory can't hold an object "a" beside "a/b", nor names longer than 255
// bytes, nor anything below "lost+found": Put refuses such keys with
// storage.ErrInvalid.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/storage"
)

// lostAndFound is made by mkfs in the uppermost folder of a file system, which
// may be the store's, and is readable by root only.
const lostAndFound = "lost+found"

// maxName is the longest name, in bytes, that file systems take (NAME_MAX).
const maxName = 255

// Store is a directory.
type Store struct {
	dir  string // absolute
	root *os.Root
	base fs.FileInfo // the directory as it was opened

	mu      sync.Mutex
	folders map[string]bool // those known to be durable
}

var (
	_ storage.Store  = (*Store)(nil)
	_ storage.Stager = (*Store)(nil)
)

// Open opens the directory dir, an absolute path. The error wraps
// storage.ErrNoStore when nothing is there.
func Open(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open directory %s: %w: it must be an absolute path", dir, storage.ErrInvalid)
	}
	base, err := os.Stat(dir)
	if err == nil && !base.IsDir() {
		return nil, fmt.Errorf("open directory %s: %w: it is not a directory", dir, storage.ErrInvalid)
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err == nil {
		base, err = root.Stat(".")
	}
	switch err = errno(err); {
	case err == nil:
		return &Store{dir: dir, root: root, base: base, folders: make(map[string]bool)}, nil
	case absent(err):
		return nil, fmt.Errorf("open directory %s: %w", dir, storage.ErrNoStore)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open directory %s: %w: %w", dir, storage.ErrDenied, err)
	}
	return nil, fmt.Errorf("open directory %s: %w", dir, err)
}

// Create makes the directory dir, an absolute path, and those above it as far
// as they are missing, and opens it. One that is there is opened as it is.
func Create(dir string) (*Store, error) {
	s, err := Open(dir)
	if !errors.Is(err, storage.ErrNoStore) {
		return s, err
	}
	above := filepath.Dir(dir)
	for {
		_, err := os.Stat(above)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("create directory %s: %w", dir, denied(err))
		}
		above = filepath.Dir(above)
	}
	missing, err := filepath.Rel(above, dir)
	if err != nil {
		return nil, fmt.Errorf("create directory %s: %w", dir, err)
	}
	root, err := os.OpenRoot(above)
	if err != nil {
		return nil, fmt.Errorf("create directory %s: %w", dir, denied(err))
	}
	err = durable.MkdirAll(root, missing, 0o700)
	if err := errors.Join(err, root.Close()); err != nil {
		return nil, fmt.Errorf("create directory %s: %w", dir, denied(err))
	}
	return Open(dir)
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, "stat", key); err != nil {
		return storage.Info{}, err
	}
	found, err := s.lookUp(key)
	if err != nil {
		return storage.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	info := describe(key, found)
	info.ServerTime = time.Now()
	return info, nil
}

// lookUp returns the file of an object, or an error for the caller to name the
// operation in.
func (s *Store) lookUp(key string) (fs.FileInfo, error) {
	found, err := s.root.Lstat(key)
	switch {
	case err != nil:
		return nil, s.readError(err)
	case found.IsDir():
		return nil, storage.ErrNotExist
	case !found.Mode().IsRegular():
		return nil, fmt.Errorf("%s in %s is no regular file (%v)", key, s.dir, found.Mode().Type())
	}
	return found, nil
}

// readError maps what the file system said about an object. Only when the
// directory itself is still there does a missing file mean an absent object.
func (s *Store) readError(err error) error {
	if !absent(err) {
		return denied(err)
	}
	if err := s.gone(); err != nil {
		return err
	}
	return storage.ErrNotExist
}

// gone returns an error unless the directory is the one that was opened.
func (s *Store) gone() error {
	now, err := os.Stat(s.dir)
	switch err = errno(err); {
	case err == nil && os.SameFile(now, s.base):
		return nil
	case err == nil:
		return fmt.Errorf("directory %s: %w: another has its place since it was opened", s.dir, storage.ErrNoStore)
	case absent(err):
		return fmt.Errorf("directory %s: %w", s.dir, storage.ErrNoStore)
	}
	return fmt.Errorf("directory %s: %w", s.dir, denied(err))
}

// Delete implements storage.Store. Folders stay: another writer may be about
// to use them.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	folders := make(map[string]bool)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", key, err))
			break
		}
		removed, err := s.remove(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", key, err))
		}
		if removed {
			folders[path.Dir(key)] = true
		}
	}
	for folder := range folders {
		if err := durable.SyncDir(s.root, folder); err != nil {
			errs = append(errs, fmt.Errorf("delete from %s: %w", s.dir, denied(err)))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) remove(key string) (removed bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	_, err = s.lookUp(key)
	if err == nil {
		if err = s.root.Remove(key); err == nil {
			return true, nil
		}
		err = s.readError(err)
	}
	if errors.Is(err, storage.ErrNotExist) {
		err = nil
	}
	return false, err
}

// describe returns what is known of an object from its file. The inode, the
// time of the last write and the size tell two files of one name apart.
func describe(key string, file fs.FileInfo) storage.Info {
	info := storage.Info{Key: key, Size: file.Size(), Modified: file.ModTime()}
	if st, ok := file.Sys().(*syscall.Stat_t); ok {
		info.ETag = fmt.Sprintf("%x-%x-%x", st.Ino, file.ModTime().UnixNano(), file.Size())
	}
	return info
}

func check(ctx context.Context, verb, key string) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	return nil
}

func checkKey(key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	for name := range strings.SplitSeq(key, "/") {
		if len(name) > maxName {
			return fmt.Errorf("%w: a name in the key is longer than %d bytes: %.40s…", storage.ErrInvalid, maxName, name)
		}
	}
	if key == lostAndFound || strings.HasPrefix(key, lostAndFound+"/") {
		return fmt.Errorf("%w: %s belongs to the file system", storage.ErrInvalid, lostAndFound)
	}
	return nil
}

// absent tells whether the file system said that there is no such file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// denied adds storage.ErrDenied to an error of that meaning.
func denied(err error) error {
	err = errno(err)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", storage.ErrDenied, err)
	}
	return err
}

// errno takes the operation and the path off an error of package os: the
// messages here name the key.
func errno(err error) error {
	var number syscall.Errno
	if pathError := new(fs.PathError); errors.As(err, &pathError) && errors.As(err, &number) {
		return number
	}
	return err
}
