package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/storagetest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key, content string) storage.Info {
	t.Helper()
	info, err := s.Put(t.Context(), key, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// list returns the keys and the error that end a listing.
func list(t *testing.T, s *Store) (keys []string, err error) {
	t.Helper()
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return open(t) },
		// A process that was killed in the middle of a write leaves this.
		storagetest.Abandon(func(t *testing.T, store storage.Store, key string) {
			root := store.(*Store).root
			if err := durable.MkdirAll(root, filepath.Dir(key), 0o700); err != nil {
				t.Fatal(err)
			}
			f, err := durable.Create(root, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte("half an obj")); err != nil {
				t.Fatal(err)
			}
		}))
}

func TestStagerConformance(t *testing.T) {
	storagetest.RunStager(t, func(t *testing.T) storage.Store { return open(t) })
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "srv", "walship")
	if _, err := Open(dir); !errors.Is(err, storage.ErrNoStore) {
		t.Errorf("Open of a missing directory: %v; want ErrNoStore", err)
	}
	for range 2 {
		s, err := Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("Stat in a new directory: %v; want ErrNotExist", err)
		}
		for _, made := range []string{dir, filepath.Dir(dir)} {
			if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s is %v, %v; want 0700", made, info.Mode(), err)
			}
		}
	}
	if s, err := Open(dir); err != nil {
		t.Errorf("Open of a directory that is there: %v", err)
	} else {
		put(t, s, "a", "x")
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  string
		want error
	}{
		{"", storage.ErrInvalid},
		{"relative", storage.ErrInvalid},
		{file, storage.ErrInvalid},
		{file + "/below", storage.ErrNoStore},
	} {
		if _, err := Open(c.dir); !errors.Is(err, c.want) {
			t.Errorf("Open(%q): %v; want %v", c.dir, err, c.want)
		}
		if _, err := Create(c.dir); err == nil {
			t.Errorf("Create(%q) succeeded", c.dir)
		}
	}
}

// Faults 17 and 3: what was an open store's directory is gone, or another is
// in its place. That is never an absent object, nor an empty listing.
func TestDirectoryVanishes(t *testing.T) {
	for name, vanish := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o700))
		},
		"replaced by a file": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Create(filepath.Join(t.TempDir(), "store"))
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, "a/b", "x")
			if err := vanish(s.dir); err != nil {
				t.Fatal(err)
			}
			_, statErr := s.Stat(t.Context(), "a/absent")
			_, _, getErr := s.Get(t.Context(), "a/absent", 0, -1)
			_, listErr := list(t, s)
			_, sweepErr := s.Sweep(t.Context(), "", time.Now())
			for call, err := range map[string]error{
				"Stat": statErr, "Get": getErr, "List": listErr, "Sweep": sweepErr,
				"Delete": s.Delete(t.Context(), "a/absent"),
			} {
				if !errors.Is(err, storage.ErrNoStore) || errors.Is(err, storage.ErrNotExist) {
					t.Errorf("%s: %v; want ErrNoStore", call, err)
				}
			}
			if name == "removed" {
				if _, err := s.Put(t.Context(), "a/c", strings.NewReader("x")); !errors.Is(err, storage.ErrNoStore) {
					t.Errorf("Put: %v; want ErrNoStore", err)
				}
			}
		})
	}
}

func TestFolderRemovedByAnother(t *testing.T) {
	s := open(t)
	put(t, s, "a/b", "x")
	if err := os.RemoveAll(filepath.Join(s.dir, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a/c", strings.NewReader("x")); err == nil || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Put into a folder that another removed: %v; want an error, but not ErrNotExist", err)
	}
	put(t, s, "a/c", "x") // the next try makes it again
}

// The temporary file of a write that is still running is swept away.
func TestSweptWhileWriting(t *testing.T) {
	s := open(t)
	body := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) {
		if n, err := s.Sweep(t.Context(), "", time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Errorf("Sweep = %d, %v; want the running write", n, err)
		}
		return 0, io.EOF
	}))
	if _, err := s.Put(t.Context(), "a", body); err == nil || errors.Is(err, storage.ErrNotExist) || errors.Is(err, storage.ErrExist) {
		t.Errorf("Put: %v; want an error that isn't about the object", err)
	}
	if keys, err := list(t, s); len(keys) != 0 || err != nil {
		t.Errorf("List = %q, %v; want nothing", keys, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The error of a body that couldn't be read says nothing of the store.
func TestBodyErrorIsItsOwn(t *testing.T) {
	s := open(t)
	for _, cause := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrExist, syscall.EPERM} {
		_, err := s.Put(t.Context(), "a", readerFunc(func([]byte) (int, error) { return 0, cause }))
		if !errors.Is(err, cause) {
			t.Errorf("Put: %v; want %v", err, cause)
		}
		for _, not := range []error{storage.ErrNotExist, storage.ErrDenied, storage.ErrExist, storage.ErrInvalid, storage.ErrNoStore} {
			if errors.Is(err, not) {
				t.Errorf("a body that fails with %v makes Put say %v", cause, not)
			}
		}
	}
}

// Fault 55.
func TestModes(t *testing.T) {
	s := open(t)
	put(t, s, "a/b/c", "x")
	for name, want := range map[string]fs.FileMode{"a": fs.ModeDir | 0o700, "a/b": fs.ModeDir | 0o700, "a/b/c": 0o600} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestKeyAndFolderCollide(t *testing.T) {
	s := open(t)
	put(t, s, "a", "x")
	put(t, s, "b/c", "x")
	for _, key := range []string{"a/b", "a/b/c", "b"} {
		_, err := s.Put(t.Context(), key, strings.NewReader("y"))
		if !errors.Is(err, storage.ErrInvalid) || errors.Is(err, storage.ErrExist) {
			t.Errorf("Put(%q): %v; want ErrInvalid", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("Stat(%q): %v; want ErrNotExist", key, err)
		}
	}
	if keys, err := list(t, s); fmt.Sprint(keys) != "[a b/c]" || err != nil {
		t.Errorf("List = %q, %v", keys, err)
	}
}

func TestKeysADirectoryCantHold(t *testing.T) {
	s := open(t)
	if err := os.MkdirAll(filepath.Join(s.dir, lostAndFound, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{lostAndFound, lostAndFound + "/x", strings.Repeat("k", 256), "a/" + strings.Repeat("k", 300) + "/b"} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("x")); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("Put(%q): %v; want ErrInvalid", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("Stat(%q): %v; want ErrInvalid", key, err)
		}
	}
	put(t, s, "a/"+lostAndFound, "x")
	put(t, s, strings.Repeat("k", 255), "x")
	if keys, err := list(t, s); len(keys) != 2 || err != nil {
		t.Errorf("List = %q, %v; want the two objects", keys, err)
	}
}

// What others put into the directory is no object, and links lead nowhere.
func TestForeignFiles(t *testing.T) {
	s := open(t)
	put(t, s, "a/b", "x")
	for _, name := range []string{"a/read me.txt", "a/~b", "a/.walship-~X.tmp"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "a b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if keys, err := list(t, s); fmt.Sprint(keys) != "[a/b]" || err != nil {
		t.Errorf("List = %q, %v; want the object", keys, err)
	}
}

// Fault 49. A link is neither followed nor passed over in silence: behind it
// may be what a listing would have to show.
func TestSymbolicLinks(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ link, target, key string }{
		{"file", filepath.Join(outside, "secret"), "file"},
		{"inside", "there", "inside"},
		{"folder", outside, "folder/secret"},
		{"pipe", "", "pipe"},
	} {
		s := open(t)
		put(t, s, "there", "x")
		path := filepath.Join(s.dir, c.link)
		var err error
		if c.target != "" {
			err = os.Symlink(c.target, path)
		} else {
			err = syscall.Mkfifo(path, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, _, getErr := s.Get(t.Context(), c.key, 0, -1)
		_, statErr := s.Stat(t.Context(), c.key)
		_, listErr := list(t, s)
		for call, err := range map[string]error{"Get": getErr, "Stat": statErr, "List": listErr, "Delete": s.Delete(t.Context(), c.key)} {
			if err == nil || errors.Is(err, storage.ErrNotExist) {
				t.Errorf("%s with %s leading to %q: %v; want an error that isn't ErrNotExist", call, c.link, c.target, err)
			}
		}
		if c.link == "folder" {
			if _, err := s.Put(t.Context(), "folder/new", strings.NewReader("x")); err == nil {
				t.Error("Put through a link succeeded")
			}
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside the store: %v, %v; want the file alone", entries, err)
	}
}

// Fault 13: a file that is shorter than it was is never a short object.
func TestFileCutWhileReading(t *testing.T) {
	s := open(t)
	put(t, s, "a", strings.Repeat("x", 1000))
	r, _, err := s.Get(t.Context(), "a", 100, 800)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(s.dir, "a"), 500); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) || len(data) != 400 {
		t.Errorf("read %d bytes, %v; want 400 and io.ErrUnexpectedEOF", len(data), err)
	}
}

func TestETagFollowsContent(t *testing.T) {
	s := open(t)
	first := put(t, s, "a", "first")
	if first.ETag == "" {
		t.Fatal("Put returned no ETag")
	}
	if again, err := s.Stat(t.Context(), "a"); err != nil || again.ETag != first.ETag {
		t.Errorf("Stat = %+v, %v; want the ETag %s", again, err, first.ETag)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if second := put(t, s, "a", "another"); second.ETag == first.ETag {
		t.Errorf("another object has the same ETag, %s", first.ETag)
	}
}

func TestErrorMapping(t *testing.T) {
	s := open(t)
	for _, c := range []struct {
		err  syscall.Errno
		want error // nil: none of the sentinels
	}{
		{syscall.EACCES, storage.ErrDenied},
		{syscall.EPERM, storage.ErrDenied},
		{syscall.ENOENT, storage.ErrNotExist},
		{syscall.ENOTDIR, storage.ErrNotExist},
		{syscall.EIO, nil},
		{syscall.ESTALE, nil},
		{syscall.ELOOP, nil},
	} {
		err := s.readError(&fs.PathError{Op: "open", Path: "a", Err: c.err})
		for _, sentinel := range []error{storage.ErrDenied, storage.ErrNotExist, storage.ErrNoStore, storage.ErrExist, storage.ErrInvalid} {
			if errors.Is(err, sentinel) != errors.Is(c.want, sentinel) {
				t.Errorf("reading that fails with %v: %v; want %v", c.err, err, c.want)
			}
		}
		if !errors.Is(c.want, storage.ErrNotExist) && !errors.Is(err, c.err) {
			t.Errorf("reading that fails with %v: %v; want it named", c.err, err)
		}
	}
	for errno, want := range map[syscall.Errno]error{syscall.EACCES: storage.ErrDenied, syscall.ENOSPC: syscall.ENOSPC, syscall.EIO: syscall.EIO} {
		if err := s.putError("a", fmt.Errorf("write a: %w", errno)); !errors.Is(err, want) {
			t.Errorf("writing that fails with %v: %v; want %v", errno, err, want)
		}
	}
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EOPNOTSUPP} {
		if err := s.linkError("a", fmt.Errorf("link a: %w", errno)); !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "hard links") {
			t.Errorf("linking that fails with %v: %v; want ErrInvalid and why", errno, err)
		}
	}
}

func TestNegativeOffset(t *testing.T) {
	s := open(t)
	put(t, s, "a", "x")
	if _, _, err := s.Get(t.Context(), "a", -1, -1); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("Get from offset -1: %v; want ErrInvalid", err)
	}
}

// A listing reads the folders that it needs and no others.
func TestFoldersOfListing(t *testing.T) {
	folders := []string{"1/", "1/wal/", "1/wal/0A/", "1/wal/0B/", "1/wal/0C/", "2/", "2/wal/"}
	for _, c := range []struct{ prefix, after, want string }{
		{"", "", "1/ 1/wal/ 1/wal/0A/ 1/wal/0B/ 1/wal/0C/ 2/ 2/wal/"},
		{"1/", "", "1/ 1/wal/ 1/wal/0A/ 1/wal/0B/ 1/wal/0C/"},
		{"1/w", "", "1/ 1/wal/ 1/wal/0A/ 1/wal/0B/ 1/wal/0C/"},
		{"1/wal/0B/", "", "1/ 1/wal/ 1/wal/0B/"},
		{"1/wal/0B/x", "", "1/ 1/wal/ 1/wal/0B/"},
		{"1/wal/", "1/wal/0B/x", "1/ 1/wal/ 1/wal/0B/ 1/wal/0C/"},
		{"1/wal/", "1/wal/0B.history", "1/ 1/wal/ 1/wal/0B/ 1/wal/0C/"},
		{"1/wal/", "1/wal/0B0", "1/ 1/wal/ 1/wal/0C/"},
		{"", "1/wal/0B/", "1/ 1/wal/ 1/wal/0B/ 1/wal/0C/ 2/ 2/wal/"},
		{"", "1/x", "1/ 2/ 2/wal/"},
		{"", "2/wal", "2/ 2/wal/"},
		{"3", "", ""},
		{"1", "3", ""},
	} {
		w := walker{prefix: c.prefix, after: c.after}
		var got []string
		for _, folder := range folders {
			if w.mayHold(folder) {
				got = append(got, folder)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("List(%q, %q) looks into %q; want %s", c.prefix, c.after, got, c.want)
		}
	}
}
