package s3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// answered processes the request as usual and loses the answer.
func answered(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
	normal(&recorder{header: http.Header{}}, r)
	hangUp(w)
}

// okWithError is fault 16: the status of success over an error document.
func okWithError(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
	w.Header().Set("ETag", `"e"`)
	fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+fakeErrorDocument("InternalError"))
}

// emptyOK is success with nothing that says what succeeded.
func emptyOK(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {}

// status answers with a status and an error document.
func status(code int, name string) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { fakeError(w, code, name) }
}

// Sizes of bodies on the fake, where the second takes three parts however it
// comes.
const oneRequest, inParts = 60 << 10, 2*fakePart + 1000

// TestPutSurvives lists failures that a write gets over by itself, of bodies
// that can and can't seek (faults 11, 15, 16).
func TestPutSurvives(t *testing.T) {
	for _, c := range []struct {
		name      string
		size      int
		operation string
		fault     func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		want      error // of an object that is whole in the end
	}{
		{"503", oneRequest, "PutObject", status(503, "SlowDown"), nil},
		{"500", oneRequest, "PutObject", status(500, "InternalError"), nil},
		{"429", oneRequest, "PutObject", status(429, "TooManyRequests"), nil},
		{"408", oneRequest, "PutObject", status(408, "RequestTimeout"), nil},
		{"conflict", oneRequest, "PutObject", status(409, "ConditionalRequestConflict"), nil},
		{"folder gone", oneRequest, "PutObject", status(409, "ExistingObjectIsDirectory"), nil},
		{"changed on the way", oneRequest, "PutObject", status(400, "BadDigest"), nil},
		{"200 with an error", oneRequest, "PutObject", okWithError, nil},
		{"hang-up", oneRequest, "PutObject", func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { hangUp(w) }, nil},
		{"lost answer", oneRequest, "PutObject", answered, storage.ErrExist},

		{"503 to begin", inParts, "CreateMultipartUpload", status(503, "SlowDown"), nil},
		{"503 to a part", inParts, "UploadPart", status(503, "SlowDown"), nil},
		{"200 with an error to a part", inParts, "UploadPart", okWithError, nil},
		{"lost answer to a part", inParts, "UploadPart", answered, nil},
		{"503 to complete", inParts, "CompleteMultipartUpload", status(503, "SlowDown"), nil},
		{"200 with an error to complete", inParts, "CompleteMultipartUpload", okWithError, nil},
		{"conflict at the end", inParts, "CompleteMultipartUpload", status(409, "ConditionalRequestConflict"), nil},
	} {
		for kind, body := range bodies {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				f := newFake(t)
				s := f.open("")
				f.fault(c.operation, 2, c.fault)
				data := random(c.size)
				info, err := s.Put(t.Context(), "key", body(data))
				if !errors.Is(err, c.want) {
					t.Fatalf("Put: %v; want %v", err, c.want)
				}
				if err == nil && (info.Size != int64(c.size) || info.ETag == "" || info.ServerTime.IsZero()) {
					t.Errorf("Put describes %+v", info)
				}
				if got, _ := f.content("key"); !bytes.Equal(got, data) {
					t.Errorf("the bucket holds %d other bytes", len(got))
				}
				if n := f.unfinished(); n != 0 {
					t.Errorf("%d unfinished uploads are left", n)
				}
			})
		}
	}
}

var bodies = map[string]func([]byte) io.Reader{
	"seekable": func(data []byte) io.Reader { return bytes.NewReader(data) },
	"stream":   stream,
}

// TestPutFails lists failures that stay, what the caller is told, and that
// nothing is left behind (fault 22).
func TestPutFails(t *testing.T) {
	for _, c := range []struct {
		name      string
		size      int
		operation string
		fault     func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		want      error // nil: one that may pass
		text      string
	}{
		{"503", oneRequest, "PutObject", status(503, "SlowDown"), nil, "SlowDown: The server said so. (HTTP 503, request request-1)"},
		{"conflict", oneRequest, "PutObject", status(409, "ConditionalRequestConflict"), nil, "ConditionalRequestConflict"},
		{"200 with an error", oneRequest, "PutObject", okWithError, nil, "InternalError"},
		{"200 with nothing", oneRequest, "PutObject", emptyOK, nil, "no ETag"},
		{"taken", oneRequest, "PutObject", status(412, "PreconditionFailed"), storage.ErrExist, "the storage keeps what it has"},
		{"refused", oneRequest, "PutObject", status(403, "AccessDenied"), storage.ErrDenied, "check the credentials"},
		{"no bucket", oneRequest, "PutObject", status(404, "NoSuchBucket"), storage.ErrNoStore, "create the bucket"},
		{"not S3", oneRequest, "PutObject", status(404, "NotFound"), nil, "check the endpoint"},
		{"too large", oneRequest, "PutObject", status(400, "EntityTooLarge"), storage.ErrInvalid, "EntityTooLarge"},
		{"not implemented", oneRequest, "PutObject", status(501, "NotImplemented"), storage.ErrInvalid, "NotImplemented"},

		{"begin refused", inParts, "CreateMultipartUpload", status(403, "AccessDenied"), storage.ErrDenied, "begin the upload of"},
		{"begun with nothing", inParts, "CreateMultipartUpload", emptyOK, nil, "no upload id"},
		{"part refused", inParts, "UploadPart", status(403, "AccessDenied"), storage.ErrDenied, "put part 1 of"},
		{"part with nothing", inParts, "UploadPart", emptyOK, nil, "no ETag"},
		{"503 to a part", inParts, "UploadPart", status(503, "SlowDown"), nil, "SlowDown"},
		{"taken at the end", inParts, "CompleteMultipartUpload", status(412, "PreconditionFailed"), storage.ErrExist, "keeps what it has"},
		{"200 with an error at the end", inParts, "CompleteMultipartUpload", okWithError, nil, "InternalError"},
		{"200 with nothing at the end", inParts, "CompleteMultipartUpload", emptyOK, nil, "no ETag"},
		{"conflict at the end", inParts, "CompleteMultipartUpload", status(409, "ConditionalRequestConflict"), nil, "ConditionalRequestConflict"},
		{"upload gone", inParts, "CompleteMultipartUpload", status(404, "NoSuchUpload"), nil, "may have gone through"},
	} {
		for kind, body := range bodies {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				f := newFake(t)
				s := f.open("")
				f.fault(c.operation, always, c.fault)
				_, err := s.Put(t.Context(), "key", body(random(c.size)))
				switch {
				case err == nil, !strings.Contains(fmt.Sprint(err), c.text):
					t.Fatalf("Put: %v; want an error with %q", err, c.text)
				case c.want == nil && lasting(err), c.want != nil && !errors.Is(err, c.want):
					t.Errorf("Put: %v; want it to be %v", err, c.want)
				case strings.Contains(err.Error(), "\n"), !strings.Contains(err.Error(), "s3://bucket/some/prefix/key"):
					t.Errorf("Put: %v; want one line that names the object", err)
				}
				if _, there := f.content("key"); there {
					t.Error("the object is there")
				}
				if n := f.unfinished(); n != 0 {
					t.Errorf("%d unfinished uploads are left", n)
				}
			})
		}
	}
}

// TestLostAnswerAtTheEnd is fault 15 for a multipart upload: the object is
// there, the answer that says so is lost, and the upload is gone.
func TestLostAnswerAtTheEnd(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.fault("CompleteMultipartUpload", 1, answered)
	data := random(inParts)
	_, err := s.Put(t.Context(), "key", stream(data))
	if err == nil || lasting(err) || !strings.Contains(err.Error(), "may have gone through") {
		t.Fatalf("Put: %v; want an unknown outcome", err)
	}
	if _, err := s.Put(t.Context(), "key", stream(data)); !errors.Is(err, storage.ErrExist) {
		t.Fatalf("Put again: %v; want ErrExist", err)
	}
	if got, err := read(t, s, "key", 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the object holds %d other bytes, %v", len(got), err)
	}
	if n := f.unfinished(); n != 0 {
		t.Errorf("%d unfinished uploads are left", n)
	}
}

// TestConflictRestartsSeekableUpload is fault 16: a conflict that stays with
// an upload is answered with a new upload, if the body can be read again.
func TestConflictRestartsSeekableUpload(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.refuse("CompleteMultipartUpload", s.limits.partAttempts, http.StatusConflict, "ConditionalRequestConflict")
	data := random(inParts)
	if _, err := s.Put(t.Context(), "key", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.content("key"); !bytes.Equal(got, data) {
		t.Errorf("the bucket holds %d other bytes", len(got))
	}
	if n := len(f.received("CreateMultipartUpload")); n != 2 {
		t.Errorf("%d uploads were begun; want 2", n)
	}
}

// TestPartsAreTriedLonger counts the attempts of what nobody else can repeat.
func TestPartsAreTriedLonger(t *testing.T) {
	f := newFake(t)
	s := f.open("", func(l *limits) { l.attempts, l.partAttempts = 2, 7 })
	f.refuse("UploadPart", 6, http.StatusServiceUnavailable, "SlowDown")
	f.refuse("CompleteMultipartUpload", 6, http.StatusServiceUnavailable, "SlowDown")
	if _, err := s.Put(t.Context(), "key", stream(random(inParts))); err != nil {
		t.Fatal(err)
	}
	f.refuse("PutObject", 2, http.StatusServiceUnavailable, "SlowDown")
	if _, err := s.Put(t.Context(), "other", stream(random(10))); err == nil {
		t.Error("a single request was tried more than twice")
	}
}

// TestPutIsGivenUp is faults 3 and 22: a write whose context ends in any phase
// stops soon, and leaves no upload.
func TestPutIsGivenUp(t *testing.T) {
	for _, operation := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
		t.Run(operation, func(t *testing.T) {
			f := newFake(t)
			s := f.open("")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f.fault(operation, 1, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				cancel()
				if operation != "CreateMultipartUpload" {
					<-r.Context().Done()
					return
				}
				// The server is about to begin an upload that
				// nobody would know of.
				select {
				case <-r.Context().Done():
				case <-time.After(100 * time.Millisecond):
				}
				normal(w, r)
			})
			size := inParts
			if operation == "PutObject" {
				size = oneRequest
			}
			started := time.Now()
			_, err := s.Put(ctx, "key", stream(random(size)))
			if took := time.Since(started); !errors.Is(err, context.Canceled) || took > 4*time.Second {
				t.Errorf("Put: %v after %v; want the context's error within 4 s", err, took)
			}
			if _, there := f.content("key"); there {
				t.Error("the object is there")
			}
			if n := f.unfinished(); n != 0 {
				t.Errorf("%d unfinished uploads are left", n)
			}
			if begun := f.begun; begun == 0 && operation != "PutObject" {
				t.Error("no upload was begun")
			}
		})
	}
}

// TestAbortFails checks that an upload that couldn't be removed is mentioned,
// and doesn't hide why the write failed.
func TestAbortFails(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.refuse("UploadPart", always, http.StatusForbidden, "AccessDenied")
	f.refuse("AbortMultipartUpload", always, http.StatusServiceUnavailable, "SlowDown")
	_, err := s.Put(t.Context(), "key", stream(random(inParts)))
	if !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), "unfinished upload is still there") {
		t.Errorf("Put: %v; want ErrDenied and a word on the upload", err)
	}
}

// TestPutOfFile checks that a file is written from where it stands, and stays
// open.
func TestPutOfFile(t *testing.T) {
	data := random(3 << 20)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(1000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	s := f.open("", func(l *limits) { l.singlePut = 3 << 20 })
	f.refuse("PutObject", 1, http.StatusServiceUnavailable, "SlowDown")
	if _, err := s.Put(t.Context(), "key", file); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.content("key"); !bytes.Equal(got, data[1000:]) {
		t.Errorf("the bucket holds %d other bytes", len(got))
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Errorf("the file after Put: %v", err)
	}
}

// TestPutOfShrunkenFile is a body that ends before the length it had.
func TestPutOfShrunkenFile(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	body := io.NewSectionReader(bytes.NewReader(random(100)), 0, 200)
	if _, err := s.Put(t.Context(), "key", body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Put: %v; want io.ErrUnexpectedEOF", err)
	}
	if _, there := f.content("key"); there {
		t.Error("the object is there")
	}
}

// TestPutOfPipe is a body whose type can seek, and which can't.
func TestPutOfPipe(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	go func() {
		_, _ = to.WriteString("through a pipe")
		_ = to.Close()
	}()
	f := newFake(t)
	if _, err := f.open("").Put(t.Context(), "key", from); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.content("key"); string(got) != "through a pipe" {
		t.Errorf("the bucket holds %q", got)
	}
}

// TestStoredAsTheURLSays looks at the headers that options of the URL become.
func TestStoredAsTheURLSays(t *testing.T) {
	f := newFake(t)
	s := f.open("&storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key_id=alias/key")
	put(t, s, "small", random(10))
	if _, err := s.Put(t.Context(), "large", stream(random(inParts))); err != nil {
		t.Fatal(err)
	}
	for _, operation := range []string{"PutObject", "CreateMultipartUpload"} {
		for _, request := range f.received(operation) {
			for header, want := range map[string]string{
				"X-Amz-Storage-Class":                         "STANDARD_IA",
				"X-Amz-Server-Side-Encryption":                "aws:kms",
				"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/key",
			} {
				if got := request.header.Get(header); got != want {
					t.Errorf("%s has %s: %q; want %q", operation, header, got, want)
				}
			}
		}
	}
}

// TestRefusedEarly is a server that refuses a write without reading the body,
// and closes the connection on what still comes.
func TestRefusedEarly(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for line := ""; line != "\r\n"; {
					if line, err = in.ReadString('\n'); err != nil {
						return
					}
				}
				document := fakeErrorDocument("PreconditionFailed")
				fmt.Fprintf(conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 412 Precondition Failed\r\nContent-Length: %d\r\n\r\n%s", len(document), document)
			}()
		}
	}()
	f := newFake(t)
	f.server.URL = "http://" + listener.Addr().String()
	s := f.open("", func(l *limits) { l.attempts, l.singlePut = 1, 32<<20 })
	data := random(32 << 20)
	for range 20 {
		if _, err := s.Put(t.Context(), "key", bytes.NewReader(data)); !errors.Is(err, storage.ErrExist) {
			t.Fatalf("Put: %v; want ErrExist", err)
		}
	}
}
