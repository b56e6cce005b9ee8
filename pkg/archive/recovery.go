package archive

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/walship/walship/pkg/pgdata"
)

// RecoveryRun tells one run of the server in a data directory from the next:
// by its process and the time of its start, which are the first and the third
// line of postmaster.pid (src/include/utils/pidfile.h). It is "" where no
// server runs.
func RecoveryRun(dataDirectory string) string {
	data, err := os.ReadFile(filepath.Join(dataDirectory, pgdata.PostmasterPIDFileName))
	if err != nil {
		return ""
	}
	lines := strings.SplitN(string(data), "\n", 4)
	if len(lines) < 3 {
		return ""
	}
	return lines[0] + " " + lines[2]
}

// RecoveryOver tells whether that run of the server has ended, or its
// recovery has: the server was promoted and takes writes.
func RecoveryOver(dataDirectory, run string) bool {
	if RecoveryRun(dataDirectory) != run {
		return true
	}
	root, err := os.OpenRoot(dataDirectory)
	if err != nil {
		return true
	}
	defer root.Close()
	if _, running, err := pgdata.Running(root); err != nil || !running {
		return true
	}
	// The server removes them when recovery is complete.
	for _, signal := range []string{pgdata.RecoverySignalFileName, pgdata.StandbySignalFileName} {
		if _, err := root.Lstat(signal); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// AheadKey is the key of what is fetched ahead for a recovery run: it differs
// where the run, the cluster, the folder that segments go to, or the given
// settings do.
func AheadKey(systemID uint64, run, folder, settings string) (string, error) {
	info, err := os.Stat(folder)
	if err != nil {
		return "", err
	}
	stat, is := info.Sys().(*syscall.Stat_t)
	if !is {
		return "", errors.ErrUnsupported
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %d %d %q", systemID, run, stat.Dev, stat.Ino, settings))
	return fmt.Sprintf("%x", sum[:16]), nil
}
