package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/wal"
)

// identity tells one file, in one state, from another: PostgreSQL uses its
// segments' files again, under new names and with other content.
type identity struct {
	device, inode   uint64
	size            int64
	modified, state int64 // nanoseconds since 1970: mtime and ctime
}

// identify returns the zero identity where the system doesn't say.
func identify(info fs.FileInfo) identity {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{
		device: stat.Dev, inode: stat.Ino, size: stat.Size,
		modified: stat.Mtim.Nano(), state: stat.Ctim.Nano(),
	}
}

const (
	doneFolder = "done"
	// doneLife is how long a record counts. PostgreSQL asks for the segments
	// of a batch right after it; what is older has been asked for by a call
	// that didn't know of it.
	doneLife = 10 * time.Minute
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
// none: the segment is pushed again, which does no harm.
//
// There are no records of history files: that one is archived must be known
// from the repository.
type Done struct {
	// State is the private state folder of this server.
	State *os.Root
	// URL is the repository's.
	URL string
	// SystemID is the cluster's.
	SystemID uint64

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
	record := doneName(name)
	data, err := d.State.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	removed := d.State.Remove(record)
	if err != nil || removed != nil || len(data) != doneSize {
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	at := time.Unix(0, int64(binary.BigEndian.Uint64(data)))
	age := d.time().Sub(at)
	return age >= 0 && age < doneLife && [doneSize]byte(data) == d.record(repository, name, identify(info), at)
}

// add remembers a segment that is durable in the repository. Power failing,
// the record may be lost, which does no harm, or cut, which its digest shows.
func (d *Done) add(repository string, name wal.FileName, id identity) error {
	if id == (identity{}) {
		return errors.New("remember what was archived: the file system doesn't tell one file from another")
	}
	err := d.State.Mkdir(doneFolder, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	f, err := durable.Create(d.State, doneName(name))
	if err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	defer f.Discard()
	record := d.record(repository, name, id, d.time())
	if _, err := f.Write(record[:]); err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	if err := f.RenameVolatile(); err != nil {
		return fmt.Errorf("remember what was archived: %w", err)
	}
	return nil
}

func doneName(name wal.FileName) string { return path.Join(doneFolder, name.String()) }

const doneSize = 8 + sha256.Size

// record is a record's content: when it was written, and a digest of that and
// of all that it is about.
func (d *Done) record(repository string, name wal.FileName, id identity, at time.Time) [doneSize]byte {
	var record [doneSize]byte
	binary.BigEndian.PutUint64(record[:], uint64(at.UnixNano()))
	sum := sha256.Sum256(fmt.Appendf(nil, "done 1\n%s\n%q\n%s\n%d\n%s\n%+v\n",
		hex.EncodeToString(record[:8]), d.URL, repository, d.SystemID, name, id))
	copy(record[8:], sum[:])
	return record
}

// sweep removes the records that nobody asked for: those that are too old,
// and the oldest where there are too many; and the temporary files that killed
// calls left in the state folder.
func (d *Done) sweep() error {
	errs := []error{d.sweepTemporary("."), d.sweepTemporary(prefetchFolder)}
	infos, err := d.list(doneFolder)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(b.Name(), a.Name()) })
	slices.SortStableFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for i, info := range infos {
		age := d.time().Sub(info.ModTime())
		if age < 0 || age > doneLife || i >= doneMost {
			errs = append(errs, d.remove(path.Join(doneFolder, info.Name())))
		}
	}
	return errors.Join(errs...)
}

// sweepTemporary removes the temporary files from a folder that are too old to
// be somebody's.
func (d *Done) sweepTemporary(folder string) error {
	infos, err := d.list(folder)
	errs := []error{err}
	for _, info := range infos {
		if durable.IsTemporary(info.Name()) && d.time().Sub(info.ModTime()) > temporaryLife {
			errs = append(errs, d.remove(path.Join(folder, info.Name())))
		}
	}
	return errors.Join(errs...)
}

// list reads a folder of the state; none is empty.
func (d *Done) list(name string) ([]fs.FileInfo, error) {
	folder, err := d.State.Open(name)
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

func (d *Done) remove(name string) error {
	if err := d.State.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep what was remembered: %w", err)
	}
	return nil
}
