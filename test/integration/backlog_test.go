//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// ledger stands before an S3 server and writes down what is asked of it.
type ledger struct {
	mu      sync.Mutex
	entries []string // the method and the last element of the path
	before  func(entry string)
}

// newLedger puts a ledger before a server, and returns the server as seen
// through it.
func newLedger(t *testing.T, server *s3test.Server) (*ledger, *s3test.Server) {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // the client was killed
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.enter(r.Method + " " + path.Base(r.URL.Path))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	through := *server
	through.Endpoint = front.URL
	return l, &through
}

func (l *ledger) enter(entry string) {
	l.mu.Lock()
	l.entries = append(l.entries, entry)
	before := l.before
	l.mu.Unlock()
	if before != nil {
		before(entry)
	}
}

// begin starts a new ledger, and has a function told of each request before
// the server is.
func (l *ledger) begin(before func(entry string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.before = nil, before
}

// counts is how often each request was made.
func (l *ledger) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]int)
	for _, entry := range l.entries {
		counts[entry]++
	}
	return counts
}

// backlog has n segments wait, with a row in each.
func (s *site) backlog(t *testing.T, prefix string, n int) []string {
	t.Helper()
	s.cluster.Configure(t, "archive_command", "false")
	return segments(t, s.cluster, prefix, n)
}

// drain has PostgreSQL archive what waits.
func (s *site) drain(t *testing.T, names []string) {
	t.Helper()
	s.cluster.Configure(t, "archive_command", s.binary+" --config "+s.config+" wal push %p")
	for _, name := range names {
		s.cluster.WaitArchived(t, name)
	}
}

// once checks that each segment is in the repository, as one object.
func (s *site) once(t *testing.T, names []string) {
	t.Helper()
	count := make(map[string]int)
	for _, name := range s.files(t) {
		count[name]++
	}
	for _, name := range names {
		if count[name] != 1 {
			t.Errorf("%d objects of segment %s", count[name], name)
		}
	}
}

// TestBacklog: a backlog is archived by few calls, with one request for each
// segment; killed in the middle, several times, it is archived all the same
// (fault 1); nothing of it is lost or stored twice.
func TestBacklog(t *testing.T) {
	t.Parallel()
	const most = 36
	type place struct {
		major  pgtest.Major
		bucket bool
	}
	for _, c := range daily([]place{{15, false}, {18, true}}, place{15, true}) {
		t.Run(fmt.Sprintf("%s bucket=%t", c.major, c.bucket), func(t *testing.T) {
			o := siteOptions{encrypted: true, settings: "log.level = \"debug\"", cluster: []pgtest.Option{pgtest.SegmentSize(1)}}
			var requests *ledger
			if c.bucket {
				requests, o.server = newLedger(t, s3test.Start(t, s3test.VersityGW))
			}
			site := newSite(t, c.major, o)
			site.cluster.Exec(t, "CREATE TABLE t (id serial, name text)")
			site.backup(t, site.cluster)

			names := site.backlog(t, "row", most)
			if requests != nil {
				requests.begin(nil)
			}
			site.drain(t, names)
			if !strings.Contains(site.cluster.Log(t), "along="+strconv.Itoa(most-1)) {
				t.Error("the backlog wasn't archived in one go")
			}
			// The other calls were answered before there is a log: see cmd/walship/early.
			for _, name := range names[1:] {
				if strings.Contains(site.cluster.Log(t), "file="+name) {
					t.Errorf("a call of its own had to look after %s", name)
				}
			}
			if requests != nil {
				counts := requests.counts()
				for _, name := range names {
					if n := counts["PUT "+name+".zst.age"]; n != 1 {
						t.Errorf("%d uploads of %s", n, name)
					}
				}
				// At most one more, for what the repository is.
				if total := len(requests.entries); total > most+1 {
					t.Errorf("%d requests for %d segments: %v", total, most, counts)
				}
			}

			killed := site.backlog(t, "killed", most)
			site.pushKilled(t, requests, killed)
			names = append(names, killed...)
			site.drain(t, names)
			site.once(t, names)

			want := site.cluster.Dump(t, "postgres")
			restored := site.restore(t, "restored")
			restored.Start(t)
			restored.WaitPromoted(t)
			if got := restored.Dump(t, "postgres"); got != want {
				t.Errorf("the restored database differs:\n%s", diff(t, want, got))
			}
		})
	}
}

// pushKilled pushes the first of the segments that wait, with all behind it,
// as the archiver would, again and again: each time it is killed, further on.
// In a bucket that is before an upload is passed on, in a directory when an
// object has appeared.
func (s *site) pushKilled(t *testing.T, requests *ledger, names []string) {
	t.Helper()
	for _, at := range []int{0, 1, 5, 12, 25} {
		cmd := s.commandOn(t, s.cluster, "wal", "push", "pg_wal/"+names[0])
		if requests != nil {
			started := make(chan struct{})
			requests.begin(func(entry string) {
				if <-started; entry == "PUT "+names[at]+".zst.age" {
					_ = cmd.Process.Kill() // ProcessState says whether that was its end
				}
			})
			err := cmd.Start()
			close(started)
			if err != nil {
				t.Fatal(err)
			}
		} else {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pgtest.WaitFor(t, "an object", func() bool {
				found, err := filepath.Glob(filepath.Join(s.dir, "repository", "*", "wal", "*", names[at]+".zst.age"))
				return err == nil && len(found) == 1
			})
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if requests != nil && cmd.ProcessState.ExitCode() != -1 {
			t.Errorf("the push wasn't killed at %s: %v", names[at], cmd.ProcessState)
		}
	}
	if requests != nil {
		requests.begin(nil)
	}
}

// TestRecreatedRepository: a push that remembers a repository whose place
// another one has taken finds out where the two contradict.
func TestRecreatedRepository(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t, s3test.VersityGW)
	site := newSite(t, 15, siteOptions{server: server, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	site.cluster.Exec(t, "CREATE TABLE t (id serial, name text)")
	names := site.backlog(t, "row", 2)
	site.walship(t, "wal", "push", "pg_wal/"+names[0]) // and with it the other one
	empty(t, server)
	elsewhere := "--state-directory=" + filepath.Join(site.dir, "elsewhere")
	site.walship(t, elsewhere, "init", "--no-encryption")
	site.walship(t, elsewhere, "wal", "push", "pg_wal/"+names[0])
	site.walship(t, "wal", "push", "pg_wal/"+names[0])
	for _, name := range names {
		site.walship(t, "wal", "fetch", name, filepath.Join(site.dir, name)) // refuses those of another repository
	}
}

// empty deletes everything in a server's bucket.
func empty(t *testing.T, server *s3test.Server) {
	t.Helper()
	list, err := server.Client().ListObjectsV2(t.Context(), &awss3.ListObjectsV2Input{Bucket: aws.String(server.Bucket)})
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range list.Contents {
		_, err := server.Client().DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: aws.String(server.Bucket), Key: object.Key})
		if err != nil {
			t.Fatal(err)
		}
	}
}
