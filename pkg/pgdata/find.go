package pgdata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoControlFile means that no control file was found in any of the places
// where it could be.
var ErrNoControlFile = errors.New("there is none")

// FindControlFile reads the control file of the cluster that a WAL file
// belongs to, and returns its data directory. It looks in the folder above
// that of near (the WAL file's path as PostgreSQL gives it, or that of the
// destination; the folder itself may be a symbolic link), then in the working
// directory, then in dataDirectory. Empty arguments are left out. A directory
// without a control file is passed over; an unreadable or damaged one is an
// error. When there is none at all the error wraps ErrNoControlFile.
func FindControlFile(near, dataDirectory string) (ControlFile, string, error) {
	var tried []string
	for _, dir := range controlFileDirs(near, dataDirectory) {
		c, err := readControlFileIn(dir)
		switch {
		case err == nil:
			return c, dir, nil
		case errors.Is(err, fs.ErrNotExist):
			tried = append(tried, filepath.Join(dir, ControlFileName))
		default:
			return ControlFile{}, "", err
		}
	}
	return ControlFile{}, "", fmt.Errorf("find control file: %w at %s", ErrNoControlFile, strings.Join(tried, " or "))
}

func controlFileDirs(near, dataDirectory string) []string {
	var dirs []string
	add := func(dir string) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if near != "" {
		// Lexically, so that a linked pg_wal leads back to the data directory.
		add(filepath.Join(filepath.Dir(near), ".."))
	}
	add(".")
	if dataDirectory != "" {
		add(filepath.Clean(dataDirectory))
	}
	return dirs
}

func readControlFileIn(dir string) (ControlFile, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ControlFile{}, fmt.Errorf("open data directory: %w", err)
	}
	defer root.Close()
	c, err := ReadControlFile(root)
	if err != nil {
		return ControlFile{}, fmt.Errorf("data directory %s: %w", dir, err)
	}
	return c, nil
}
