package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/walship/walship/pkg/pgdata"
)

// All that a restore makes belongs to its user alone. Only where the original's
// data directory let its group read does the group get back what it had, file
// by file: a server's secret key, say, never was the group's. The directories of
// the restore open to the group last.

// dirPerm is what PostgreSQL itself gives a directory that it makes.
func (d *destination) dirPerm() fs.FileMode { return d.dirLike(pgdata.GroupDirPerm) }

// filePerm is what PostgreSQL itself gives a file that it makes.
func (d *destination) filePerm() fs.FileMode { return d.fileLike(pgdata.GroupFilePerm) }

// dirLike is for a directory that had a mode in the original.
func (d *destination) dirLike(mode fs.FileMode) fs.FileMode {
	if d.group && pgdata.GroupAccess(mode) {
		return pgdata.GroupDirPerm
	}
	return pgdata.DirPerm
}

// fileLike is for a file that had a mode in the original.
func (d *destination) fileLike(mode fs.FileMode) fs.FileMode {
	if d.group && mode&pgdata.GroupFilePerm == pgdata.GroupFilePerm {
		return pgdata.GroupFilePerm
	}
	return pgdata.FilePerm
}

// chmod gives a file that was made private its permissions. The umask, which
// may take the group's away, doesn't matter here.
func chmod(file *os.File, perm fs.FileMode) error {
	if perm == pgdata.FilePerm {
		return nil
	}
	return file.Chmod(perm)
}

// admitGroup gives the group what the restore made on its own, the directories
// themselves last.
func (d *destination) admitGroup() error {
	if !d.group {
		return nil
	}
	for _, name := range []string{pgdata.BackupManifestFileName, pgdata.BackupLabelFileName} {
		if err := d.data.Chmod(name, d.filePerm()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("let the group read %s: %w", name, err)
		}
	}
	for _, root := range d.roots() {
		if err := root.Chmod(".", d.dirPerm()); err != nil {
			return fmt.Errorf("let the group read %s: %w", root.Name(), err)
		}
	}
	return nil
}
