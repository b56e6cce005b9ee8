//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// counter stands before an S3 server and counts requests.
type counter struct {
	mu   sync.Mutex
	gets map[string]int // by the name of the segment, or of what else it is
}

// newCounter puts a counter before a server, and returns the server as seen
// through it.
func newCounter(t *testing.T, server *s3test.Server) (*counter, *s3test.Server) {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{}
	c.reset()
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}}
	// The server may refuse an upload and close the connection while the proxy still
	// sends: its answer is lost then, and the client has to send the same again.
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		t.Logf("%s %s: %v", r.Method, r.URL.Path, err)
		c.count(r, -1)
		w.WriteHeader(http.StatusBadGateway)
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.count(r, 1)
		// A server that refuses an upload may do so before it has read all of
		// it. The proxy would make an error of its own of that.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Logf("%s %s: %v", r.Method, r.URL.Path, err)
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	through := *server
	through.Endpoint = front.URL
	return c, &through
}

// count adds n to what is counted of such requests.
func (c *counter) count(r *http.Request, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, suffix, _ := strings.Cut(path.Base(r.URL.Path), ".")
	switch {
	case r.Method != http.MethodGet:
		name = r.Method
	case !strings.Contains(r.URL.Path, "/wal/"), strings.HasPrefix(suffix, "history"):
		name = path.Base(r.URL.Path)
	}
	c.gets[name] += n
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gets = map[string]int{}
}

// requests is how often an archived file was asked for since the last reset.
func (c *counter) requests(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets[name]
}

// all is every archived file that was asked for, and how often.
func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.gets)
}

// prefetchers lists the processes that fetch segments ahead with the site's
// settings.
func (s *site) prefetchers(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(line), "\x00")
		if len(args) > 4 && args[2] == s.config && args[3] == "wal" && args[4] == "prefetch" {
			pid, err := strconv.Atoi(path.Base(path.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	return found
}

// noPrefetch waits until nothing is fetched ahead any more, and looks for what
// it may have left.
func (s *site) noPrefetch(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	pgtest.WaitFor(t, "the end of fetching ahead", func() bool { return len(s.prefetchers(t)) == 0 })
	for _, pattern := range []string{
		filepath.Join(c.DataDir, "pg_wal", ".walship*"),
		filepath.Join(s.dir, "state", "*", "prefetch", "socket"),
	} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("%v is left behind (%v)", left, err)
		}
	}
}

// others leaves out the segments.
func others(all map[string]int) map[string]int {
	maps.DeleteFunc(all, func(name string, _ int) bool { return isSegment(name) })
	return all
}

func isSegment(name string) bool { return len(name) == len("000000010000000000000001") }

// noise writes n segments full of rows.
func noise(t *testing.T, c *pgtest.Cluster, n int) (last string) {
	t.Helper()
	c.Exec(t, "CREATE TABLE IF NOT EXISTS noise (id serial, noise text)")
	for range n {
		c.Exec(t, "INSERT INTO noise (noise) SELECT md5(random()::text) FROM generate_series(1, 5000)")
		last = c.SwitchWAL(t)
	}
	c.WaitArchived(t, last)
	return last
}

// fetchedAhead counts the segments that a server got from what was fetched
// ahead. The log has to be at the level debug.
func fetchedAhead(t *testing.T, c *pgtest.Cluster) int {
	t.Helper()
	return strings.Count(c.Log(t), "the segment was fetched ahead")
}

// prefetched makes a site for recoveries with small segments.
func prefetched(t *testing.T, major pgtest.Major, o siteOptions) *site {
	t.Helper()
	o.settings += "\nlog.level = \"debug\""
	o.cluster = append(o.cluster, pgtest.SegmentSize(1))
	return newSite(t, major, o)
}

// TestPrefetch recovers through many segments, each of which is read once
// for each time that the server wants it, and nearly all of them ahead.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	for _, major := range daily([]pgtest.Major{18}, 15) {
		t.Run(major.String(), func(t *testing.T) {
			counter, server := newCounter(t, s3test.Start(t, s3test.VersityGW))
			site := prefetched(t, major, siteOptions{server: server, encrypted: true})
			c := site.cluster
			site.backup(t, c)
			noise(t, c, 45)
			want := c.Dump(t, "postgres")
			c.Stop(t, pgtest.Fast)
			archived := site.files(t)

			restored := site.restore(t, "restored")
			counter.reset()
			restored.Start(t)
			restored.WaitPromoted(t)
			site.noPrefetch(t, restored)
			if got := restored.Dump(t, "postgres"); got != want {
				t.Errorf("the restored database differs:\n%s", diff(t, want, got))
			}
			log, replayed := restored.Log(t), 0
			for _, name := range archived {
				wanted := strings.Count(log, fmt.Sprintf("restored log file %q", name))
				if wanted > 0 {
					replayed++
				}
				if n := counter.requests(name); isSegment(name) && n > max(wanted, 1) {
					t.Errorf("%s was asked for %d times, and wanted %d times", name, n, wanted)
				}
			}
			if ahead := fetchedAhead(t, restored); replayed < 45 || ahead < replayed-6 {
				t.Errorf("%d of %d segments were fetched ahead:\n%s", ahead, replayed, log)
			}
			t.Logf("requests besides those for segments: %v", others(counter.all()))
			if n := counter.requests("repository.json"); n > 8 {
				t.Errorf("the repository was asked %d times what it is", n)
			}
			for name, n := range counter.all() {
				// The server asks for it itself, and once more before it promotes.
				if isSegment(name) && !slices.Contains(archived, name) && n > 3 {
					t.Errorf("%s, which isn't there, was asked for %d times", name, n)
				}
			}
		})
	}
}

// TestPrefetchKilled kills what fetches ahead, again and again: recovery
// doesn't notice, and nothing stays behind.
func TestPrefetchKilled(t *testing.T) {
	t.Parallel()
	site := prefetched(t, 15, siteOptions{encrypted: true})
	c := site.cluster
	site.backup(t, c)
	noise(t, c, 60)
	want := c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)

	restored := site.restore(t, "restored")
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		killed := map[int]bool{}
		for {
			select {
			case <-stop:
				stopped <- len(killed)
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, pid := range site.prefetchers(t) {
				killed[pid] = syscall.Kill(pid, syscall.SIGKILL) == nil || killed[pid]
			}
		}
	}()
	restored.Start(t)
	restored.WaitPromoted(t)
	close(stop)
	if n := <-stopped; n == 0 {
		t.Error("nothing was fetched ahead")
	}
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	if left, err := filepath.Glob(filepath.Join(restored.DataDir, "pg_wal", ".walship*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
}

// TestPrefetchPlaces recovers with WAL on another disk than everything else,
// and without a place for what walship remembers.
func TestPrefetchPlaces(t *testing.T) {
	t.Parallel()
	site := prefetched(t, 15, siteOptions{})
	c := site.cluster
	site.backup(t, c)
	noise(t, c, 40)
	want := c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)

	t.Run("WAL on another disk", func(t *testing.T) {
		restored := site.restore(t, "linked")
		disk := pgtest.MkdirNobody(t, site.dir, "disk")
		if err := syscall.Mount("none", disk, "tmpfs", 0, "size=400m,uid=65534,gid=65534,mode=700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		moveWAL(t, restored, disk)
		restored.Start(t)
		restored.WaitPromoted(t)
		site.noPrefetch(t, restored)
		if got := restored.Dump(t, "postgres"); got != want {
			t.Errorf("the restored database differs:\n%s", diff(t, want, got))
		}
		if n := fetchedAhead(t, restored); n < 30 {
			t.Errorf("%d segments were fetched ahead:\n%s", n, restored.Log(t))
		}
		restored.Stop(t, pgtest.Fast)
	})
	t.Run("no state folder", func(t *testing.T) {
		restored := site.restore(t, "stateless")
		state := filepath.Join(site.dir, "state")
		if err := os.Rename(state, state+".away"); err != nil {
			t.Fatal(err)
		}
		write(t, state, "a file, not a folder")
		restored.Start(t)
		restored.WaitPromoted(t)
		if got := restored.Dump(t, "postgres"); got != want {
			t.Errorf("the restored database differs:\n%s", diff(t, want, got))
		}
		if n := fetchedAhead(t, restored); n > 0 || len(site.prefetchers(t)) > 0 {
			t.Errorf("%d segments were fetched ahead", n)
		}
	})
}

// moveWAL puts pg_wal of a stopped server on another disk.
func moveWAL(t *testing.T, c *pgtest.Cluster, disk string) {
	t.Helper()
	folder, wal := filepath.Join(disk, "pg_wal"), filepath.Join(c.DataDir, "pg_wal")
	pgtest.MkdirNobody(t, folder)
	pgtest.MkdirNobody(t, folder, "archive_status")
	for _, err := range []error{os.RemoveAll(wal), os.Symlink(folder, wal), os.Lchown(wal, 65534, 65534)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPrefetchSideBySide recovers two clones at once, with one state folder,
// each with its own process that fetches ahead.
func TestPrefetchSideBySide(t *testing.T) {
	t.Parallel()
	site := prefetched(t, 15, siteOptions{encrypted: true})
	c := site.cluster
	site.backup(t, c)
	noise(t, c, 45)
	want := c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)
	clones := []*pgtest.Cluster{site.restore(t, "one"), site.restore(t, "other")}
	var running sync.WaitGroup
	for _, clone := range clones {
		running.Go(func() { clone.Start(t) })
	}
	running.Wait()
	for _, clone := range clones {
		clone.WaitPromoted(t)
		if got := clone.Dump(t, "postgres"); got != want {
			t.Errorf("the restored database differs:\n%s", diff(t, want, got))
		}
		if n := fetchedAhead(t, clone); n < 35 {
			t.Errorf("%d segments were fetched ahead:\n%s", n, clone.Log(t))
		}
		site.noPrefetch(t, clone)
	}
}

// TestPrefetchFork recovers over a switch of timelines, behind which both
// timelines go on in the archive (rule 14).
func TestPrefetchFork(t *testing.T) {
	t.Parallel()
	site := prefetched(t, 15, siteOptions{encrypted: true})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	noise(t, c, 15)
	c.SQL(t, "INSERT INTO t (name) VALUES ('before')")
	at := c.SQL(t, "SELECT pg_current_wal_insert_lsn()")
	c.SQL(t, "INSERT INTO t (name) VALUES ('astray')")
	noise(t, c, 15)
	c.Stop(t, pgtest.Fast)

	child := site.restore(t, "child", "--to-lsn", at, "--replace", "--target-action", "promote")
	child.Start(t)
	child.WaitPromoted(t)
	child.SQL(t, "INSERT INTO t (name) VALUES ('after')")
	noise(t, child, 25)
	want := child.Dump(t, "postgres")
	child.Stop(t, pgtest.Fast)

	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	site.noPrefetch(t, restored)
	if got := restored.SQL(t, rows); got != "before after" {
		t.Errorf("rows %q", got)
	}
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
	if n := fetchedAhead(t, restored); n < 30 {
		t.Errorf("%d segments were fetched ahead:\n%s", n, restored.Log(t))
	}
}

// TestPrefetchStandby follows an archive with a standby: what piled up is
// fetched ahead, what comes one by one isn't, and a server that stops takes
// what fetches ahead with it.
func TestPrefetchStandby(t *testing.T) {
	t.Parallel()
	counter, server := newCounter(t, s3test.Start(t, s3test.VersityGW))
	site := prefetched(t, 17, siteOptions{server: server})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	noise(t, c, 30)
	standby := site.restore(t, "standby")
	if err := os.Rename(filepath.Join(standby.DataDir, "recovery.signal"), filepath.Join(standby.DataDir, "standby.signal")); err != nil {
		t.Fatal(err)
	}
	standby.AppendConf(t, "wal_retrieve_retry_interval = 100ms")
	standby.Start(t)
	follows := func() {
		t.Helper()
		pgtest.WaitFor(t, "the standby", func() bool { return standby.SQL(t, rows) == c.SQL(t, rows) })
	}
	c.WaitArchived(t, segments(t, c, "piled", 1)[0])
	follows()
	caughtUp := fetchedAhead(t, standby)
	if caughtUp < 20 {
		t.Errorf("%d segments were fetched ahead:\n%s", caughtUp, standby.Log(t))
	}
	site.noPrefetch(t, standby)

	for i := range 5 {
		name := segments(t, c, fmt.Sprint("single", i), 1)[0]
		c.WaitArchived(t, name)
		follows()
	}
	if n := fetchedAhead(t, standby); n > caughtUp {
		t.Errorf("%d segments were fetched ahead of a standby that waits for each", n-caughtUp)
	}

	// In the middle of the next pile the server is stopped.
	standby.Stop(t, pgtest.Fast)
	last := noise(t, c, 40)
	standby.Start(t)
	pgtest.WaitFor(t, "somebody to fetch ahead", func() bool { return len(site.prefetchers(t)) > 0 })
	standby.Kill(t)
	// Killed while a segment is handed over, it leaves that one's temporary name.
	left, err := filepath.Glob(filepath.Join(standby.DataDir, "pg_wal", ".walship*"))
	if err != nil || len(left) > 1 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	site.noPrefetch(t, standby)
	standby.Start(t)
	c.WaitArchived(t, segments(t, c, "last", 1)[0])
	follows()
	if counter.requests(last) == 0 {
		t.Errorf("nobody asked for %s", last)
	}
}

// TestPrefetchDamaged meets a damaged object in the middle: recovery stops
// there, rather than take it for the end, and goes on once it is whole.
func TestPrefetchDamaged(t *testing.T) { // fault 14
	t.Parallel()
	site := prefetched(t, 15, siteOptions{encrypted: true})
	c := site.cluster
	site.backup(t, c)
	noise(t, c, 15)
	bad := noise(t, c, 1)
	noise(t, c, 10)
	want := c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)
	objects, err := filepath.Glob(filepath.Join(site.dir, "repository", "*", "wal", "*", bad+".*"))
	if err != nil || len(objects) != 1 {
		t.Fatalf("objects of %s: %v, %v", bad, objects, err)
	}
	good, err := os.ReadFile(objects[0])
	if err != nil {
		t.Fatal(err)
	}
	restored := site.restore(t, "restored")
	if err := os.Remove(objects[0]); err != nil {
		t.Fatal(err)
	}
	write(t, objects[0], string(good[:len(good)/2]))
	log, code := restored.StartToEnd(t)
	if code == 0 || !strings.Contains(log, bad) || strings.Contains(log, "selected new timeline") || !strings.Contains(log, "exit code 255") {
		t.Errorf("the server ended with %d:\n%s", code, log)
	}
	site.noPrefetch(t, restored)
	if err := os.Remove(objects[0]); err != nil {
		t.Fatal(err)
	}
	write(t, objects[0], string(good))
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
}
