package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walship/walship/pkg/done"
	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/wal"
)

const (
	// doneMost bounds how many records are kept.
	doneMost = 256
	// temporaryLife is how old a temporary file is that nobody writes any more:
	// whoever made it was killed. They are tiny, and renamed at once.
	temporaryLife = 10 * time.Minute
)

// Done remembers, from one call to those right after it, which segments a
// batch has taken along. A record is used once. It counts only for the file
// that was read, in the state in which it was read, in the repository in
// which it was stored; one that can't be read or is in any way off counts as
// none: the segment is pushed again, which does no harm. Most calls find theirs
// before the rest of walship is initialised: see cmd/walship/early.
//
// There are no records of history files: that one is archived must be known
// from the repository.
type Done struct {
	// State is the private state folder of this server.
	State *os.Root
	// Folder is where the records are: done.Folder of the state directory.
	Folder *os.Root
	// Call is this call, and Target what it means.
	Call, Target done.Digest
	// Read is when it was read what the repository is.
	Read time.Time

	now func() time.Time // nil: time.Now
}

func (d *Done) time() time.Time {
	if d.now != nil {
		return d.now()
	}
	return time.Now()
}

// Take tells whether the segment at path is known to be in the repository of
// that id, and forgets it.
func (d *Done) Take(repository, path string, name wal.FileName) bool {
	if name.Kind != wal.KindSegment {
		return false
	}
	data, err := d.Folder.ReadFile(name.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	removed := d.Folder.Remove(name.String())
	if err != nil || removed != nil {
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	record, ok := done.Decode(data)
	return ok && record.Repository == repository && record.Target == d.Target && record.Same(name.String(), done.Identify(info), d.time())
}

// add remembers a segment that is durable in the repository. Power failing,
// the record may be lost, which does no harm, or cut, which its digest shows.
func (d *Done) add(repository string, name wal.FileName, id done.Identity) error {
	if id == (done.Identity{}) {
		return errors.New("remember what was archived: the file system doesn't tell one file from another")
	}
	record := done.Record{At: d.time(), Read: d.Read, Repository: repository, Call: d.Call, Target: d.Target, Segment: name.String(), File: id}
	f, err := durable.Create(d.Folder, name.String())
	if err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	defer f.Discard()
	if _, err := f.Write(record.Encode()); err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	if err := f.RenameVolatile(); err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	return nil
}

// Clear removes all records but those of the repository of that id.
func (d *Done) Clear(repository string) error {
	infos, err := list(d.Folder, ".")
	errs := []error{err}
	for _, info := range infos {
		if durable.IsTemporary(info.Name()) {
			continue // somebody writes it
		}
		data, err := d.Folder.ReadFile(info.Name())
		if record, ok := done.Decode(data); err != nil || !ok || record.Repository != repository {
			errs = append(errs, remove(d.Folder, info.Name()))
		}
	}
	return errors.Join(errs...)
}

// sweep removes the records that nobody asked for: those that are too old,
// and the oldest where there are too many; and the temporary files that killed
// calls left in the state folder.
func (d *Done) sweep() error {
	errs := []error{d.sweepTemporary(d.State, "."), d.sweepTemporary(d.State, prefetchFolder), d.sweepTemporary(d.Folder, ".")}
	infos, err := list(d.Folder, ".")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(b.Name(), a.Name()) })
	slices.SortStableFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	kept := 0
	for _, info := range infos {
		if durable.IsTemporary(info.Name()) {
			continue
		}
		if age := d.time().Sub(info.ModTime()); age >= 0 && age <= done.Life && kept < doneMost {
			kept++
			continue
		}
		errs = append(errs, remove(d.Folder, info.Name()))
	}
	return errors.Join(errs...)
}

// sweepTemporary removes the temporary files from a folder that are too old to
// be somebody's.
func (d *Done) sweepTemporary(root *os.Root, folder string) error {
	infos, err := list(root, folder)
	errs := []error{err}
	for _, info := range infos {
		if durable.IsTemporary(info.Name()) && d.time().Sub(info.ModTime()) > temporaryLife {
			errs = append(errs, remove(root, path.Join(folder, info.Name())))
		}
	}
	return errors.Join(errs...)
}

// list reads a folder of the state; none is empty.
func list(root *os.Root, name string) ([]fs.FileInfo, error) {
	folder, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweep what was remembered: %w", err)
	}
	defer folder.Close()
	infos, err := folder.Readdir(-1)
	if err != nil {
		return nil, fmt.Errorf("sweep what was remembered: %w", err)
	}
	return infos, nil
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep what was remembered: %w", err)
	}
	return nil
}
