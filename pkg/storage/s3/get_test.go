package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

func random(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(data) // never fails
	return data
}

func put(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s *Store, key string, offset, length int64) ([]byte, error) {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	return data, err
}

// cut lets the first bytes of a response through and then drops the
// connection.
func cut(after int) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
	return func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
		normal(&cutWriter{w, after}, r)
		_ = http.NewResponseController(w).Flush()
		hangUp(w)
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	c.left -= n
	if err == nil {
		n = len(p)
	}
	return n, err
}

// TestGetResumes is fault 13: a body cut anywhere is resumed, of the same
// object, and never short.
func TestGetResumes(t *testing.T) {
	const size = 1 << 20
	data := random(size)
	var cuts []int
	for _, n := range []int{0, 1, 64 << 10, 128 << 10, 15 * 64 << 10} {
		cuts = append(cuts, max(n-1, 0), n, n+1)
	}
	cuts = append(cuts, size-1)
	for _, after := range cuts {
		t.Run(strconv.Itoa(after), func(t *testing.T) {
			for _, c := range []struct{ offset, length int64 }{{0, -1}, {0, size}, {3, -1}, {size / 2, size / 2}} {
				end := int64(size)
				if c.length >= 0 {
					end = c.offset + c.length
				}
				if int64(after) >= end-c.offset {
					continue // nothing would be cut
				}
				f := newFake(t)
				s := f.open("")
				put(t, s, "key", data)
				f.fault("GetObject", 1, cut(after))
				f.refuse("GetObject", 1, http.StatusServiceUnavailable, "SlowDown") // the resuming request meets this
				got, err := read(t, s, "key", c.offset, c.length)
				if err != nil || !bytes.Equal(got, data[c.offset:end]) {
					t.Fatalf("Get(%d, %d) cut after %d bytes: %d bytes, %v; want %d", c.offset, c.length, after, len(got), err, end-c.offset)
				}
				requests := f.received("GetObject")
				if len(requests) != 3 {
					t.Fatalf("%d requests; want the first, one refused and one that resumes", len(requests))
				}
				for _, resumed := range requests[1:] {
					if got, want := resumed.header.Get("If-Match"), fakeETag(data); got != want {
						t.Errorf("resumed with If-Match %s; want %s", got, want)
					}
					if got, want := resumed.header.Get("Range"), fmt.Sprintf("bytes=%d-%d", c.offset+int64(after), end-1); got != want {
						t.Errorf("resumed with Range %s; want %s", got, want)
					}
				}
			}
		})
	}
}

// TestGetGivesUp lists the reads that can't be completed: each ends with an
// error, never with a short body, and never as absent.
func TestGetGivesUp(t *testing.T) {
	data := random(300 << 10)
	for _, c := range []struct {
		name  string
		want  string
		spoil func(f *fake)
	}{
		{"cut every time", "again in 5 more attempts", func(f *fake) {
			f.fault("GetObject", always, cut(100))
		}},
		{"replaced", "another object", func(f *fake) {
			f.fault("GetObject", 1, cut(1000))
			f.fault("GetObject", 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				f.mu.Lock()
				f.objects["some/prefix/key"] = fakeObject{data[1:], fakeETag(data[1:]), time.Now()}
				f.mu.Unlock()
				normal(w, r)
			})
		}},
		{"deleted", "it was deleted", func(f *fake) {
			f.fault("GetObject", 1, cut(1000))
			f.refuse("GetObject", 1, http.StatusNotFound, "NoSuchKey")
		}},
		{"other range", "answered with", func(f *fake) {
			f.fault("GetObject", 1, cut(1000))
			f.fault("GetObject", 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				r.Header.Set("Range", "bytes=999-")
				normal(w, r)
			})
		}},
		{"range ignored", "no usable range", func(f *fake) {
			f.fault("GetObject", 1, cut(1000))
			f.fault("GetObject", 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				r.Header.Del("Range")
				normal(w, r)
			})
		}},
		{"flipped byte", "checksum", func(f *fake) {
			f.fault("GetObject", 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				recorded := &recorder{header: w.Header()}
				normal(recorded, r)
				recorded.body.Bytes()[1234] ^= 1
				_, _ = w.Write(recorded.body.Bytes())
			})
		}},
		{"no ETag", "no ETag", func(f *fake) {
			f.fault("GetObject", 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				recorded := &recorder{header: w.Header()}
				normal(recorded, r)
				w.Header().Del("ETag")
				_, _ = w.Write(recorded.body.Bytes()[:1000])
				_ = http.NewResponseController(w).Flush()
				hangUp(w)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			s := f.open("")
			put(t, s, "key", data)
			c.spoil(f)
			got, err := read(t, s, "key", 0, -1)
			if err == nil || errors.Is(err, storage.ErrNotExist) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Get: %d bytes, %v; want an error with %q that isn't ErrNotExist", len(got), err, c.want)
			}
			if c.name != "flipped byte" && !bytes.Equal(got, data[:len(got)]) {
				t.Error("the bytes delivered before the error aren't the object's")
			}
		})
	}
}

type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// TestProgressRenewsResumes reads an object through a server that drops each
// connection after a while, many more times than in a row would be allowed.
func TestProgressRenewsResumes(t *testing.T) {
	data := random(3*maxResumes*goodResume + 17)
	f := newFake(t)
	s := f.open("")
	put(t, s, "key", data)
	f.fault("GetObject", always, cut(goodResume+1))
	got, err := read(t, s, "key", 0, -1)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("Get: %d bytes, %v; want %d", len(got), err, len(data))
	}
}

// silent never answers.
func silent(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
	_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the client leave
	<-r.Context().Done()
}

// stopping answers with the beginning of a body, and never goes on.
func stopping(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
	normal(&cutWriter{w, 1000}, r)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// TestSilence is faults 8 and 12: whatever stops moving ends, without a
// deadline of the caller's, and is tried again.
func TestSilence(t *testing.T) {
	data := random(oneRequest)
	for _, c := range []struct {
		name      string
		operation string
		silence   func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		do        func(ctx context.Context, s *Store) error
	}{
		{"no answer to Stat", "GetObject", silent, func(ctx context.Context, s *Store) error {
			_, err := s.Stat(ctx, "key")
			return err
		}},
		{"no answer to Put", "PutObject", silent, func(ctx context.Context, s *Store) error {
			_, err := s.Put(ctx, "new", bytes.NewReader(data))
			return err
		}},
		{"no answer to a part", "UploadPart", silent, func(ctx context.Context, s *Store) error {
			_, err := s.Put(ctx, "parts", stream(random(inParts)))
			return err
		}},
		{"no answer to the end of an upload", "CompleteMultipartUpload", silent, func(ctx context.Context, s *Store) error {
			_, err := s.Put(ctx, "parts", stream(random(inParts)))
			return err
		}},
		{"no answer to List", "ListObjectsV2", silent, func(ctx context.Context, s *Store) error {
			for _, err := range s.List(ctx, "", "") {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"no answer to Delete", "DeleteObject", silent, func(ctx context.Context, s *Store) error {
			return s.Delete(ctx, "key")
		}},
		{"a body that stops", "GetObject", stopping, func(ctx context.Context, s *Store) error {
			r, _, err := s.Get(ctx, "key", 0, -1)
			if err != nil {
				return err
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err == nil && !bytes.Equal(got, data) {
				return errors.New("other bytes were read")
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, times := range []int{1, always} {
				f := newFake(t)
				put(t, f.open(""), "key", data)
				stall := time.Second // enough for a busy machine to go on after one silence
				if times == always {
					stall = 300 * time.Millisecond
				}
				s := f.open("", func(l *limits) {
					l.stall, l.completeStall = stall, stall
					l.attempts, l.partAttempts = 2, 2
				})
				f.fault(c.operation, times, c.silence)
				started := time.Now()
				err := c.do(t.Context(), s)
				if took := time.Since(started); took > 20*time.Second {
					t.Errorf("it took %v", took)
				}
				switch {
				case times == 1 && err != nil:
					t.Errorf("after one silence: %v", err)
				case times == always && (err == nil || lasting(err)):
					t.Errorf("after silence for ever: %v; want an error that may pass", err)
				}
				if n := f.unfinished(); n != 0 {
					t.Errorf("%d unfinished uploads are left", n)
				}
			}
		})
	}
}

// TestSilenceEndsWithContext is fault 8: the caller's deadline holds.
func TestSilenceEndsWithContext(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.fault("GetObject", always, silent)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := s.Stat(ctx, "key")
	if took := time.Since(started); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("Stat: %v after %v; want the context's error at once", err, took)
	}
}

// TestPeerThatTakesNothing is fault 12 for a peer that accepts connections and
// reads nothing of a long request.
func TestPeerThatTakesNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f := newFake(t)
	f.server.URL = "http://" + listener.Addr().String()
	s := f.open("", func(l *limits) { l.stall, l.attempts = 200*time.Millisecond, 2 })
	started := time.Now()
	_, err = s.Put(t.Context(), "key", bytes.NewReader(make([]byte, 32<<20)))
	if took := time.Since(started); err == nil || lasting(err) || took > 20*time.Second {
		t.Errorf("Put: %v after %v; want an error that may pass, soon", err, took)
	}
}

// lasting reports whether an error says that trying again is of no use.
func lasting(err error) bool {
	for _, sentinel := range []error{storage.ErrExist, storage.ErrNotExist, storage.ErrDenied, storage.ErrNoStore, storage.ErrInvalid} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// stream hides that a reader can seek.
func stream(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }
