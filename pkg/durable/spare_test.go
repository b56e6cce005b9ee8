package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func spareRoot(t *testing.T) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return dir, root
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func TestSpare(t *testing.T) {
	dir, root := spareRoot(t)
	folder := filepath.Join(dir, "pg_wal")
	for _, unsupported := range []bool{false, true} {
		s, err := CreateSpare(root, "pg_wal")
		if err != nil {
			t.Fatal(err)
		}
		if unsupported { // as on a file system without unnamed files
			if err := s.file.Close(); err != nil {
				t.Fatal(err)
			}
			s.temp = s.tempName()
			if s.file, err = root.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{"some ", "text"} {
			if _, err := s.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if visible := names(t, folder); !unsupported && len(visible) > 0 && visible[0] != "SEGMENT" {
			t.Errorf("%v can be seen while it is written", visible)
		}
		temp, err := s.Offer()
		if err != nil || !IsTemporary(temp) {
			t.Fatalf("offered as %q: %v", temp, err)
		}
		if err := Take(root, temp, "pg_wal/SEGMENT", 9); err != nil {
			t.Fatal(err)
		}
		s.Discard()
		s.Discard()
		if got, err := os.ReadFile(filepath.Join(folder, "SEGMENT")); err != nil || string(got) != "some text" {
			t.Errorf("content %q (%v)", got, err)
		}
		if _, err := s.Write([]byte("more")); err == nil {
			t.Error("a file that was offered can be written")
		}
		if _, err := s.Offer(); err == nil {
			t.Error("a file was offered twice")
		}
	}
	if got := names(t, folder); len(got) != 1 {
		t.Errorf("the folder holds %v", got)
	}
}

func TestSpareDiscarded(t *testing.T) {
	dir, root := spareRoot(t)
	for _, offered := range []bool{false, true} {
		s, err := CreateSpare(root, "pg_wal")
		if err != nil {
			t.Fatal(err)
		}
		temp := ""
		if offered {
			if temp, err = s.Offer(); err != nil {
				t.Fatal(err)
			}
		}
		s.Discard()
		if err := Take(root, temp, "pg_wal/SEGMENT", 0); err == nil {
			t.Error("a discarded file was taken")
		}
	}
	if got := names(t, filepath.Join(dir, "pg_wal")); len(got) > 0 {
		t.Errorf("the folder holds %v", got)
	}
}

func TestTakeRefuses(t *testing.T) {
	dir, root := spareRoot(t)
	make := func(name string, mode fs.FileMode) string {
		path := filepath.Join(dir, "pg_wal", name)
		if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "pg_wal/" + name
	}
	good := make(tempPrefix+"GOOD"+tempSuffix, 0o600)
	if err := os.Symlink(filepath.Base(good), filepath.Join(dir, "pg_wal", tempPrefix+"LINK"+tempSuffix)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		temp string
		size int64
	}{
		"another size":       {good, 5},
		"not temporary":      {make("000000010000000000000001", 0o600), 4},
		"others can read it": {make(tempPrefix+"OPEN"+tempSuffix, 0o644), 4},
		"a link":             {"pg_wal/" + tempPrefix + "LINK" + tempSuffix, 4},
	} {
		if err := Take(root, c.temp, "pg_wal/SEGMENT", c.size); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "pg_wal", "SEGMENT")); err == nil {
		t.Error("something was put in place")
	}
}
