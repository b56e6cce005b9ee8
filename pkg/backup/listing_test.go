package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPacking unpacks what was packed.
func TestPacking(t *testing.T) {
	data, space := &tree{}, &tree{oid: 16400, prefix: "pg_tblspc/16400/"}
	trees := []*tree{data, space}
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	want := []entry{
		{tree: data, name: "base", mode: fs.ModeDir | 0o700, modified: at(1_700_000_000)},
		{tree: data, name: "base/1/1259", mode: 0o600, modified: at(1_700_000_001), size: 8192},
		{tree: data, name: "base/1/1259.1", mode: 0o600, modified: at(1_600_000_000), size: 1 << 40},
		{tree: data, name: "base/1/1259", mode: 0o640, modified: at(-1), size: 1},
		{tree: data, name: "\xff" + strings.Repeat("x", 1022), mode: 0o600, modified: at(0)},
		{tree: space, name: "pg_tblspc/16400/PG_15_202209061", mode: fs.ModeDir | 0o750, modified: at(1 << 40)},
		{tree: space, name: "p", mode: 0, modified: time.Time{}},
	}
	p := packer{trees: trees}
	for _, e := range want {
		p.add(e)
	}
	var got []entry
	if err := unpack(trees, p.piece, func(e entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, func(a, b entry) bool {
		return a.tree == b.tree && a.name == b.name && a.mode == b.mode && a.size == b.size && a.modified.Equal(b.modified)
	}) {
		t.Errorf("unpacked are\n%v\nwant\n%v", got, want)
	}
	stop := errors.New("enough")
	if err := unpack(trees, p.piece, func(entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the visitor's error", err)
	}
}

// TestListingSize: a listing of relations' files takes as much as is said at
// mostKept, and a part of it is what is handed over at a time.
func TestListingSize(t *testing.T) {
	s := newSite(t)
	const files = 9000
	for i := range files {
		writePages(t, s, fmt.Sprintf("base/1/%d", 100000+i), nil)
	}
	size, pieces := 0, 0
	for piece := range listed(t, s.begin(t)).pieces {
		size, pieces = size+len(piece), pieces+1
		if len(piece) > pieceSize+pieceSize/16 {
			t.Errorf("a piece has %d bytes", len(piece))
		}
	}
	if pieces < 2 || size > 12*files {
		t.Errorf("%d files take %d bytes in %d pieces", files, size, pieces)
	}
}

// TestListingGivenUp gives up a listing that nobody looks at.
func TestListingGivenUp(t *testing.T) {
	s := newSite(t)
	r := s.begin(t)
	l := r.list(t.Context())
	l.close()
	l.close() // which changes nothing
	if _, more := <-l.pieces; more {
		t.Error("the listing goes on")
	}
}

// TestListingFails: what can't be listed ends the backup.
func TestListingFails(t *testing.T) {
	s := newSite(t)
	s.archiveWAL(t, 6, 7)
	writeTree(t, s.dir, map[string]string{"base/1/777": "-> " + filepath.Join(t.TempDir(), "gone")})
	if _, err := s.push(t.Context()); err == nil || !strings.Contains(err.Error(), "base/1/777 in the data directory is a symbolic link") {
		t.Errorf("got %v", err)
	}
	s.noBackup(t)
}

// TestUnlogged: forks of unlogged relations are left out wherever their names
// stand among those that are looked up at once, and by whichever worker.
func TestUnlogged(t *testing.T) {
	s := newSite(t)
	files := map[string]string{}
	var want []string
	for n := range 3 * atOnce / 4 {
		number := 20_000 + n
		files[fmt.Sprintf("base/1/%d", number)] = "rows"
		files[fmt.Sprintf("base/1/%d_fsm", number)] = "map"
		if n%3 == 0 {
			files[fmt.Sprintf("base/1/%d_init", number)] = ""
			want = append(want, fmt.Sprintf("base/1/%d_init", number))
		} else {
			want = append(want, fmt.Sprintf("base/1/%d", number), fmt.Sprintf("base/1/%d_fsm", number))
		}
	}
	writeTree(t, s.dir, files)
	for workers := range 4 {
		s.options.Concurrency = workers
		r := s.begin(t)
		var got []string
		for piece := range listed(t, r).pieces {
			if err := unpack(r.trees(), piece, func(e entry) error {
				if strings.HasPrefix(e.name, "base/1/2") {
					got = append(got, e.name)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d workers: listed are %d files, want %d", workers, len(got), len(want))
		}
	}
}
