package pgdata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Running tells whether a server runs in the data directory root: whether
// postmaster.pid is there and the process that it names lives and works in
// that directory, as far as the kernel lets us see that. A server that runs
// on another machine or in another container isn't seen. A postmaster.pid
// that can't be read or understood is an error.
func Running(root *os.Root) (pid int, running bool, err error) {
	pid, err = readPostmasterPID(root)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read %s: %w", PostmasterPIDFileName, err)
	}
	err = syscall.Kill(pid, 0)
	if err != nil && !errors.Is(err, syscall.EPERM) {
		return pid, false, nil
	}
	return pid, !worksElsewhere(root, pid), nil
}

// readPostmasterPID reads the first line of postmaster.pid; a stand-alone
// backend writes its process id with a minus sign
// (src/backend/utils/init/miscinit.c).
func readPostmasterPID(root *os.Root) (int, error) {
	f, err := root.Open(PostmasterPIDFileName)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head := make([]byte, 32)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, err
	}
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	pid, err := strconv.ParseInt(strings.TrimSpace(line), 10, 32)
	if err != nil || pid == 0 {
		return 0, fmt.Errorf("its first line %q is not a process id; if no server runs here, remove the file", line)
	}
	return int(max(pid, -pid)), nil
}

// worksElsewhere is true only if the process is seen to work in another
// directory than root, which a postmaster never leaves: then its id has been
// taken by another program since the server crashed.
func worksElsewhere(root *os.Root, pid int) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	here, err := root.Stat(".")
	return err == nil && !os.SameFile(cwd, here)
}

// IsStandby tells whether the data directory root is that of a standby: it
// has a standby.signal.
func IsStandby(root *os.Root) (bool, error) {
	_, err := root.Lstat(StandbySignalFileName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", StandbySignalFileName, err)
	}
	return true, nil
}
