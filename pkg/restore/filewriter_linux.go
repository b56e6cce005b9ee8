package restore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// smallestReserved is the size from which it is worth a call to reserve room
// for a file before it is written.
const smallestReserved = 4 << 20

// reserve takes the room for a file, where the file system can: it lies
// together then, and a full disk shows at once.
func reserve(file *os.File, size int64) error {
	if size < smallestReserved {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}

// beginWriting tells the kernel to begin to write a stretch to disk. What
// counts is the fsync.
func beginWriting(file *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(file.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
