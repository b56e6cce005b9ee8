package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// walAhead is how many segments of WAL have to find room beside the backup's
// files: the server keeps some while it recovers.
const walAhead = 4

// checkSpace refuses a restore that its file systems have no room for. They
// are told apart by their device. What lies in its directories already is
// either kept or removed, so its room counts as free.
func checkSpace(p *Plan) error {
	need := map[string]int64{p.Directory: p.DataSize}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			need[t.RestoreTo] = t.Size
		}
	}
	wal := p.Directory
	if p.WALDirectory != "" {
		wal = p.WALDirectory
	}
	need[wal] += int64(min(p.WAL.Needed, walAhead)) * int64(p.WAL.SegmentSize)
	type demand struct {
		bytes, free int64
		places      []string
	}
	demands := map[uint64]*demand{}
	for path, bytes := range need {
		on := path
		if _, err := os.Stat(on); err != nil {
			on = filepath.Dir(path)
		}
		var stat syscall.Stat_t
		var space syscall.Statfs_t
		if err := errors.Join(syscall.Stat(on, &stat), syscall.Statfs(on, &space)); err != nil {
			return fmt.Errorf("look for room in %s: %w", on, err)
		}
		of := demands[uint64(stat.Dev)]
		if of == nil {
			of = &demand{free: int64(space.Bavail) * int64(space.Bsize)}
			demands[uint64(stat.Dev)] = of
		}
		there, err := occupied(path)
		if err != nil {
			return err
		}
		of.bytes += bytes
		of.free += there
		of.places = append(of.places, path)
	}
	for _, of := range demands {
		if of.bytes > of.free {
			slices.Sort(of.places)
			return refusef("the file system of %s has %d bytes free, but the restore needs %d: make room, or restore elsewhere",
				strings.Join(of.places, " and "), of.free, of.bytes)
		}
	}
	return nil
}

// occupied returns the bytes that the files below a directory take.
func occupied(path string) (int64, error) {
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", path, err)
	}
	defer root.Close()
	const blockUnit = 512 // of st_blocks
	var bytes int64
	err = walk(context.Background(), root, ".", func(_ string, entry fs.DirEntry) error {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && entry.Type().IsRegular() {
			bytes += stat.Blocks * blockUnit
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", path, err)
	}
	return bytes, nil
}
