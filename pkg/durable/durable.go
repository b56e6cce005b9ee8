// Package durable makes files visible, and is the only package that does. A
// file appears under its name in one step and whole, and what these functions
// have returned success for survives a loss of power.
//
// Names are slash-separated and relative to an os.Root, so that none of them
// can lead out of the directory they belong to.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// The names of temporary files. The "~" can't occur in the key of a
// storage.Store, so a key never names one.
const (
	tempPrefix = ".walship-~"
	tempSuffix = ".tmp"
)

// IsTemporary tells whether the last element of name is one that Create gives
// to its files: what a killed process left behind, or another's write that is
// still running.
func IsTemporary(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}

// File is a file that is being written under a temporary name. It is not for
// use by several goroutines at once.
//
// After Create, the caller defers Discard, writes, and ends with one of Link,
// Rename and RenameVolatile.
type File struct {
	root       *os.Root
	name, temp string
	file       *os.File // nil once finished or discarded
	failed     error    // the first Write or Sync that failed
	synced     bool     // all that was written is durable
}

// errFinished is what using a File again gives.
var errFinished = errors.New("file is finished")

// Create opens a new file, private to the user (0600), under a random name in
// the folder of name. The folder must be there.
func Create(root *os.Root, name string) (*File, error) {
	temp := path.Join(path.Dir(name), tempPrefix+rand.Text()+tempSuffix)
	file, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create temporary file for %s: %w", name, cause(err))
	}
	return &File{root: root, name: name, temp: temp, file: file}, nil
}

// Write appends to the file. After a failure the file can only be discarded.
func (f *File) Write(p []byte) (int, error) {
	if f.file == nil {
		return 0, f.error("write", errFinished)
	}
	f.synced = false
	n, err := f.file.Write(p)
	if err != nil {
		f.failed = f.error("write", err)
		return n, f.failed
	}
	return n, nil
}

// Sync makes durable what was written, which Link and Rename do otherwise: they
// have less left to do then. After a failure the file can only be discarded.
func (f *File) Sync() error {
	if f.file == nil {
		return f.error("fsync", errFinished)
	}
	if f.failed == nil && !f.synced {
		if err := f.file.Sync(); err != nil {
			f.failed = f.error("fsync", err)
		}
		f.synced = f.failed == nil
	}
	return f.failed
}

// Chmod sets the permissions that the file has under its name.
func (f *File) Chmod(perm fs.FileMode) error {
	if f.file == nil {
		return f.error("set permissions of", errFinished)
	}
	f.synced = false
	if err := f.file.Chmod(perm); err != nil {
		return f.error("set permissions of", err)
	}
	return nil
}

// Link makes the file visible under its name, durably, unless the name is
// taken. Then the error wraps fs.ErrExist, the file is discarded, and what has
// the name stays as it is and is durable, whoever put it there.
//
// When Link returns another error, the file may be visible, but is not known
// to be durable.
func (f *File) Link() error {
	defer f.Discard()
	if err := f.close(true); err != nil {
		return err
	}
	linked := f.root.Link(f.temp, f.name)
	if linked != nil && !errors.Is(linked, fs.ErrExist) {
		return f.error("link", linked)
	}
	f.removeTemp()
	if err := SyncDir(f.root, path.Dir(f.name)); err != nil {
		return err
	}
	if linked != nil {
		return f.error("link", linked)
	}
	return nil
}

// Rename makes the file visible under its name, durably, in place of what may
// have the name already.
func (f *File) Rename() error {
	defer f.Discard()
	if err := f.close(true); err != nil {
		return err
	}
	if err := f.rename(); err != nil {
		return err
	}
	return SyncDir(f.root, path.Dir(f.name))
}

// RenameVolatile is Rename without durability: the file is visible whole or
// not at all while the machine runs, but a loss of power may undo it or cut
// it. It is for files whose reader makes durable what it keeps.
func (f *File) RenameVolatile() error {
	defer f.Discard()
	if err := f.close(false); err != nil {
		return err
	}
	return f.rename()
}

// Discard removes the file unless it became visible. Calling it again, or
// after the file was finished, does nothing.
func (f *File) Discard() {
	if f.file != nil {
		_ = f.file.Close() // nobody will read it
		f.file = nil
	}
	f.removeTemp()
}

// removeTemp removes the temporary name. One that stays is in nobody's way,
// and is swept later.
func (f *File) removeTemp() {
	if f.temp != "" {
		_ = f.root.Remove(f.temp)
		f.temp = ""
	}
}

func (f *File) rename() error {
	if err := f.root.Rename(f.temp, f.name); err != nil {
		return f.error("rename", err)
	}
	f.temp = ""
	return nil
}

// close ends the writing. An fsync that failed is never tried again: the
// kernel may have dropped the pages, and a second call would say nothing.
func (f *File) close(sync bool) error {
	if f.file == nil {
		return f.error("finish", errFinished)
	}
	err := f.failed
	if sync {
		err = f.Sync()
	}
	file := f.file
	f.file = nil
	if cerr := file.Close(); cerr != nil && err == nil {
		err = f.error("close", cerr)
	}
	return err
}

func (f *File) error(verb string, err error) error {
	return fmt.Errorf("%s %s: %w", verb, f.name, cause(err))
}

// WriteFile makes data the content of name, durably and in one step, with the
// given permissions.
func WriteFile(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	f, err := Create(root, name)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	return f.Rename()
}

// MkdirAll makes the folder dir and those above it, as far as they are missing,
// with the permissions perm before the umask. On success dir is durable,
// whoever made it: another process may have been killed, or may not be done,
// between making a folder and its fsync.
func MkdirAll(root *os.Root, dir string, perm fs.FileMode) error {
	dir = path.Clean(dir)
	if !filepath.IsLocal(dir) {
		return fmt.Errorf("make folder %s: %w: it is not below the root", dir, fs.ErrInvalid)
	}
	if dir == "." {
		return nil
	}
	parent := "."
	for name := range strings.SplitSeq(dir, "/") {
		folder := path.Join(parent, name)
		if err := mkdir(root, folder, perm); err != nil {
			return fmt.Errorf("make folder %s: %w", folder, cause(err))
		}
		if err := SyncDir(root, parent); err != nil {
			return err
		}
		parent = folder
	}
	return nil
}

// mkdir makes one folder unless it is there.
func mkdir(root *os.Root, folder string, perm fs.FileMode) error {
	err := root.Mkdir(folder, perm)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Stat(folder)
	if err == nil && !info.IsDir() {
		return syscall.ENOTDIR
	}
	return err
}

// SyncDir makes the entries of the folder dir durable.
func SyncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", dir, cause(err))
	}
	err = d.Sync()
	// Some network file systems have no fsync for folders, and need none.
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		_ = d.Close() // the fsync's error says more
		return fmt.Errorf("fsync folder %s: %w", dir, cause(err))
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("close folder %s: %w", dir, cause(err))
	}
	return nil
}

// cause takes the operation and the path, which may be a temporary one, off an
// error of package os.
func cause(err error) error {
	var pathError *fs.PathError
	var linkError *os.LinkError
	switch {
	case errors.As(err, &pathError):
		return pathError.Err
	case errors.As(err, &linkError):
		return linkError.Err
	}
	return err
}
