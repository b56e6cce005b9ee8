package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/walship/walship/pkg/pgdata"
)

// entry is something that the walk found: a file, or a directory.
type entry struct {
	tree     *tree
	name     string // in the backup, with slashes
	mode     fs.FileMode
	modified time.Time
	size     int64 // bytes of a file when it was listed; 0 for a directory
	// changed are the blocks of a file that is stored incrementally; nil for
	// one that is stored whole.
	changed *pgdata.Incremental
}

// path is relative to the tree's root.
func (e entry) path() string { return e.name[len(e.tree.prefix):] }

// walker lists what belongs to a backup, as sendDir does in
// src/backend/backup/basebackup.c.
type walker struct {
	major   int
	version string          // the one folder of a tablespace that is this server's
	skip    map[string]bool // directories below the data directory that are tablespaces
	inPlace map[string]bool // directories of tablespaces created in place
	workers int             // that look files up
	log     *slog.Logger
	emit    func(entry) error
}

// lookedUp is what the file system says of a name in a directory.
type lookedUp struct {
	entry
	unlogged bool // a fork of an unlogged relation other than its init fork
	err      error
}

// atOnce is how many names of a directory are looked up at once.
const atOnce = 512

// data walks the data directory without what pg_tblspc leads to.
func (w *walker) data(ctx context.Context, t *tree) error {
	return w.directory(ctx, t, ".")
}

// tablespace walks a tablespace: the folder of this server's version, because
// others' may lie beside it.
func (w *walker) tablespace(ctx context.Context, t *tree) error {
	info, err := t.root.Lstat(w.version)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // dropped meanwhile
	}
	if err != nil {
		return fmt.Errorf("list tablespace %d: %w", t.oid, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("list tablespace %d: %s in %s isn't a directory", t.oid, w.version, t.location)
	}
	if err := w.emit(newEntry(t, w.version, info)); err != nil {
		return err
	}
	return w.directory(ctx, t, w.version)
}

func newEntry(t *tree, path string, info fs.FileInfo) entry {
	e := entry{tree: t, name: t.prefix + path, mode: info.Mode(), modified: info.ModTime()}
	if info.Mode().IsRegular() {
		e.size = info.Size()
	}
	return e
}

// directory lists one directory and those below it. What vanishes meanwhile
// is left out.
func (w *walker) directory(ctx context.Context, t *tree, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	opened, err := t.root.OpenRoot(dir)
	if err != nil {
		return listError(t, dir, err)
	}
	defer opened.Close()
	var names []string
	for base, err := range sortedNames(opened, mostNames) {
		if err != nil {
			return listError(t, dir, err)
		}
		if names = append(names, base); len(names) == atOnce {
			if err := w.visitAll(ctx, t, dir, opened, names); err != nil {
				return err
			}
			names = names[:0]
		}
	}
	return w.visitAll(ctx, t, dir, opened, names)
}

// visitAll looks names of a directory up, side by side, and decides on them one
// after the other.
func (w *walker) visitAll(ctx context.Context, t *tree, dir string, opened *os.Root, names []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	found := make([]lookedUp, len(names))
	workers := max(w.workers, 1)
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			var last initFork
			for n := len(names) * i / workers; n < len(names)*(i+1)/workers; n++ {
				found[n] = last.lookUp(t, dir, opened, names[n])
			}
		})
	}
	group.Wait()
	for _, f := range found {
		if errors.Is(f.err, fs.ErrNotExist) {
			continue
		}
		if f.err != nil {
			return f.err
		}
		if err := w.visit(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// initFork is the init fork that was looked for last: a relation's files come one
// after the other.
type initFork struct {
	name  string
	there bool
}

// lookUp looks up a name in a directory that is open. The error is
// fs.ErrNotExist where it has vanished.
func (f *initFork) lookUp(t *tree, dir string, opened *os.Root, base string) lookedUp {
	name := path.Join(dir, base)
	info, err := opened.Lstat(base)
	if err != nil {
		return lookedUp{err: readError(t, name, err)}
	}
	l := lookedUp{entry: newEntry(t, name, info)}
	if info.Mode().IsRegular() {
		l.unlogged, l.err = f.of(opened, l.entry)
	}
	return l
}

// of says whether a file is a fork of an unlogged relation other than its init
// fork, from which the others come back empty. The file system is asked, not the
// directory's list of names: where the relation was created while that was read,
// it may have the main fork and not yet the init fork.
func (f *initFork) of(dir *os.Root, e entry) (bool, error) {
	init := pgdata.ClassifyPath(e.name).InitFork()
	if init == "" || init == f.name {
		return init != "" && f.there, nil
	}
	_, err := dir.Lstat(init)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, readError(e.tree, e.path(), err)
	}
	f.name, f.there = init, err == nil
	return f.there, nil
}

// visit decides on what was found in a directory.
func (w *walker) visit(ctx context.Context, l lookedUp) error {
	e := l.entry
	if len(e.name) >= pgdata.MaxPath {
		return fmt.Errorf("%q and so on in the data directory: a path of %d bytes, and PostgreSQL's own end at %d: it isn't a server's, so move it elsewhere",
			e.name[:100], len(e.name), pgdata.MaxPath-1)
	}
	switch pgdata.Exclude(e.name, e.mode.IsDir()) {
	case pgdata.Excluded:
		return nil
	case pgdata.ExcludedContents:
		return w.empty(e)
	}
	switch {
	case e.name == pgdata.ControlFileName:
		return nil // copied last
	case e.name == pgdata.TablespaceDir:
		return w.links(ctx, e)
	case e.mode.IsDir():
		if err := w.emit(e); err != nil || w.skip[e.name] {
			return err
		}
		return w.directory(ctx, e.tree, e.path())
	case e.mode.IsRegular():
		if l.unlogged {
			return nil
		}
		if _, incremental := pgdata.CutIncremental(e.name); incremental {
			// No server makes one, and in an incremental backup it would pass
			// for the changed blocks of the relation.
			w.log.Warn("left out of the backup: it has the name of a file that only an incremental backup has", "path", e.name)
			return nil
		}
		return w.emit(e)
	case e.mode.Type() == fs.ModeSymlink && ofPostgreSQL(e.name):
		return fmt.Errorf("%s in the data directory is a symbolic link: only tablespaces and pg_wal can be", e.name)
	}
	what := "neither a file nor a directory"
	if e.mode.Type() == fs.ModeSymlink {
		what = "a symbolic link"
	}
	w.log.Warn("left out of the backup: "+what, "path", e.name)
	return nil
}

// ofPostgreSQL says whether a path is one that PostgreSQL keeps its own data
// under, where a symbolic link can't be left out. People link configuration
// and logs elsewhere.
func ofPostgreSQL(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	switch top {
	case "base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_twophase", "pg_xact", pgdata.TablespaceDir, pgdata.VersionFileName:
		return true
	}
	return false
}

// empty emits a directory whose content isn't part of a backup. A link to it,
// which people make of pg_wal, becomes a directory.
func (w *walker) empty(e entry) error {
	if e.mode.Type() == fs.ModeSymlink {
		e.mode = fs.ModeDir | 0o700
	}
	if !e.mode.IsDir() {
		return nil
	}
	if e.name != pgdata.WALDir {
		return w.emit(e)
	}
	for _, dir := range pgdata.WALDirs(w.major) {
		e.name = dir
		if err := w.emit(e); err != nil {
			return err
		}
	}
	return nil
}

// links emits pg_tblspc and the directories of the backup's tablespaces created
// in place, not the links: a restore makes those itself. Replaying the WAL makes
// the directories of tablespaces that were created since.
func (w *walker) links(ctx context.Context, e entry) error {
	if !e.mode.IsDir() {
		return fmt.Errorf("%s in the data directory isn't a directory", e.name)
	}
	if err := w.emit(e); err != nil {
		return err
	}
	opened, err := e.tree.root.OpenRoot(e.path())
	if err != nil {
		return readError(e.tree, e.path(), err)
	}
	defer opened.Close()
	for base, err := range sortedNames(opened, mostNames) {
		if err != nil {
			return readError(e.tree, e.path(), err)
		}
		name := path.Join(e.path(), base)
		info, err := opened.Lstat(base)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue
		}
		if err != nil {
			return readError(e.tree, name, err)
		}
		if !w.inPlace[name] {
			w.log.Warn("left out of the backup: not a tablespace when it started", "path", name)
			continue
		}
		if err := w.emit(newEntry(e.tree, name, info)); err != nil {
			return err
		}
	}
	return nil
}

// listError is why a directory can't be listed; nil if it has vanished.
func listError(t *tree, dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && dir != "." {
		return nil
	}
	return readError(t, dir, err)
}

// readError names the file, and what to do where the user isn't the right one.
func readError(t *tree, name string, err error) error {
	where := path.Join(t.root.Name(), name)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read %s: %w: run walship as the user that the server runs as", where, err)
	}
	return fmt.Errorf("read %s: %w", where, err)
}
