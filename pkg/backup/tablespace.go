package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// tree is a directory tree that goes into a backup: the data directory, or a
// tablespace, which has a root of its own because a link leads to it.
type tree struct {
	root     *os.Root
	oid      uint32 // of a tablespace
	prefix   string // what stands before the paths of the tree in a backup
	location string // where a tablespace is
	inPlace  bool
	bytes    atomic.Int64 // copied so far
}

// listTablespaces reads pg_tblspc: links, and directories of tablespaces
// created in place.
func listTablespaces(root *os.Root) ([]uint32, error) {
	dir, err := root.OpenRoot(pgdata.TablespaceDir)
	if err != nil {
		return nil, fmt.Errorf("list tablespaces: %w", err)
	}
	defer dir.Close()
	var oids []uint32
	for name, err := range sortedNames(dir, mostNames) {
		if err != nil {
			return nil, fmt.Errorf("list tablespaces: %w", err)
		}
		oid, err := strconv.ParseUint(name, 10, 32)
		if err == nil && oid != 0 && strconv.FormatUint(oid, 10) == name {
			oids = append(oids, uint32(oid))
		}
	}
	slices.Sort(oids)
	return oids, nil
}

// openTablespaces opens the tablespaces that belong to the backup, after its
// start. What was created since before was listed is ambiguous: created after
// the start, WAL makes it again, and files of it would be in the way.
func (r *run) openTablespaces(ctx context.Context, before []uint32) error {
	known, err := r.server.Tablespaces(ctx)
	if err != nil {
		return err
	}
	oids, err := listTablespaces(r.data.root)
	if err != nil {
		return err
	}
	for _, t := range known {
		if !slices.Contains(oids, t.OID) && slices.Contains(before, t.OID) {
			r.log.Warn("tablespace is gone since the backup started", "oid", t.OID, "name", t.Name)
		} else if !slices.Contains(oids, t.OID) {
			return fmt.Errorf("tablespace %q (%d) has nothing in %s of the data directory", t.Name, t.OID, pgdata.TablespaceDir)
		}
	}
	for _, oid := range oids {
		if !slices.Contains(before, oid) {
			return fmt.Errorf("tablespace %d was created while the backup started: start it again", oid)
		}
		t, err := r.openTablespace(oid)
		if errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("tablespace is gone since the backup started", "oid", oid)
			continue
		}
		if err != nil {
			return fmt.Errorf("open tablespace %d: %w", oid, err)
		}
		r.tablespaces = append(r.tablespaces, t)
	}
	return nil
}

func (r *run) openTablespace(oid uint32) (*tree, error) {
	name := pgdata.TablespaceDir + "/" + strconv.FormatUint(uint64(oid), 10)
	t := &tree{oid: oid, prefix: name + "/"}
	info, err := r.data.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		t.inPlace, t.location = true, name
		t.root, err = r.data.root.OpenRoot(name)
		return t, err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return nil, fmt.Errorf("%s is neither a link nor a directory", name)
	}
	if t.location, err = r.data.root.Readlink(name); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(t.location) {
		return nil, fmt.Errorf("its link leads to %q, which isn't an absolute path", t.location)
	}
	// The link was read above, so a location that is missing is an error of
	// its own and not a tablespace that was dropped.
	t.root, err = os.OpenRoot(t.location)
	if errors.Is(err, fs.ErrNotExist) {
		if _, again := r.data.root.Lstat(name); again == nil {
			return nil, fmt.Errorf("its link leads to %s, which doesn't exist", t.location)
		}
	}
	return t, err
}

// insideData returns the paths, relative to the data directory, of tablespaces
// whose location lies inside of it. PostgreSQL warns of such ones and allows
// them.
func (r *run) insideData() (map[string]bool, error) {
	base, err := filepath.EvalSymlinks(r.record.DataDirectory)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory: %w", err)
	}
	inside := make(map[string]bool)
	for _, t := range r.tablespaces {
		if t.inPlace {
			continue
		}
		location, err := filepath.EvalSymlinks(t.location)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("resolve location of tablespace %d: %w", t.oid, err)
		}
		if rel, err := filepath.Rel(base, location); err == nil && filepath.IsLocal(rel) {
			inside[filepath.ToSlash(rel)] = true
		}
	}
	return inside, nil
}

// describeTablespaces fills in the record's tablespaces: those copied, and
// those that the server's tablespace_map names but that were dropped before
// they could be opened, whose links replaying the WAL still needs.
func (r *run) describeTablespaces(tablespaceMap []byte) error {
	mapped, err := pgdata.ParseTablespaceMap(tablespaceMap)
	if err != nil {
		return err
	}
	r.record.Tablespaces = []repo.Tablespace{}
	for _, t := range r.tablespaces {
		r.record.Tablespaces = append(r.record.Tablespaces, repo.Tablespace{OID: t.oid, Location: t.location, InPlace: t.inPlace, Size: t.bytes.Load()})
	}
	for _, m := range mapped {
		if !slices.ContainsFunc(r.tablespaces, func(t *tree) bool { return t.oid == m.OID }) {
			r.record.Tablespaces = append(r.record.Tablespaces, repo.Tablespace{OID: m.OID, Location: m.Location})
		}
	}
	sortTablespaces(r.record.Tablespaces)
	return nil
}

func sortTablespaces(all []repo.Tablespace) {
	slices.SortFunc(all, func(a, b repo.Tablespace) int { return cmp.Compare(a.OID, b.OID) })
}
