package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/storage"
)

// errStop ends a walk whose caller has enough.
var errStop = errors.New("stop")

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		w := walker{ctx: ctx, prefix: prefix, after: after}
		w.visit = func(dir *os.Root, folder, name string) error {
			key := folder + name
			if !strings.HasPrefix(key, prefix) || key <= after || storage.ValidKey(name) != nil {
				return nil
			}
			found, err := dir.Lstat(name)
			switch {
			case err != nil && absent(err):
				return nil // deleted since the folder was read
			case err != nil:
				return fmt.Errorf("%s: %w", key, denied(err))
			case !found.Mode().IsRegular():
				return fmt.Errorf("%s in %s is no regular file (%v)", key, s.dir, found.Mode().Type())
			case !yield(describe(key, found), nil):
				return errStop
			}
			return nil
		}
		err := w.walk(s.root, "")
		if err == nil {
			err = s.gone() // a directory taken away looks like an empty one
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(storage.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// Sweep implements storage.Store. A temporary file counts as begun when it was
// last written to, and lies below prefix when its folder does.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	removed := 0
	w := walker{ctx: ctx, prefix: prefix}
	w.visit = func(dir *os.Root, folder, name string) error {
		if !durable.IsTemporary(name) || !strings.HasPrefix(folder, prefix) {
			return nil
		}
		found, err := dir.Lstat(name)
		if err == nil && found.ModTime().Before(before) {
			if err = dir.Remove(name); err == nil {
				removed++
			}
		}
		if err != nil && !absent(err) { // absent: its writer finished
			return fmt.Errorf("%s%s: %w", folder, name, denied(err))
		}
		return nil
	}
	err := w.walk(s.root, "")
	if err == nil {
		err = s.gone()
	}
	if err != nil {
		return removed, fmt.Errorf("sweep %q: %w", prefix, err)
	}
	return removed, nil
}

// walker goes through those folders of a store that may hold keys which start
// with prefix and are greater than after. Folders are "" or end with "/".
type walker struct {
	ctx           context.Context
	prefix, after string
	visit         func(dir *os.Root, folder, name string) error // called for what isn't a folder
}

// mayHold tells whether a folder is one to look into. All its keys sort as its
// own name does against another string, unless that starts with the name.
func (w *walker) mayHold(folder string) bool {
	return (strings.HasPrefix(folder, w.prefix) || strings.HasPrefix(w.prefix, folder)) &&
		(folder > w.after || strings.HasPrefix(w.after, folder))
}

// walk visits everything below one folder, in byte order of the keys.
func (w *walker) walk(dir *os.Root, folder string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := readFolder(dir)
	if err != nil && absent(err) {
		return nil // removed meanwhile; whether the store itself was, gone tells
	}
	if err != nil {
		return fmt.Errorf("read folder %q: %w", folder, denied(err))
	}
	for _, entry := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		name := entry.Name()
		switch {
		case !entry.IsDir():
			err = w.visit(dir, folder, name)
		case folder == "" && name == lostAndFound, storage.ValidKey(name) != nil:
		case w.mayHold(folder + name + "/"):
			err = w.descend(dir, folder, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) descend(dir *os.Root, folder, name string) error {
	sub, err := dir.OpenRoot(name)
	if err != nil && absent(err) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("open folder %q: %w", folder+name+"/", denied(err))
	}
	return errors.Join(w.walk(sub, folder+name+"/"), sub.Close())
}

// readFolder returns the entries in the order of the keys that they stand for:
// those of a folder start with its name and "/", so "a.history" and "a-b" come
// before what "a" holds, and "a0" behind it.
func readFolder(dir *os.Root) ([]fs.DirEntry, error) {
	folder, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := folder.ReadDir(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	return entries, nil
}

func sortName(entry fs.DirEntry) string {
	if entry.IsDir() {
		return entry.Name() + "/"
	}
	return entry.Name()
}
