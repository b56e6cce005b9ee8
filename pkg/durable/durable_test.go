package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func openRoot(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root, dir
}

// create writes content into a new file for name.
func create(t *testing.T, root *os.Root, name, content string) *File {
	t.Helper()
	f, err := Create(root, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Discard)
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	return f
}

// wantFiles fails unless the tree below dir holds exactly these files.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, dir+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory holds %v; want %v", got, want)
	}
}

func TestFinish(t *testing.T) {
	for _, c := range []struct {
		name         string
		finish       func(*File) error
		createOnly   bool
		wantReplaced string
	}{
		{"Link", (*File).Link, true, "old"},
		{"Rename", (*File).Rename, false, "new"},
		{"RenameVolatile", (*File).RenameVolatile, false, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir := openRoot(t)
			f := create(t, root, "a", "old")
			if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is visible before it is finished: %v", err)
			}
			if err := c.finish(f); err != nil {
				t.Fatal(err)
			}
			f.Discard()
			wantFiles(t, dir, map[string]string{"a": "old"})

			f = create(t, root, "a", "new")
			err := c.finish(f)
			if c.createOnly != errors.Is(err, fs.ErrExist) || !c.createOnly && err != nil {
				t.Errorf("finishing over a taken name: %v", err)
			}
			wantFiles(t, dir, map[string]string{"a": c.wantReplaced})

			if err := c.finish(f); err == nil {
				t.Error("a file was finished twice")
			}
			if _, err := f.Write([]byte("x")); err == nil {
				t.Error("a finished file was written to")
			}
			if err := f.Chmod(0o644); err == nil {
				t.Error("a finished file changed its permissions")
			}
			wantFiles(t, dir, map[string]string{"a": c.wantReplaced})
		})
	}
}

// What is written behind a Sync is made durable by the next one, and both become
// visible.
func TestSync(t *testing.T) {
	root, dir := openRoot(t)
	f := create(t, root, "a", "first ")
	for _, more := range []string{"", "second"} {
		if _, err := f.Write([]byte(more)); err != nil {
			t.Fatal(err)
		}
		if f.synced {
			t.Error("what was just written counts as durable")
		}
		for range 2 {
			if err := f.Sync(); err != nil || !f.synced {
				t.Errorf("Sync: %v, durable: %t", err, f.synced)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is visible before it is finished: %v", err)
	}
	if err := f.Link(); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err == nil {
		t.Error("a finished file was synced")
	}
	wantFiles(t, dir, map[string]string{"a": "first second"})

	// An fsync that failed isn't tried again: the file never becomes visible.
	f = create(t, root, "b", "x")
	f.file.Close()
	if err := f.Sync(); err == nil {
		t.Error("Sync of a closed file succeeded")
	}
	if err := f.Link(); err == nil {
		t.Error("a file whose fsync failed became visible")
	}
	wantFiles(t, dir, map[string]string{"a": "first second"})
}

func TestDiscard(t *testing.T) {
	root, dir := openRoot(t)
	f := create(t, root, "a", "never seen")
	f.Discard()
	f.Discard()
	if err := f.Link(); err == nil {
		t.Error("a discarded file became visible")
	}
	wantFiles(t, dir, map[string]string{})
}

// Fault 55: a temporary file is private and new, in the folder of its name.
func TestTemporaryFile(t *testing.T) {
	root, dir := openRoot(t)
	if err := MkdirAll(root, "d/e", 0o700); err != nil {
		t.Fatal(err)
	}
	create(t, root, "d/e/a", "x")
	create(t, root, "d/e/a", "x")
	entries, err := os.ReadDir(filepath.Join(dir, "d/e"))
	if err != nil || len(entries) != 2 {
		t.Fatalf("two files being written: %v, %v", entries, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode() != 0o600 || !IsTemporary("d/e/"+entry.Name()) {
			t.Errorf("temporary file %s has mode %v, %v; want 0600", entry.Name(), info.Mode(), err)
		}
	}
	for _, name := range []string{"a", "d/e/a.tmp", ".walship-a", ".walship-~a.tmp/b", ""} {
		if IsTemporary(name) {
			t.Errorf("%q passes for a temporary file", name)
		}
	}
}

func TestWriteFile(t *testing.T) {
	root, dir := openRoot(t)
	for _, perm := range []fs.FileMode{0o600, 0o640} {
		content := perm.String()
		if err := WriteFile(root, "a", []byte(content), perm); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir, map[string]string{"a": content})
		if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode() != perm {
			t.Errorf("the file has mode %v, %v; want %v", info.Mode(), err, perm)
		}
	}
}

// After a write that failed nothing may become visible, even if the caller
// overlooks the error.
func TestFailedWriteNeverVisible(t *testing.T) {
	for name, finish := range map[string]func(*File) error{"Link": (*File).Link, "Rename": (*File).Rename, "RenameVolatile": (*File).RenameVolatile} {
		root, dir := openRoot(t)
		f := create(t, root, "a", "half")
		real := f.file
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.file = full
		if _, err := f.Write([]byte("rest")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write to a full disk: %v", err)
		}
		if err := full.Close(); err != nil {
			t.Fatal(err)
		}
		f.file = real
		if err := finish(f); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s after a failed write: %v; want its error", name, err)
		}
		wantFiles(t, dir, map[string]string{})
	}
}

// Fault 49: nothing leads out of the root.
func TestEscape(t *testing.T) {
	root, dir := openRoot(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../a", "/a", "link/a", "link/../../a"} {
		if err := WriteFile(root, name, nil, 0o600); err == nil {
			t.Errorf("WriteFile(%q) wrote outside the root", name)
		}
		if err := MkdirAll(root, name, 0o700); err == nil {
			t.Errorf("MkdirAll(%q) made a folder outside the root", name)
		}
	}
	if err := MkdirAll(root, "link", 0o700); err == nil {
		t.Error("MkdirAll takes a link that leads outside for a folder")
	}
	wantFiles(t, outside, map[string]string{})
}

func TestMissingFolder(t *testing.T) {
	root, _ := openRoot(t)
	if _, err := Create(root, "none/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create in a missing folder: %v; want fs.ErrNotExist", err)
	}
	if err := SyncDir(root, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir of a missing folder: %v; want fs.ErrNotExist", err)
	}
}

func TestMkdirAll(t *testing.T) {
	root, dir := openRoot(t)
	for range 2 {
		for _, name := range []string{".", "a", "a/b/c", "a/b/c/d/"} {
			if err := MkdirAll(root, name, 0o700); err != nil {
				t.Fatalf("MkdirAll(%q): %v", name, err)
			}
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 && name != "." {
				t.Errorf("MkdirAll(%q) made %v, %v", name, info.Mode(), err)
			}
		}
	}
	if err := WriteFile(root, "a/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/file", "a/file/b"} {
		if err := MkdirAll(root, name, 0o700); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("MkdirAll(%q), where a/file is a file: %v; want ENOTDIR", name, err)
		}
	}
}

// Of many writers of one name exactly one wins, and its content stays.
func TestLinkRace(t *testing.T) {
	root, dir := openRoot(t)
	const writers = 32
	files := make([]*File, writers)
	errs := make([]error, writers)
	for i := range files {
		files[i] = create(t, root, "a", fmt.Sprint(i))
	}
	var wg sync.WaitGroup
	for i := range files {
		wg.Go(func() { errs[i] = files[i].Link() })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil && winner < 0 {
			winner = i
		} else if !errors.Is(err, fs.ErrExist) {
			t.Errorf("writer %d, after %d won: %v; want fs.ErrExist", i, winner, err)
		}
	}
	wantFiles(t, dir, map[string]string{"a": fmt.Sprint(winner)})
}
