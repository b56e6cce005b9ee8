package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// Spare is a file that one process writes ahead of time and another gives its
// name, with Take. While it is written it has no name at all where the file
// system can do that: nobody sees it, and it is gone when its process ends,
// however that happens. Elsewhere it has a temporary name. It is not for use
// by several goroutines at once.
type Spare struct {
	root *os.Root
	dir  string
	temp string   // "" as long as it has no name
	file *os.File // nil once it was offered or discarded
}

// CreateSpare opens a new file in the folder dir, private to the user (0600).
func CreateSpare(root *os.Root, dir string) (*Spare, error) {
	s := &Spare{root: root, dir: dir}
	file, err := openUnnamed(root, dir)
	if errors.Is(err, errors.ErrUnsupported) {
		s.temp = s.tempName()
		file, err = root.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("create file in %s: %w", dir, cause(err))
	}
	s.file = file
	return s, nil
}

func (s *Spare) tempName() string {
	return path.Join(s.dir, tempPrefix+rand.Text()+tempSuffix)
}

// Write appends to the file.
func (s *Spare) Write(p []byte) (int, error) {
	if s.file == nil {
		return 0, errFinished
	}
	n, err := s.file.Write(p)
	if err != nil {
		err = fmt.Errorf("write file in %s: %w", s.dir, cause(err))
	}
	return n, err
}

// Offer ends the writing, without an fsync, and returns the temporary name
// under which Take finds the file until Discard.
func (s *Spare) Offer() (string, error) {
	if s.file == nil {
		return "", errFinished
	}
	file := s.file
	s.file = nil
	var err error
	if s.temp == "" {
		temp := s.tempName()
		if err = linkUnnamed(file, s.root, temp); err == nil {
			s.temp = temp
		}
	}
	if cerr := file.Close(); cerr != nil && err == nil {
		err = cerr
	}
	if err != nil {
		s.Discard()
		return "", fmt.Errorf("name file in %s: %w", s.dir, cause(err))
	}
	return s.temp, nil
}

// Discard removes the file unless it was taken. Calling it again, or of nil,
// does nothing.
func (s *Spare) Discard() {
	if s == nil {
		return
	}
	if s.file != nil {
		_ = s.file.Close() // nobody will read it
		s.file = nil
	}
	if s.temp != "" {
		_ = s.root.Remove(s.temp) // it isn't there any more once it was taken
		s.temp = ""
	}
}

// Take makes a file that another process of the same user has offered visible
// as name, in place of what may have the name already; as with
// File.RenameVolatile, a loss of power may undo that or cut the file. It
// refuses what isn't a private regular file of that size in bytes.
func Take(root *os.Root, temp, name string, size int64) error {
	if !IsTemporary(temp) {
		return fmt.Errorf("take %s: %w: it is no temporary file", temp, fs.ErrInvalid)
	}
	info, err := root.Lstat(temp)
	if err != nil {
		return fmt.Errorf("take %s: %w", temp, cause(err))
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || known && int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("take %s: %w: it is no private file", temp, fs.ErrInvalid)
	case info.Size() != size:
		return fmt.Errorf("take %s: %w: it has %d bytes, not %d", temp, fs.ErrInvalid, info.Size(), size)
	}
	if err := root.Rename(temp, name); err != nil {
		return fmt.Errorf("take %s: %w", temp, cause(err))
	}
	return nil
}
