package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
)

// terms say under which conditions a directory that isn't empty may be used.
type terms struct {
	data        bool // it is the data directory
	interrupted bool // a restore into it was interrupted
	replaced    bool // it belongs to the cluster that may be overwritten
}

// checkPlace refuses a directory that isn't free for the restore. An
// interrupted one's leftovers are free as long as they can't have been started
// as a database, and with Options.Reuse those of a cluster that doesn't run:
// used tells that there is something.
func checkPlace(pl place, t terms) (used bool, err error) {
	info, err := os.Lstat(pl.path)
	if errors.Is(err, fs.ErrNotExist) {
		if parent, err := os.Stat(filepath.Dir(pl.path)); err != nil || !parent.IsDir() {
			return false, refusef("%s %s can't be made: %s isn't a directory; make it first", pl.what, pl.path, filepath.Dir(pl.path))
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", pl.what, err)
	}
	if !info.IsDir() {
		return false, refusef("%s %s isn't a directory", pl.what, pl.path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return false, refusef("%s %s belongs to another user (id %d): run the restore as the user that runs the server", pl.what, pl.path, stat.Uid)
	}
	root, err := os.OpenRoot(pl.path)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", pl.what, err)
	}
	defer root.Close()
	pid, running, err := pgdata.Running(root)
	if err != nil {
		return false, fmt.Errorf("look for a server in %s: %w", pl.path, err)
	}
	if running {
		return false, refusef("a PostgreSQL server runs in %s (process %d): stop it and move the directory away, or restore elsewhere", pl.path, pid)
	}
	names, err := readNames(root)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", pl.path, err)
	}
	if len(names) == 0 {
		return false, nil
	}
	if t.replaced {
		return true, nil
	}
	if !t.interrupted {
		return false, refusef("%s %s isn't empty (it has %s): %s", pl.what, pl.path, names[0], pl.instead)
	}
	if t.data {
		if _, err := root.Lstat(pgdata.ControlFileName); !errors.Is(err, fs.ErrNotExist) {
			return false, refusef("%s %s holds a whole cluster: move it away, restore elsewhere, or overwrite it with --reuse", pl.what, pl.path)
		}
		return true, nil
	}
	if _, err := root.Lstat(unfinishedName); err != nil {
		return false, refusef("%s %s isn't empty (it has %s), and not by the restore into that data directory that was interrupted: %s", pl.what, pl.path, names[0], pl.instead)
	}
	return true, nil
}

// readNames lists some names in a root.
func readNames(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(8)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// claim marks a directory as one that the restore fills.
func claim(root *os.Root) error {
	file, err := root.OpenFile(unfinishedName, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("mark %s: %w", root.Name(), err)
	}
	return file.Close()
}

// release takes the marks of claim away.
func (d *destination) release() error {
	for _, root := range d.roots()[1:] {
		if err := errors.Join(root.Remove(unfinishedName), durable.SyncDir(root, ".")); err != nil {
			return fmt.Errorf("remove the mark from %s: %w", root.Name(), err)
		}
	}
	return nil
}

func makePlace(path string) (*os.Root, error) {
	parent, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	defer parent.Close()
	name := filepath.Base(path)
	if err := durable.MkdirAll(parent, name, 0o700); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	if err := root.Chmod(".", 0o700); err != nil {
		root.Close()
		return nil, fmt.Errorf("protect directory %s: %w", path, err)
	}
	return root, nil
}
