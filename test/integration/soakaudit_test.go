//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/test/pgtest"
)

// doneWatch writes down every file that PostgreSQL marks as archived, even if
// it is removed in the next moment.
type doneWatch struct {
	queue *os.File

	mu    sync.Mutex
	names map[string]bool
	lost  bool // the kernel dropped some
	ended sync.WaitGroup
}

// watchDone watches a folder archive_status.
func watchDone(t *testing.T, folder string) *doneWatch {
	t.Helper()
	queue, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	w := &doneWatch{queue: os.NewFile(uintptr(queue), "inotify"), names: make(map[string]bool)}
	if _, err := syscall.InotifyAddWatch(queue, folder, syscall.IN_MOVED_TO|syscall.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	w.ended.Go(w.run)
	t.Cleanup(func() { w.close(t) })
	return w
}

func (w *doneWatch) run() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.queue.Read(buffer)
		if err != nil {
			return // closed
		}
		w.note(buffer[:n])
	}
}

// note reads events: struct inotify_event of inotify(7), each with a name.
func (w *doneWatch) note(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= syscall.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(events[4:]), binary.NativeEndian.Uint32(events[12:])
		end := syscall.SizeofInotifyEvent + int(length)
		file, _, _ := strings.Cut(string(events[syscall.SizeofInotifyEvent:end]), "\x00")
		if name, is := strings.CutSuffix(file, ".done"); is {
			w.names[name] = true
		}
		w.lost = w.lost || mask&syscall.IN_Q_OVERFLOW != 0
		events = events[end:]
	}
}

func (w *doneWatch) close(t *testing.T) {
	if err := w.queue.Close(); err != nil {
		t.Error(err)
	}
	w.ended.Wait()
}

// marked lists what was marked until now, of a server that has ended.
func (w *doneWatch) marked(t *testing.T) []string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost {
		t.Fatal("the kernel lost track of what was marked as archived")
	}
	var names []string
	for name := range w.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var wholeSegment = regexp.MustCompile(`^[0-9A-F]{24}$`)

// audit holds what PostgreSQL took for archived against what is stored, with
// age, zstd and pg_waldump.
func (s *soak) audit(t *testing.T) {
	t.Helper()
	if waiting, err := filepath.Glob(filepath.Join(s.cluster.DataDir, "pg_wal", "archive_status", "*.ready")); err != nil || len(waiting) > 0 {
		t.Errorf("behind an orderly shutdown there wait: %v (%v)", waiting, err)
	}
	stored := filepath.Join(s.dir, "stored")
	archived := make(map[string]string) // path of the object by file name
	for _, key := range s.download(t.Context(), t, stored) {
		name := strings.TrimSuffix(path.Base(key), ".zst.age")
		if strings.Contains(key, "/wal/") {
			archived[name] = filepath.Join(stored, key)
		}
	}
	plain := pgtest.MkdirNobody(t, s.dir, "verify-wal") // where verify looks, too
	var segments []string
	recycled := 0
	for _, name := range s.done.marked(t) {
		object, is := archived[name]
		if !is {
			t.Errorf("PostgreSQL took %s for archived, and it isn't", name)
			continue
		}
		if !wholeSegment.MatchString(name) {
			continue
		}
		segments = append(segments, name)
		content := s.open(t, object)
		here, err := os.ReadFile(filepath.Join(s.cluster.DataDir, "pg_wal", name))
		switch {
		case err != nil:
			recycled++
		case !bytes.Equal(here, content):
			t.Errorf("the archived %s isn't the server's", name)
		}
		pgtest.WriteNobody(t, filepath.Join(plain, name), string(content))
	}
	t.Logf("%d segments were archived and %d of them removed or used again", len(segments), recycled)
	if len(segments) < 20 || recycled < len(segments)/2 {
		t.Errorf("of %d archived segments %d were removed or used again: that is no soak", len(segments), recycled)
	}
	if s.cluster.HasTool("pg_waldump") && len(segments) > 0 {
		pgtest.MustRun(t, s.cluster.Tool(t.Context(), t, "pg_waldump", "--quiet", "--path", plain, segments[0], segments[len(segments)-1]))
	}
}

// open opens an object without walship.
func (s *soak) open(t *testing.T, object string) []byte {
	t.Helper()
	script := `age --decrypt --identity "$1" "$2" | zstd --decompress --stdout`
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail; "+script, "open", filepath.Join(s.dir, "identity.txt"), object)
	var said strings.Builder
	cmd.Stderr = &said
	content, err := cmd.Output()
	if err != nil {
		t.Fatalf("open %s: %v\n%s", object, err, said.String())
	}
	return content
}

// download copies every object from behind whatever stands before the server
// into a folder, and returns the keys.
func (s *soak) download(ctx context.Context, t *testing.T, folder string) (keys []string) {
	t.Helper()
	client, bucket := s.server.Client(), aws.String(s.server.Bucket)
	pages := awss3.NewListObjectsV2Paginator(client, &awss3.ListObjectsV2Input{Bucket: bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range page.Contents {
			response, err := client.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: object.Key})
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(response.Body)
			if err != nil || response.Body.Close() != nil {
				t.Fatalf("read %s: %v", *object.Key, err)
			}
			file := filepath.Join(folder, *object.Key)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, *object.Key)
		}
	}
	return keys
}

// keep saves what explains a failure: the archive, the identity that opens it,
// the server's pg_wal, and what it printed.
func (s *soak) keep(t *testing.T) string {
	folder, err := os.MkdirTemp("", "walship-soak-")
	if err != nil {
		t.Error(err)
		return ""
	}
	for _, source := range []string{filepath.Join(s.dir, "identity.txt"), filepath.Join(s.cluster.DataDir, "pg_wal"), filepath.Join(s.cluster.Dir, "log")} {
		if output, err := exec.Command("cp", "-a", source, folder).CombinedOutput(); err != nil {
			t.Errorf("keep %s: %v\n%s", source, err, output)
		}
	}
	s.download(context.Background(), t, filepath.Join(folder, "archive")) // the test's context has ended
	return folder
}
