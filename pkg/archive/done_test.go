package archive

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/walship/walship/pkg/done"
)

// doneSite is a segment's file and a record of it.
type doneSite struct {
	*Done
	path  string
	clock time.Time
}

const repositoryID = "00112233445566778899aabbccddeeff"

func newDone(t *testing.T) *doneSite {
	t.Helper()
	s := &doneSite{path: filepath.Join(t.TempDir(), first), clock: time.Now()}
	if err := os.WriteFile(s.path, bytes.Repeat([]byte("a"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Done = &Done{State: openRoot(t), Folder: openRoot(t), Call: done.NewCall(nil, nil, "", nil), Target: done.NewTarget("s3://one/here", cluster), Read: s.clock, now: func() time.Time { return s.clock }}
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.add(repositoryID, parse(t, first), done.Identify(info)); err != nil {
		t.Fatal(err)
	}
	return s
}

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func (s *doneSite) record() string { return filepath.Join(s.Folder.Name(), first) }

// Fault 4: a record counts for the very file, as it was, in the very
// repository, and once.
func TestDone(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rewrite := func(t *testing.T, s *doneSite, change func(data []byte) []byte) {
		data, err := os.ReadFile(s.record())
		must(t, err)
		must(t, os.WriteFile(s.record(), change(data), 0o600))
	}
	for what, c := range map[string]struct {
		prepare func(t *testing.T, s *doneSite)
		want    bool
	}{
		"as it was":         {func(*testing.T, *doneSite) {}, true},
		"read meanwhile":    {func(t *testing.T, s *doneSite) { _, err := os.ReadFile(s.path); must(t, err) }, true},
		"almost too old":    {func(_ *testing.T, s *doneSite) { s.clock = s.clock.Add(done.Life - 1) }, true},
		"too old":           {func(_ *testing.T, s *doneSite) { s.clock = s.clock.Add(done.Life) }, false},
		"from the future":   {func(_ *testing.T, s *doneSite) { s.clock = s.clock.Add(-time.Second) }, false},
		"another call":      {func(_ *testing.T, s *doneSite) { s.Call++ }, true}, // which means the same
		"another URL":       {func(_ *testing.T, s *doneSite) { s.Target = done.NewTarget("s3://one/there", cluster) }, false},
		"another cluster":   {func(_ *testing.T, s *doneSite) { s.Target = done.NewTarget("s3://one/here", cluster+1) }, false},
		"the same, cleared": {func(t *testing.T, s *doneSite) { must(t, s.Clear(repositoryID)) }, true},
		"another, cleared":  {func(t *testing.T, s *doneSite) { must(t, s.Clear("ff112233445566778899aabbccddeeff")) }, false},
		"the file is gone":  {func(t *testing.T, s *doneSite) { must(t, os.Remove(s.path)) }, false},
		"other times":       {func(t *testing.T, s *doneSite) { must(t, os.Chtimes(s.path, time.Time{}, time.Unix(1e9, 0))) }, false},
		"other permissions": {func(t *testing.T, s *doneSite) { must(t, os.Chmod(s.path, 0o640)) }, false}, // ctime
		"another size":      {func(t *testing.T, s *doneSite) { must(t, os.Truncate(s.path, 1001)) }, false},
		"renamed and back": {func(t *testing.T, s *doneSite) {
			must(t, os.Rename(s.path, s.path+"x"))
			must(t, os.Rename(s.path+"x", s.path))
		}, false},
		"a cut record":       {func(t *testing.T, s *doneSite) { rewrite(t, s, func(d []byte) []byte { return d[:len(d)-1] }) }, false},
		"an empty record":    {func(t *testing.T, s *doneSite) { rewrite(t, s, func([]byte) []byte { return nil }) }, false},
		"a record of zeros":  {func(t *testing.T, s *doneSite) { rewrite(t, s, func(d []byte) []byte { clear(d); return d }) }, false},
		"a longer record":    {func(t *testing.T, s *doneSite) { rewrite(t, s, func(d []byte) []byte { return append(d, 0) }) }, false},
		"a flipped bit":      {func(t *testing.T, s *doneSite) { rewrite(t, s, func(d []byte) []byte { d[20] ^= 1; return d }) }, false},
		"a copy of the file": {func(t *testing.T, s *doneSite) { s.replaceByCopy(t) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			s := newDone(t)
			c.prepare(t, s)
			if got := s.Take(repositoryID, s.path, parse(t, first)); got != c.want {
				t.Errorf("taken for archived: %t", got)
			}
			if _, err := os.Lstat(s.record()); !os.IsNotExist(err) {
				t.Errorf("the record stays (%v)", err)
			}
			if s.Take(repositoryID, s.path, parse(t, first)) {
				t.Error("it serves twice")
			}
		})
	}
	t.Run("another repository", func(t *testing.T) {
		s := newDone(t)
		if s.Take("ff112233445566778899aabbccddeeff", s.path, parse(t, first)) {
			t.Error("taken for archived")
		}
	})
	t.Run("unreadable", func(t *testing.T) { // EISDIR, for any user
		s := newDone(t)
		must(t, os.Remove(s.record()))
		must(t, os.Mkdir(s.record(), 0o700))
		if s.Take(repositoryID, s.path, parse(t, first)) {
			t.Error("taken for archived")
		}
	})
	t.Run("another name", func(t *testing.T) {
		s := newDone(t)
		must(t, os.Rename(s.record(), filepath.Join(s.Folder.Name(), second)))
		must(t, os.Link(s.path, filepath.Join(filepath.Dir(s.path), second)))
		if s.Take(repositoryID, filepath.Join(filepath.Dir(s.path), second), parse(t, second)) {
			t.Error("taken for archived")
		}
	})
	t.Run("a history file", func(t *testing.T) {
		s := newDone(t)
		name := parse(t, "00000002.history")
		info, err := os.Stat(s.path)
		must(t, err)
		must(t, s.add(repositoryID, name, done.Identify(info)))
		if s.Take(repositoryID, s.path, name) {
			t.Error("taken for archived")
		}
	})
	t.Run("no identity", func(t *testing.T) {
		s := newDone(t)
		if err := s.add(repositoryID, parse(t, second), done.Identity{}); err == nil {
			t.Error("a file without an identity is remembered")
		}
	})
}

// replaceByCopy puts a copy with the same times in the place of the file.
func (s *doneSite) replaceByCopy(t *testing.T) {
	t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path+"x", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(s.path+"x", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.path+"x", s.path); err != nil {
		t.Fatal(err)
	}
}

func TestDoneSweep(t *testing.T) {
	s := newDone(t)
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	name := parse(t, first)
	for range doneMost + 20 {
		name = name.Next(segmentSize)
		if err := s.add(repositoryID, name, done.Identify(info)); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		entries, err := fs.ReadDir(s.Folder.FS(), ".")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	s.clock = time.Now()
	if err := s.sweep(); err != nil || count() != doneMost {
		t.Errorf("%d records are left (%v)", count(), err)
	}
	if err := s.Folder.Chtimes(name.String(), time.Time{}, s.clock.Add(-done.Life-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(); err != nil || count() != doneMost-1 {
		t.Errorf("%d records are left without the old one (%v)", count(), err)
	}
}

// What killed calls left in the state folder goes, and what may be somebody's stays.
func TestSweepTemporary(t *testing.T) {
	s := newDone(t)
	s.clock = time.Now()
	if err := makePrefetchFolder(s.State); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		age  time.Duration
		gone bool
	}{
		".walship-~KILLED.tmp":                {temporaryLife + time.Second, true},
		prefetchFolder + "/.walship-~OLD.tmp": {temporaryLife + time.Second, true},
		".walship-~WRITTEN.tmp":               {time.Second, false},
		prefetchFolder + "/.walship-~NEW.tmp": {time.Second, false},
		knownFile:                             {temporaryLife + time.Second, false},
		prefetchStreak:                        {temporaryLife + time.Second, false},
	} {
		if err := s.State.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.State.Chtimes(name, time.Time{}, s.clock.Add(-c.age)); err != nil {
			t.Fatal(err)
		}
		if err := s.sweep(); err != nil {
			t.Error(err)
		}
		if _, err := s.State.Lstat(name); errors.Is(err, fs.ErrNotExist) != c.gone {
			t.Errorf("%s, %v old: %v; want it gone: %t", name, c.age, err, c.gone)
		}
	}
}

func TestKnown(t *testing.T) {
	s := newSite(t, true)
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	clock := time.Now()
	k := &Known{State: root, Place: "s3://one/here", now: func() time.Time { return clock }}
	if _, _, known := k.Info(); known {
		t.Error("something is known from the start")
	}
	remember := func() {
		t.Helper()
		if err := k.Remember(s.Info, clock); err != nil {
			t.Fatal(err)
		}
	}
	remember()
	if info, read, known := k.Info(); !known || !read.Equal(clock) || info.ID != s.Info.ID || !info.Encrypted() {
		t.Errorf("%+v, %t", info, known)
	}
	for what, change := range map[string]func(){
		"another place":   func() { k.Place = "s3://other" },
		"too old":         func() { clock = clock.Add(done.KnownLife) },
		"from the future": func() { clock = clock.Add(-time.Second) },
		"forgotten": func() {
			if err := k.Forget(); err != nil {
				t.Fatal(err)
			}
		},
		"changed": func() {
			data, err := root.ReadFile(knownFile)
			if err != nil {
				t.Fatal(err)
			}
			data = bytes.Replace(data, []byte(s.Info.ID), []byte(repositoryID), 1)
			if err := root.WriteFile(knownFile, data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func() {
			if err := root.WriteFile(knownFile, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		remember()
		change()
		if info, _, known := k.Info(); known {
			t.Errorf("%s: %+v is known", what, info)
		}
		k.Place = "s3://one/here"
	}
	if err := k.Forget(); err != nil {
		t.Errorf("forgotten twice: %v", err)
	}
	remember()
	if _, _, known := k.Info(); !known {
		t.Error("it isn't known again")
	}
}
