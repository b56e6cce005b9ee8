package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// streamPrefix begins the name of a folder in which a stream of WAL keeps what
// it receives.
const streamPrefix = "wal-"

// unlockedAge is how long a folder may be there before its process has locked
// it: that is the next thing that it does.
const unlockedAge = time.Minute

// lockFolder takes a folder for this process alone, which the kernel ends with
// the process. The error is syscall.EWOULDBLOCK where another one has it.
func lockFolder(name string) (*os.File, error) {
	folder, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return folder, nil
}

// sweepStreams removes the folders of streams that were killed: those that no
// process holds.
func sweepStreams(directory string) error {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), streamPrefix) {
			err = errors.Join(err, sweepStream(filepath.Join(directory, entry.Name())))
		}
	}
	return err
}

func sweepStream(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its own process has removed it
	}
	if err != nil || !info.IsDir() || time.Since(info.ModTime()) < unlockedAge {
		return err
	}
	folder, err := lockFolder(name)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(name), folder.Close())
}
