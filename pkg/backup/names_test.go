package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSortedNames lists a directory whose names don't fit into the memory that
// they may take, and looks at what is held.
func TestSortedNames(t *testing.T) {
	var want []string
	for i := range 3000 {
		want = append(want, fmt.Sprintf("%d%s", i*7919%3000, strings.Repeat("x", i%50)))
	}
	want = append(want, "\xff", " ", strings.Repeat("y", 255))
	root := named(t, want)
	slices.Sort(want)
	for _, most := range []int{2000, 10_000, 1 << 20} {
		var got []string
		for name, err := range sortedNames(root, most) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %d bytes: %d names are listed, want %d in their order", most, len(got), len(want))
		}
	}
}

// TestNamesMemory sees to it that what is held of a directory doesn't follow
// the number of its names.
func TestNamesMemory(t *testing.T) {
	const most = 1000
	l := lowestNames{most: most}
	for i := range 100_000 {
		l.add(fmt.Sprintf("%d", i*7919%100_000))
		if l.size > 2*most || cap(l.names) > 4*most/nameOverhead {
			t.Fatalf("after %d names, %d with %d bytes are held, in a list for %d", i+1, len(l.names), l.size, cap(l.names))
		}
	}
	l.cut()
	if l.size > most || len(l.names) < most/(nameOverhead+5) {
		t.Errorf("%d names with %d bytes are held in the end, %d bytes may be", len(l.names), l.size, most)
	}
}

// TestNamesChanging lists a directory that changes between two readings.
func TestNamesChanging(t *testing.T) { // fault 33
	root := named(t, []string{"a", "b", "c", "d"})
	var got []string
	for name, err := range sortedNames(root, 1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
		if name == "b" {
			for _, add := range []string{"aa", "bb"} {
				if err := root.WriteFile(add, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, gone := range []string{"b", "c"} {
				if err := root.Remove(gone); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if want := []string{"a", "b", "bb", "d"}; !slices.Equal(got, want) {
		t.Errorf("listed are %q, want %q", got, want)
	}
}

// named makes a directory with files of those names.
func named(t *testing.T, names []string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}
