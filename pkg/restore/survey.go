package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// survey looks through what lies in the directories. Files that have the size
// and the digest of the manifest stay, and needn't be restored again;
// everything else is removed, all WAL above all: PostgreSQL would replay it
// (rule 3). It returns how many bytes stay.
func (d *destination) survey(ctx context.Context, m *manifest, o Options) (int64, error) {
	s := &surveyed{manifest: m}
	total := m.comparable()
	stop := report(o.Progress, func() Progress { return Progress{Comparing: true, Done: s.read.Load(), Total: total} })
	defer stop()
	for prefix, root := range d.prefixes() {
		if err := d.surveyRoot(ctx, root, prefix, o.Concurrency, s); err != nil {
			return 0, fmt.Errorf("look through %s: %w", root.Name(), err)
		}
	}
	return s.kept.Load(), nil
}

// surveyed counts what a survey has found.
type surveyed struct {
	manifest   *manifest
	read, kept atomic.Int64 // bytes
}

// comparable returns how many bytes there are of files that can be compared.
func (m *manifest) comparable() int64 {
	var total int64
	for name, f := range m.files {
		if _, incremental := pgdata.CutIncremental(name); !incremental && f.algorithm != pgdata.ChecksumNone {
			total += f.size
		}
	}
	return total
}

// prefixes returns the directories by what the names in the backup of all that
// is in them begin with.
func (d *destination) prefixes() map[string]*os.Root {
	all := map[string]*os.Root{"": d.data}
	if d.wal != nil {
		all[pgdata.WALDir+"/"] = d.wal
	}
	for oid, space := range d.spaces {
		all[pgdata.TablespaceDir+"/"+oid+"/"] = space
	}
	return all
}

func (d *destination) surveyRoot(ctx context.Context, root *os.Root, prefix string, concurrency int, s *surveyed) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	var dirs []string // from the top to the bottom
	err := walk(ctx, root, ".", func(name string, entry fs.DirEntry) error {
		full := prefix + name
		switch {
		case name == unfinishedName || full == pgdata.BackupManifestFileName:
			return nil
		case d.foreign(prefix, name):
			return fs.SkipDir
		case entry.IsDir():
			dirs = append(dirs, name)
			return nil
		}
		want := s.manifest.files[full]
		there, below, err := d.locate(full)
		_, incremental := pgdata.CutIncremental(full)
		if want == nil || incremental || full == pgdata.BackupLabelFileName || !entry.Type().IsRegular() || strings.HasPrefix(full, pgdata.WALDir+"/") || err != nil || there != root || below != name {
			return root.Remove(name)
		}
		group.Go(func() error {
			same, err := want.agrees(ctx, root, name, &s.read)
			if err != nil || !same {
				return errors.Join(err, root.Remove(name))
			}
			s.manifest.keep(full)
			s.kept.Add(want.size)
			_, err = d.restrict(root, name)
			return err
		})
		return nil
	})
	if err := errors.Join(group.Wait(), err); err != nil {
		return err
	}
	for _, name := range slices.Backward(dirs) {
		// One that isn't empty stays, and an empty one is made again where the
		// backup has it.
		if err := root.Remove(name); err == nil {
			continue
		}
		perm, err := d.restrict(root, name)
		if err != nil {
			return err
		}
		if perm != d.dirPerm() {
			d.private[prefix+name] = true
		}
	}
	return nil
}

// restrict takes away of the permissions of what stays all that the restore
// wouldn't give it, and returns what is left. A part that isn't fetched again
// doesn't say more of them.
func (d *destination) restrict(root *os.Root, name string) (fs.FileMode, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return 0, err
	}
	perm := d.fileLike(info.Mode())
	if info.IsDir() {
		perm = d.dirLike(info.Mode())
	}
	return perm, root.Chmod(name, perm)
}

// foreign tells whether something in a tablespace's directory isn't of a
// server of this major: clusters of several majors may share it, as pg_upgrade
// leaves them.
func (d *destination) foreign(prefix, name string) bool {
	if !strings.HasPrefix(prefix, pgdata.TablespaceDir+"/") {
		return false
	}
	top, _, _ := strings.Cut(name, "/")
	return !strings.HasPrefix(top, fmt.Sprintf("PG_%d_", d.major))
}

// agrees tells whether a file is the one of the manifest. Without a checksum
// there it can't be known. It adds to all what it reads.
func (f *manifestFile) agrees(ctx context.Context, root *os.Root, name string, all *atomic.Int64) (bool, error) {
	check := f.checker()
	if check.hash == nil || name == pgdata.ControlFileName {
		return false, nil
	}
	file, err := root.Open(name)
	if err != nil {
		return false, nil // it is removed, or that says why not
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() != f.size {
		return false, nil
	}
	buffer := make([]byte, copyBuffer)
	var read int64
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := file.Read(buffer)
		check.hash.Write(buffer[:n])
		read += int64(n)
		all.Add(int64(n))
		if err == io.EOF {
			return read == f.size && check.check(name) == nil, nil
		}
		if err != nil {
			return false, nil // unreadable: it is written anew
		}
	}
}

// here tells whether all that a part had is there already, and makes its
// directories.
func (x *extractor) here(part repo.Object) (bool, error) {
	names, ok := x.dst.journal.names(part)
	if !ok || !x.manifest.kept(names) {
		return false, nil
	}
	for _, name := range names {
		dir, isDir := strings.CutSuffix(name, "/")
		if !isDir {
			dir = path.Dir(name)
		}
		if !plainPath(dir) && dir != "." {
			return false, nil
		}
		if isDir {
			mode := pgdata.GroupDirPerm
			if x.dst.private[dir] {
				mode = pgdata.DirPerm
			}
			if err := x.directory(dir, mode); err != nil {
				return false, err
			}
			continue
		}
		if _, err := x.manifest.claim(name, x.manifest.files[name].size); err != nil {
			return false, err
		}
	}
	return true, nil
}
