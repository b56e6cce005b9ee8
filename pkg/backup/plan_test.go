package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// planned returns what the parts of a site's backup would hold, without its
// directories.
func planned(t *testing.T, s *site) (names [][]string, sizes []int64) {
	t.Helper()
	r := s.begin(t)
	err := r.plan(t.Context(), listed(t, r), func(p part) error {
		if p.number != len(names)+1 {
			t.Errorf("part %d has number %d", len(names)+1, p.number)
		}
		var list []string
		var size int64
		for _, e := range p.entries {
			if !e.mode.IsDir() {
				list = append(list, e.name)
				size += e.size
			}
		}
		names, sizes = append(names, list), append(sizes, size)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, sizes
}

// listed lists a cluster until the end of the test.
func listed(t *testing.T, r *run) *listing {
	t.Helper()
	l := r.list(t.Context())
	t.Cleanup(l.close)
	return l
}

func sparse(t *testing.T, s *site, name string, size int64) {
	t.Helper()
	writePages(t, s, name, nil)
	if err := os.Truncate(filepath.Join(s.dir, name), size); err != nil {
		t.Fatal(err)
	}
}

// However the files lie in the directories, the largest come first, and nobody
// is left alone with much at the end.
func TestPlan(t *testing.T) {
	const mib = 1 << 20
	s := newSite(t)
	s.options.Concurrency = 2
	want := map[string]bool{}
	for name, size := range map[string]int64{"base/1/9000": 1024 * mib, "base/1/9000.1": 1000 * mib, "base/1/4000": 64 * mib, "global/9001": 300 * mib} {
		sparse(t, s, name, size)
		want[name] = true
	}
	for i := range 200 {
		name := fmt.Sprintf("base/1/%d", 5000+i)
		sparse(t, s, name, 4*mib)
		want[name] = true
	}
	names, sizes := planned(t, s)
	if !slices.Equal(names[0], []string{"base/1/9000"}) || !slices.Equal(names[1], []string{"base/1/9000.1"}) || !slices.Equal(names[2], []string{"global/9001"}) {
		t.Errorf("the first parts hold %q, want the largest files one by one", names[:3])
	}
	seen := map[string]bool{}
	for i, list := range names {
		for _, name := range list {
			if seen[name] {
				t.Errorf("%s is in two parts", name)
			}
			seen[name] = true
			delete(want, name)
		}
		if i > 2 && sizes[i] > DefaultPartSize {
			t.Errorf("part %d has %d MiB", i+1, sizes[i]/mib)
		}
	}
	for name := range want {
		t.Errorf("%s is in no part", name)
	}
	if sizes[3] < 128*mib || sizes[len(sizes)-1] > 20*mib || sizes[len(sizes)-2] > 20*mib {
		t.Errorf("the parts have %d bytes: they ought to become smaller", sizes)
	}
}

// Where there is nothing large, what takes longest comes first, too; but only so
// many files are remembered.
func TestPlanOfSmallParts(t *testing.T) {
	s := newSite(t)
	sparse(t, s, "base/1/9000", largerFile)
	sparse(t, s, "global/9001", 3*largerFile)
	sparse(t, s, "pg_xact/0001", 2*largerFile)
	names, _ := planned(t, s)
	if want := []string{"global/9001", "pg_xact/0001", "base/1/9000"}; !slices.Equal(names[0][:3], want) {
		t.Errorf("the first files are %q, want %q", names[0][:3], want)
	}
	for i := range mostLarger {
		sparse(t, s, fmt.Sprintf("base/1/%d", 100000+i), largerFile)
	}
	r := s.begin(t)
	survey, err := r.survey(listed(t, r))
	if err != nil || len(survey.large) != mostLarger {
		t.Errorf("%d files are remembered (%v), want %d", len(survey.large), err, mostLarger)
	}
}

// Empty files take memory, too.
func TestPlanOfManyFiles(t *testing.T) {
	s := newSite(t)
	for i := range 2*mostEntries + 1 {
		writePages(t, s, fmt.Sprintf("base/1/%d", 100000+i), nil)
	}
	names, _ := planned(t, s)
	all := 0
	for _, list := range names {
		all += len(list)
		if len(list) > mostEntries {
			t.Errorf("a part has %d files", len(list))
		}
	}
	if all <= 2*mostEntries {
		t.Errorf("%d files are planned", all)
	}
}

// A cluster that changes once it has been listed: what was listed is planned, and
// where the listing was too long to be kept, what there is then.
func TestPlanOfChangingCluster(t *testing.T) {
	for kept, want := range map[int][]string{
		mostKept: {"base/1/7000", "base/1/7001", "base/1/7003"},
		0:        {"base/1/7000", "base/1/7001", "base/1/7002"},
	} {
		s := newSite(t)
		sparse(t, s, "base/1/7000", largeFile)
		sparse(t, s, "base/1/7001", largeFile)
		sparse(t, s, "base/1/7003", 8192)
		r := s.begin(t)
		r.mostKept = kept
		var names []string
		err := r.plan(t.Context(), listed(t, r), func(p part) error {
			if p.number == 1 { // all is listed
				remove(t, filepath.Join(s.dir, "base/1/7000"))
				remove(t, filepath.Join(s.dir, "base/1/7003"))
				sparse(t, s, "base/1/7002", 3*largeFile)
			}
			for _, e := range p.entries {
				if strings.HasPrefix(e.name, "base/1/700") {
					names = append(names, e.name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(names, want) {
			t.Errorf("with %d bytes kept: planned are %q, want %q", kept, names, want)
		}
	}
}

// What an incremental backup holds of large files doesn't grow with their
// changed blocks, until their turn comes.
func TestPlanOfLargeChanges(t *testing.T) {
	s := newSite(t)
	writeTree(t, s.dir, map[string]string{"base/5/PG_VERSION": "15\n"})
	sparse(t, s, "base/5/16384", 1<<30)
	r := s.begin(t)
	many := make([]uint16, 20_000/16)
	for i := range many {
		many[i] = 1<<16 - 1
	}
	r.base = &base{changes: summarized(t, append(many, make([]uint16, 4096-len(many))...)), files: map[relationFile]struct{}{}}
	file, _ := followed("base/5/16384")
	r.base.files[file] = struct{}{}
	survey, err := r.survey(listed(t, r))
	if err != nil {
		t.Fatal(err)
	}
	const stored = 20_000*8192 + 81920 // the blocks, and their numbers
	if len(survey.large) != 1 || survey.large[0].changed != nil || survey.large[0].stored != stored {
		t.Errorf("the survey holds %+v", survey.large)
	}
	var blocks int
	err = r.plan(t.Context(), listed(t, r), func(p part) error {
		for _, e := range p.entries {
			if e.changed != nil {
				blocks += len(e.changed.Blocks)
			}
		}
		return nil
	})
	if err != nil || blocks != 20_000 {
		t.Errorf("%d blocks are planned (%v), want 20000", blocks, err)
	}
}
