package restore

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
)

// FuzzEntry is fault 49: whatever a part's entry is called, it lands below the
// directories of the restore or is refused.
func FuzzEntry(f *testing.F) {
	for _, name := range []string{
		"base/1/1259", "pg_tblspc/16400/PG_15_202209061/5/1", "pg_tblspc/16400", "pg_tblspc/16400/../../x", "../x", "/x", "a/../../x",
		"pg_wal/../../x", "link/x", "pg_tblspc/16400/link/x", "global/pg_control", "tablespace_map", "", ".", "..", "a//b", "a/./b", "x\xff", "pg_tblspc/./16400/x",
	} {
		f.Add(name, byte(tar.TypeReg))
		f.Add(name+"/", byte(tar.TypeDir))
		f.Add(name, byte(tar.TypeSymlink))
	}
	f.Fuzz(func(t *testing.T, name string, kind byte) {
		work := t.TempDir()
		d := &destination{spaces: map[string]*os.Root{}, inPlace: map[string]bool{"16401": true}}
		var err error
		if d.data, err = makePlace(filepath.Join(work, "data")); err != nil {
			t.Fatal(err)
		}
		if d.spaces["16400"], err = makePlace(filepath.Join(work, "space")); err != nil {
			t.Fatal(err)
		}
		defer func() {
			for _, root := range d.roots() {
				root.Close()
			}
		}()
		// Links that a hostile part can't make, but that may be there.
		write(t, filepath.Join(work, "outside/precious"), "x")
		for _, place := range []string{"data", "space"} {
			if err := os.Symlink("../outside", filepath.Join(work, place, "link")); err != nil {
				t.Fatal(err)
			}
		}
		before := outside(t, work)
		files, ctx := newFileWriter(t.Context())
		x := &extractor{dst: d, files: files, manifest: &manifest{left: 1, files: map[string]*manifestFile{
			strings.TrimSuffix(name, "/"): {size: 1, algorithm: pgdata.ChecksumNone}}}}
		entry := &tar.Header{Name: name, Typeflag: kind, Linkname: "../outside", Size: 1}
		if err := x.entry(ctx, entry, strings.NewReader("y"), make([]byte, 8)); err == nil && kind != tar.TypeReg && kind != tar.TypeDir {
			t.Errorf("an entry of type %q was taken", kind)
		}
		_ = files.wait() // where the file is none, fsync may say so
		if after := outside(t, work); after != before {
			t.Errorf("%q of type %q changed what is outside:\n%s\nwas\n%s", name, kind, after, before)
		}
	})
}

// outside lists what is in work but not in the directories of the restore.
func outside(t *testing.T, work string) string {
	t.Helper()
	var all []string
	for line := range strings.SplitSeq(paths(t, work), "\n") {
		if !strings.HasPrefix(line, "data/") && !strings.HasPrefix(line, "space/") {
			all = append(all, line)
		}
	}
	content, err := os.ReadFile(filepath.Join(work, "outside/precious"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(all, string(content)), "\n")
}
