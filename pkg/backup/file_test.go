package backup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
)

// meddle has f run once, in the middle of the first file that is larger than
// one buffer: only behind a whole buffer there is a second to wait.
func meddle(t *testing.T, r *run, f func()) (fired *bool) {
	t.Helper()
	fired = new(bool)
	r.limit = newLimiter(copyBuffer)
	now := time.Unix(0, 0)
	r.limit.now = func() time.Time { return now }
	r.limit.sleep = func(_ context.Context, d time.Duration) error {
		if now = now.Add(d); d > time.Second/2 && !*fired {
			*fired = true
			f()
		}
		return nil
	}
	return fired
}

// begin prepares a run up to the copying of files.
func (s *site) begin(t *testing.T) *run {
	t.Helper()
	r, err := prepare(Deps{Repository: s.repository, Server: s.server, Log: discard(), Version: "test", Host: "db1"}, s.options, s.server.facts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if err := r.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMovingFiles(t *testing.T) { // fault 33, rule 24
	const size = 3*copyBuffer + 100
	original := strings.Repeat("a", size)
	for _, test := range []struct {
		what, name string
		meddle     func(t *testing.T, file string)
		want       string // content; "" means that the backup fails
	}{
		{"grows", "base/1/4000", func(t *testing.T, file string) { appendTo(t, file, "more") }, original},
		{"shrinks", "base/1/4000", func(t *testing.T, file string) { truncate(t, file, copyBuffer+7) },
			original[:copyBuffer+7] + strings.Repeat("\x00", size-copyBuffer-7)},
		{"is emptied", "pg_xact/0001", func(t *testing.T, file string) { truncate(t, file, 0) },
			original[:copyBuffer] + strings.Repeat("\x00", size-copyBuffer)},
		{"vanishes while it is read", "base/1/4000", remove, original},
		{"shrinks and mustn't", "global/pg_filenode.map", func(t *testing.T, file string) { truncate(t, file, 1) }, ""},
		{"shrinks and mustn't", "base/1/pg_filenode.map", func(t *testing.T, file string) { truncate(t, file, 1) }, ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			s := newSite(t)
			s.archiveWAL(t, 6, 7)
			writeTree(t, s.dir, map[string]string{test.name: original})
			r := s.begin(t)
			fired := meddle(t, r, func() { test.meddle(t, filepath.Join(s.dir, test.name)) })
			err := r.finish(t.Context())
			if !*fired {
				t.Fatal("the file wasn't meddled with")
			}
			if test.want == "" {
				if err == nil || !strings.Contains(err.Error(), test.name) {
					t.Errorf("got %v, want an error that names %s", err, test.name)
				}
				s.noBackup(t)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// restore holds the manifest against the parts.
			if got := s.restore(t, &r.record).entries[test.name]; got != test.want {
				t.Errorf("the backup has %d bytes that aren't what was expected", len(got))
			}
		})
	}
}

// A file that is listed and then gone is left out of parts and manifest, but
// for those without which nothing starts.
func TestVanishedFiles(t *testing.T) { // fault 33
	for name, fails := range map[string]bool{
		"base/1/5000": false, "pg_xact/0000": false, "base/1/PG_VERSION": false, "PG_VERSION": true, "global/pg_filenode.map": true,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.archiveWAL(t, 6, 7)
			s.options.Concurrency = 1
			// The whole cluster is listed before the first file is read,
			// because it fits into one part.
			writeTree(t, s.dir, map[string]string{"base/1/5000": "rows", "0first": strings.Repeat("x", 2*copyBuffer)})
			r := s.begin(t)
			fired := meddle(t, r, func() { remove(t, filepath.Join(s.dir, name)) })
			err := r.finish(t.Context())
			if !*fired {
				t.Fatal("nothing was removed")
			}
			if fails {
				if err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("got %v, want an error that names %s", err, name)
				}
				s.noBackup(t)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, there := s.restore(t, &r.record).entries[name]; there {
				t.Error("the backup has the file")
			}
		})
	}
}

func TestControlFileIsLast(t *testing.T) { // fault 34
	s := newSite(t)
	s.options.PartSize = 1 // every file a part of its own
	s.options.Checksums = pgdata.ChecksumNone
	b, r := s.mustPush(t)
	last := len(b.Parts) - 1
	for name, want := range map[string]int{"global/pg_control": last, "backup_label": last, "PG_VERSION": r.part["PG_VERSION"]} {
		if r.part[name] != want {
			t.Errorf("%s is in part %d, want %d of %d", name, r.part[name], want, last)
		}
	}
	content := s.open(t, b.Parts[last], partHeader(b, last+1))
	if i, j := strings.Index(string(content), "backup_label"), strings.Index(string(content), "global/pg_control"); i < 0 || j < i {
		t.Errorf("backup_label stands at %d and global/pg_control at %d of the last part", i, j)
	}
	if len(b.Parts) < 10 {
		t.Errorf("%d parts, want one for each file", len(b.Parts))
	}
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
