package restore

import (
	"archive/tar"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// letGroup makes b a backup of a cluster whose group may read all but a secret
// key.
func letGroup(b *madeBackup) {
	b.record.GroupAccess = true
	for _, e := range []tarEntry{file("server.key", "secret"), dir("own"), file("own/file", "x"), dir("pg_tblspc/16400/PG_15_202209061/5")} {
		b.add(e)
	}
	for _, part := range b.parts {
		for i, e := range part {
			switch {
			case e.Name == "server.key" || e.Name == "own/":
			case e.Typeflag == tar.TypeDir:
				part[i].Mode = 0o750
			case e.Name == "PG_VERSION":
				part[i].Mode = 0o644 // nobody else gets anything
			default:
				part[i].Mode = 0o640
			}
		}
	}
	b.list()
}

// checkGroup checks the modes of all that is below some directories.
func checkGroup(t *testing.T, directories ...string) {
	t.Helper()
	own := map[string]fs.FileMode{"server.key": 0o600, "own": fs.ModeDir | 0o700}
	seen := 0
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Type() == fs.ModeSymlink {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			want, is := own[entry.Name()]
			switch {
			case is:
				seen++
			case entry.IsDir():
				want = fs.ModeDir | 0o750
			default:
				want = 0o640
			}
			if info.Mode() != want {
				t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen != len(own) {
		t.Errorf("%d of what is the owner's alone were restored", seen)
	}
}

// TestGroupAccess: what the group of the original could read, that of the
// restored cluster can, whatever the umask.
func TestGroupAccess(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	letGroup(b)
	b.commit(t, r)

	q := request(work)
	q.WALDirectory = work + "/wal"
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	checkGroup(t, q.Directory, work+"/fast", q.WALDirectory)
	if info, err := os.Stat(StateDirectory(q.Directory)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory: %v, %v", info, err)
	}

	// What stays has the same rights, also where it had others meanwhile.
	for name, mode := range map[string]fs.FileMode{"base/1/1259": 0o644, "base": 0o755, "own": 0o700, "server.key": 0o600} {
		if err := os.Chmod(filepath.Join(q.Directory, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if result, err := reuse(t, r, q); err != nil || result.KeptSize == 0 {
		t.Fatalf("reuse: %+v, %v", result, err)
	}
	checkGroup(t, q.Directory, work+"/fast", q.WALDirectory)

	// Nothing is known of the parts that a copy came from, so each is fetched.
	if err := os.RemoveAll(StateDirectory(q.Directory)); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"base/1/1259": 0o600, "server.key": 0o640, "own": 0o750} {
		if err := os.Chmod(filepath.Join(q.Directory, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if result, err := reuse(t, r, q); err != nil || result.KeptSize == 0 {
		t.Fatalf("reuse: %+v, %v", result, err)
	}
	checkGroup(t, q.Directory, work+"/fast", q.WALDirectory)

	q = Request{Backup: b.record.ID, Target: Target{Kind: TargetImmediate}, Timeline: TimelineCurrent, Export: true, Directory: work + "/export", Tablespaces: map[string]string{"16400": work + "/slow"}}
	p, err := MakePlan(t.Context(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	if err := Export(t.Context(), r, p, Options{Log: discard}); err != nil {
		t.Fatal(err)
	}
	checkGroup(t, q.Directory, work+"/slow")
}

// TestGroupAccessOfChain: so it is with a chain, of which the newest backup
// counts.
func TestGroupAccessOfChain(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	chain := chainOf(
		map[string][]byte{relation: blocks{1, 2}.bytes()},
		map[string][]byte{"base/1/INCREMENTAL.16384": blocks{1, 3}.incrementally(1)})
	chain[1].add(dir("pg_tblspc/16400/PG_15_202209061"))
	letGroup(chain[1])
	for _, b := range chain {
		b.commit(t, r)
	}
	q := request(work)
	q.Backup = chain[1].record.ID
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	checkGroup(t, q.Directory, work+"/fast")
}

// TestNoGroupAccess: rights of single files don't count where the group can't
// come to them.
func TestNoGroupAccess(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	letGroup(b)
	b.record.GroupAccess = false
	b.commit(t, r)
	q := request(work)
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	tree(t, q.Directory) // looks at the modes, too
}
