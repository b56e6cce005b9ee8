package restore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// watchedStore notes which parts are fetched, and fails for one of them.
type watchedStore struct {
	storage.Store
	mu     sync.Mutex
	parts  []string
	broken string // the end of a key without its suffix
}

var errBroken = errors.New("the storage is broken")

func (s *watchedStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := strings.CutSuffix(strings.TrimSuffix(key, ".zst"), ".tar"); ok && strings.Contains(key, "/parts/") {
		s.parts = append(s.parts, filepath.Base(name))
		if s.broken != "" && strings.HasSuffix(name, s.broken) {
			return nil, storage.Info{}, errBroken
		}
	}
	return s.Store.Get(ctx, key, offset, length)
}

func watched(r *repo.Repository) *watchedStore {
	s := &watchedStore{Store: r.Store}
	r.Store = s
	return s
}

// reuse plans and runs with Reuse.
func reuse(t *testing.T, r *repo.Repository, q Request) (*Result, error) {
	t.Helper()
	p, err := MakePlan(context.Background(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	return Run(context.Background(), r, p, Options{Reuse: true, Settings: []byte("# settings\n"), Log: discard})
}

// interrupt runs a restore whose storage breaks at one part. The parts come one
// after the other, the large one first.
func interrupt(t *testing.T, r *repo.Repository, store *watchedStore, q Request, part string) {
	t.Helper()
	p, err := MakePlan(context.Background(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	store.broken = part
	if _, err := Run(context.Background(), r, p, Options{Concurrency: 1, Log: discard}); !errors.Is(err, errBroken) {
		t.Fatalf("Run: %v, want the storage's error", err)
	}
	checkUnstartable(t, q.Directory)
	store.parts, store.broken = nil, ""
}

// trees reads all that a restore has made.
func trees(t *testing.T, work string) map[string]string {
	t.Helper()
	if err := os.Chmod(work, 0o700); err != nil {
		t.Fatal(err)
	}
	all := tree(t, work)
	for name := range all {
		if strings.HasPrefix(name, "data.walship/parts") {
			delete(all, name) // by the order of what was restored
		}
	}
	return all
}

func sameTrees(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, content := range want {
		if there, ok := got[name]; !ok || there != content {
			t.Errorf("%s is %.60q, %v; want %.60q", name, there, ok, content)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is there, too", name)
		}
	}
}

// TestRunGoesOn is fault 2: a restore that was interrupted goes on. What is
// there and right is neither fetched nor written again.
func TestRunGoesOn(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	store, q := watched(r), request(work)
	interrupt(t, r, store, q, "000002")
	kept := q.Directory + "/base/1/1259"
	before, err := os.Stat(kept)
	if err != nil {
		t.Fatal(err)
	}
	// What doesn't belong there, even WAL, and what is damaged goes.
	write(t, q.Directory+"/pg_wal/000000010000000000000009", "WAL")
	write(t, q.Directory+"/stray", "x")
	result, err := restoreInto(t, r, q)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(store.parts, " "); got != "000002" {
		t.Errorf("parts %s were fetched, want 000002", got)
	}
	after, err := os.Stat(kept)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("%s was written again (%v)", kept, err)
	}
	if result.KeptSize < 20000 {
		t.Errorf("%d bytes were kept", result.KeptSize)
	}
	fresh := t.TempDir()
	if _, err := restoreInto(t, r, request(fresh)); err != nil {
		t.Fatal(err)
	}
	want := trees(t, fresh)
	for name, content := range want {
		want[name] = strings.ReplaceAll(content, fresh, work)
	}
	sameTrees(t, trees(t, work), want)
}

// TestRunGoesOnOverDamage: a file that was changed since is restored again.
func TestRunGoesOnOverDamage(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	store, q := watched(r), request(work)
	interrupt(t, r, store, q, "000002")
	write(t, q.Directory+"/base/1/1259", strings.Repeat("Page", 5000)) // of the same size
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	if len(store.parts) != 2 {
		t.Errorf("parts %v were fetched, want both", store.parts)
	}
	if got := tree(t, q.Directory)["base/1/1259"]; got != strings.Repeat("page", 5000) {
		t.Errorf("the damaged file is %.20q", got)
	}
}

// TestRunReuse restores over a cluster of which files were changed, added and
// removed since. Whatever it was, what is there afterwards is the backup.
func TestRunReuse(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	want := trees(t, work)
	kept, err := os.Stat(q.Directory + "/base/1/1259")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"data/PG_VERSION": "14\n", "data/base/2/1259": "dropped since", "data/pg_wal/000000010000000000000009": "WAL",
		"data/pg_wal/archive_status/000000010000000000000009.ready": "", "data/postmaster.pid": "4194300\n", "data/standby.signal": "",
		"fast/PG_15_202209061/5/16401": "ROW\n", "fast/PG_15_202209061/6/1": "new", "fast/PG_14_202107181/5/1": "another major's",
	} {
		write(t, work+"/"+name, content)
	}
	if err := errors.Join(os.Remove(q.Directory+"/base/1/empty"), os.Remove(q.Directory+"/pg_tblspc/16400"),
		os.Symlink(work+"/fast/", q.Directory+"/pg_tblspc/16400"), os.Symlink("/etc", q.Directory+"/pg_tblspc/99"),
		os.Chmod(work+"/fast/PG_14_202107181", 0o700), os.Chmod(work+"/fast/PG_14_202107181/5", 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreInto(t, r, q); err == nil {
		t.Error("it was overwritten without Reuse")
	}
	result, err := reuse(t, r, q)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(q.Directory + "/base/1/1259"); err != nil || !os.SameFile(kept, after) || result.KeptSize < 20000 {
		t.Errorf("the file that agreed was written again (%v), %d bytes were kept", err, result.KeptSize)
	}
	got := trees(t, work)
	for _, name := range []string{"fast/PG_14_202107181/5/1", "fast/PG_14_202107181/5", "fast/PG_14_202107181"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s of another major's cluster is gone", name)
		}
		delete(got, name)
	}
	sameTrees(t, got, want)
}

// TestRunReuseInterrupted: from the first change on, what is left can't start.
func TestRunReuseInterrupted(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	want := trees(t, work)
	write(t, q.Directory+"/PG_VERSION", "14\n")
	store := watched(r)
	store.broken = "000001"
	if _, err := reuse(t, r, q); !errors.Is(err, errBroken) {
		t.Fatalf("Run: %v, want the storage's error", err)
	}
	checkUnstartable(t, q.Directory)
	store.broken = ""
	if _, err := restoreInto(t, r, q); err != nil { // it is an interrupted restore now
		t.Fatal(err)
	}
	sameTrees(t, trees(t, work), want)
}

// TestRunReuseRefuses is fault 44: neither a live cluster nor another one is
// overwritten, and nothing else either. Nothing is touched.
func TestRunReuseRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, q *Request, work string)
		says string
	}{
		{"another cluster", func(t *testing.T, q *Request, _ string) { write(t, q.Directory+"/global/pg_control", controlFile(42)) }, "holds cluster 42"},
		{"damaged pg_control", func(t *testing.T, q *Request, _ string) { write(t, q.Directory+"/global/pg_control", "x") }, "can't be seen"},
		{"no cluster", func(t *testing.T, q *Request, _ string) {
			if err := os.Remove(q.Directory + "/global/pg_control"); err != nil {
				t.Fatal(err)
			}
		}, "isn't empty"},
		{"running server", func(t *testing.T, q *Request, _ string) {
			t.Chdir(q.Directory)
			write(t, q.Directory+"/postmaster.pid", strconv.Itoa(os.Getpid())+"\n")
		}, "runs in"},
		{"another tablespace's directory", func(t *testing.T, q *Request, work string) {
			q.Tablespaces["16400"] = work + "/other"
			write(t, work+"/other/PG_15_202209061/5/1", "x")
		}, "tablespace 16400"},
		{"WAL directory elsewhere", func(t *testing.T, q *Request, work string) {
			if err := errors.Join(os.RemoveAll(q.Directory+"/pg_wal"), os.Mkdir(work+"/wal", 0o700), os.Symlink(work+"/wal", q.Directory+"/pg_wal")); err != nil {
				t.Fatal(err)
			}
		}, "give --waldir "},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, work := makeRepository(), t.TempDir()
			smallBackup().commit(t, r)
			q := request(work)
			if _, err := restoreInto(t, r, q); err != nil {
				t.Fatal(err)
			}
			c.make(t, &q, work)
			before := paths(t, work)
			var refused *RefusedError
			if _, err := reuse(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("Run: %v; want a refusal that says %q", err, c.says)
			}
			if after := paths(t, work); after != before {
				t.Errorf("there was\n%s\nand now is\n%s", before, after)
			}
		})
	}
}

// TestRunReuseKeepsOriginal is fault 44: a data directory that was copied with
// its links is no leave to empty what the original has behind its own.
func TestRunReuseKeepsOriginal(t *testing.T) {
	for _, kind := range []string{"pg_tblspc/16400", "pg_wal"} {
		t.Run(kind, func(t *testing.T) {
			r, work := makeRepository(), t.TempDir()
			b := smallBackup()
			b.record.DataDirectory = work + "/original"
			b.commit(t, r)
			q := request(work)
			q.WALDirectory = work + "/wal"
			if _, err := restoreInto(t, r, q); err != nil {
				t.Fatal(err)
			}
			target, err := os.Readlink(q.Directory + "/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			link := b.record.DataDirectory + "/" + kind
			if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(target, link)); err != nil {
				t.Fatal(err)
			}
			before := paths(t, work)
			var refused *RefusedError
			if _, err := reuse(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), "is used by the cluster in "+work+"/original") {
				t.Fatalf("Run: %v, want a refusal", err)
			}
			if after := paths(t, work); after != before {
				t.Errorf("there was\n%s\nand now is\n%s", before, after)
			}
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
			if _, err := reuse(t, r, q); err != nil {
				t.Errorf("without the original's link: %v", err)
			}
		})
	}
}

// TestRunWithoutIdentity: what can't be read is known before anything is made.
func TestRunWithoutIdentity(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	p, err := MakePlan(context.Background(), Of(r), request(work))
	if err != nil {
		t.Fatal(err)
	}
	r.Opener = &object.Opener{Repository: r.Info.ID, Encrypted: true}
	if _, err := Run(context.Background(), r, p, quiet); err == nil {
		t.Error("Run succeeded")
	}
	if got := paths(t, work); got != "." {
		t.Errorf("files were touched: %s", got)
	}
}

// TestRunTwice: two restores never fill one directory at a time.
func TestRunTwice(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	p, err := MakePlan(context.Background(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	first, err := prepare(p, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := restoreInto(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), "another walship") {
		t.Errorf("Run beside another: %v, want a refusal", err)
	}
	first.Close()
	if _, err := restoreInto(t, r, q); err != nil {
		t.Errorf("Run behind another: %v", err)
	}
}

// TestOccupantDisabled: a server can't be started once a cluster is given up.
func TestOccupantDisabled(t *testing.T) {
	work := t.TempDir()
	write(t, work+"/global/pg_control", controlFile(testSystem))
	root, err := os.OpenRoot(work)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := (&occupant{}).disable(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(work + "/" + pgdata.ControlFileName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pg_control: %v", err)
	}
	if pid, err := os.ReadFile(work + "/postmaster.pid"); err != nil || string(pid) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("postmaster.pid %q, %v", pid, err)
	}
}

// TestRunReuseChain: what an incremental backup has whole stays, too, and the
// rest is put together again.
func TestRunReuseChain(t *testing.T) {
	chain := chainOf(
		map[string][]byte{relation: blocks{1, 2, 3}.bytes(), "base/1/7": blocks{5}.bytes()},
		map[string][]byte{pgdata.IncrementalName(relation): blocks{1, 9, 3}.incrementally(1), "base/1/7": blocks{6}.bytes()})
	r, work := makeRepository(), t.TempDir()
	for _, b := range chain {
		b.commit(t, r)
	}
	q := request(work)
	q.Backup = chain[1].record.ID
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	want := trees(t, work)
	write(t, q.Directory+"/"+pgdata.IncrementalName(relation), string(blocks{1, 9, 3}.incrementally(1)))
	write(t, q.Directory+"/"+relation, "x")
	result, err := reuse(t, r, q)
	if err != nil {
		t.Fatal(err)
	}
	if result.KeptSize < pgdata.BlockSize {
		t.Errorf("%d bytes were kept", result.KeptSize)
	}
	sameTrees(t, trees(t, work), want)
}
