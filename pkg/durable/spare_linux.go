package durable

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// openUnnamed opens a new file without a name in a folder. The error is
// errors.ErrUnsupported where the file system has none.
func openUnnamed(root *os.Root, dir string) (*os.File, error) {
	folder, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	fd, err := unix.Openat(int(folder.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL): // as kernels without it say
		return nil, errors.ErrUnsupported
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// linkUnnamed gives a file that has no name its first one.
func linkUnnamed(file *os.File, root *os.Root, name string) error {
	folder, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer folder.Close()
	// By the descriptor itself only privileged processes may link.
	self := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	return unix.Linkat(unix.AT_FDCWD, self, int(folder.Fd()), path.Base(name), unix.AT_SYMLINK_FOLLOW)
}
