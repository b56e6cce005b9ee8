package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is an S3 server with one bucket in memory, which holds every request to
// what the package promises, and breaks what a test tells it to.
type fake struct {
	t      *testing.T
	server *httptest.Server

	mu       sync.Mutex
	objects  map[string]fakeObject
	uploads  map[string]*fakeUpload
	begun    int
	requests []fakeRequest
	faults   []*fault
}

type fakeObject struct {
	data     []byte
	etag     string
	modified time.Time
}

type fakeUpload struct {
	key   string
	begun time.Time
	parts map[int][]byte
}

type fakeRequest struct {
	operation string
	header    http.Header
	client    string // address: one for each connection
}

// fault replaces the server's answer to a number of requests of one operation.
type fault struct {
	operation string
	left      int
	fired     int
	answer    func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc)
}

const always = 1 << 30

func newFake(t *testing.T) *fake {
	f := &fake{t: t, objects: map[string]fakeObject{}, uploads: map[string]*fakeUpload{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
		for _, fault := range f.faults {
			if fault.fired == 0 {
				t.Errorf("the fault of %s never fired", fault.operation)
			}
		}
	})
	return f
}

// fakePart is the size of parts on the fake, which takes smaller ones than S3.
const fakePart = 64 << 10

// open opens the store on the fake, with limits that make a failure quick.
func (f *fake) open(options string, change ...func(*limits)) *Store {
	f.t.Helper()
	return f.openTrusting(newAuthorities(""), options, change...)
}

func (f *fake) openTrusting(trusted *authorities, options string, change ...func(*limits)) *Store {
	f.t.Helper()
	l := defaultLimits()
	l.firstBackoff, l.lastBackoff = time.Millisecond, 4*time.Millisecond
	l.attempts, l.partAttempts = 3, 3
	l.singlePut = 128 << 10
	for _, c := range change {
		c(&l)
	}
	url := "s3://bucket/some/prefix?region=us-east-1&path_style=true&endpoint=" + f.server.URL + options
	s, err := open(f.t.Context(), url, trusted, l)
	if err != nil {
		f.t.Fatal(err)
	}
	s.settings.partSize = fakePart
	return s
}

func (f *fake) fault(operation string, times int, answer func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault{operation: operation, left: times, answer: answer})
}

// refuse makes the server answer with an error document.
func (f *fake) refuse(operation string, times, status int, code string) {
	f.fault(operation, times, func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		fakeError(w, status, code)
	})
}

// received lists the requests of an operation so far.
func (f *fake) received(operation string) []fakeRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.requests), func(r fakeRequest) bool { return r.operation != operation })
}

func (f *fake) unfinished() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

// content is what the bucket holds for a key of the store.
func (f *fake) content(key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	object, ok := f.objects["some/prefix/"+key]
	return object.data, ok
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := fakeOperation(r)
	f.hold(operation, r)
	f.mu.Lock()
	f.requests = append(f.requests, fakeRequest{operation, r.Header.Clone(), r.RemoteAddr})
	var broken *fault
	for _, fault := range f.faults {
		if fault.operation == operation && fault.left > 0 {
			broken = fault
			fault.left--
			fault.fired++
			break
		}
	}
	f.mu.Unlock()
	normal := func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, operation) }
	if broken != nil {
		broken.answer(w, r, normal)
		return
	}
	normal(w, r)
}

func fakeOperation(r *http.Request) string {
	query := r.URL.Query()
	inBucket := strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0
	switch {
	case inBucket && r.Method == http.MethodGet && query.Has("uploads"):
		return "ListMultipartUploads"
	case inBucket && r.Method == http.MethodGet:
		return "ListObjectsV2"
	case inBucket && r.Method == http.MethodPost && query.Has("delete"):
		return "DeleteObjects"
	case r.Method == http.MethodPut && query.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodPut:
		return "PutObject"
	case r.Method == http.MethodPost && query.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && query.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case r.Method == http.MethodGet:
		return "GetObject"
	}
	return r.Method + " " + r.URL.String()
}

// hold checks what every request promises.
func (f *fake) hold(operation string, r *http.Request) {
	switch operation {
	case "PutObject", "CompleteMultipartUpload":
		if r.Header.Get("If-None-Match") != "*" {
			f.t.Errorf("%s without If-None-Match: *", operation)
		}
	}
	switch operation {
	case "PutObject", "UploadPart":
		if r.Header.Get("X-Amz-Checksum-Crc32c") == "" || r.ContentLength < 0 {
			f.t.Errorf("%s without its checksum and length in headers: %v", operation, r.Header)
		}
	}
	if other := r.Header.Get("X-Amz-Sdk-Checksum-Algorithm"); other != "" && operation != "DeleteObjects" {
		f.t.Errorf("%s announces a checksum of the SDK's own, %s", operation, other)
	}
	if r.Header.Get("X-Amz-Trailer") != "" || strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") || len(r.TransferEncoding) > 0 {
		f.t.Errorf("%s is sent in chunks or with a trailer: %v", operation, r.Header)
	}
	if !strings.Contains(r.UserAgent(), "walship") {
		f.t.Errorf("%s: the user agent %q doesn't name walship", operation, r.UserAgent())
	}
	if !strings.HasPrefix(r.URL.Path, "/bucket") {
		f.t.Errorf("%s of %s, outside the bucket", operation, r.URL.Path)
	}
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, operation string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	if want := r.Header.Get("X-Amz-Checksum-Crc32c"); want != "" && want != fakeChecksum(body) {
		fakeError(w, http.StatusBadRequest, "BadDigest")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/bucket/")
	query := r.URL.Query()
	upload := f.uploads[query.Get("uploadId")]
	if query.Has("uploadId") && upload == nil {
		fakeError(w, http.StatusNotFound, "NoSuchUpload")
		return
	}
	switch operation {
	case "PutObject":
		f.store(w, key, body)
	case "GetObject", "HeadObject":
		f.get(w, r, key)
	case "DeleteObject":
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case "DeleteObjects":
		f.deleteObjects(w, body)
	case "ListObjectsV2":
		f.list(w, query.Get("prefix"), max(query.Get("start-after"), query.Get("continuation-token")), query.Get("max-keys"))
	case "CreateMultipartUpload":
		f.begun++
		id := fmt.Sprintf("upload-%d", f.begun)
		f.uploads[id] = &fakeUpload{key: key, begun: time.Now(), parts: map[int][]byte{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case "UploadPart":
		number, err := strconv.Atoi(query.Get("partNumber"))
		if err != nil {
			f.t.Errorf("part number: %v", err)
		}
		upload.parts[number] = body
		w.Header().Set("ETag", fakeETag(body))
	case "CompleteMultipartUpload":
		var data []byte
		for _, number := range slices.Sorted(maps.Keys(upload.parts)) {
			data = append(data, upload.parts[number]...)
		}
		if size := r.Header.Get("X-Amz-Mp-Object-Size"); size != strconv.Itoa(len(data)) {
			f.t.Errorf("an upload of %d bytes is completed as one of %s", len(data), size)
		}
		if f.store(w, key, data) {
			delete(f.uploads, query.Get("uploadId"))
			fmt.Fprintf(w, "<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>", fakeETag(data))
		}
	case "AbortMultipartUpload":
		delete(f.uploads, query.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	case "ListMultipartUploads":
		f.listUploads(w, query.Get("prefix"))
	default:
		f.t.Errorf("unexpected request %s", operation)
	}
}

func (f *fake) store(w http.ResponseWriter, key string, data []byte) bool {
	if _, taken := f.objects[key]; taken {
		fakeError(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return false
	}
	f.objects[key] = fakeObject{data, fakeETag(data), time.Now()}
	w.Header().Set("ETag", fakeETag(data))
	return true
}

func (f *fake) get(w http.ResponseWriter, r *http.Request, key string) {
	object, ok := f.objects[key]
	if !ok {
		fakeError(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("ETag", object.etag)
	if r.Header.Get("Range") == "" {
		w.Header().Set("X-Amz-Checksum-Crc32c", fakeChecksum(object.data))
	}
	if r.Header.Get("Range") != "" && len(object.data) == 0 {
		fakeError(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		return
	}
	http.ServeContent(w, r, "", object.modified, bytes.NewReader(object.data))
}

func (f *fake) list(w http.ResponseWriter, prefix, after, most string) {
	page, err := strconv.Atoi(most)
	if err != nil {
		f.t.Errorf("max-keys: %v", err)
	}
	var out strings.Builder
	count, last, truncated := 0, "", false
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, prefix) || key <= after {
			continue
		}
		if count == page {
			truncated = true
			break
		}
		count, last = count+1, key
		out.WriteString(fakeContents(key, f.objects[key]))
	}
	token := ""
	if truncated {
		token = "<NextContinuationToken>" + last + "</NextContinuationToken>"
	}
	fmt.Fprintf(w, "<ListBucketResult><Name>bucket</Name><IsTruncated>%t</IsTruncated>%s%s</ListBucketResult>", truncated, token, out.String())
}

func fakeContents(key string, object fakeObject) string {
	return fmt.Sprintf("<Contents><Key>%s</Key><Size>%d</Size><ETag>%s</ETag><LastModified>%s</LastModified></Contents>",
		key, len(object.data), object.etag, object.modified.UTC().Format("2006-01-02T15:04:05.000Z"))
}

func (f *fake) listUploads(w http.ResponseWriter, prefix string) {
	var out strings.Builder
	for id, upload := range f.uploads {
		if strings.HasPrefix(upload.key, prefix) {
			fmt.Fprintf(&out, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>",
				upload.key, id, upload.begun.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	fmt.Fprintf(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>%s</ListMultipartUploadsResult>", out.String())
}

func (f *fake) deleteObjects(w http.ResponseWriter, body []byte) {
	var request struct {
		Objects []struct{ Key string } `xml:"Object"`
	}
	if err := xml.Unmarshal(body, &request); err != nil {
		f.t.Errorf("read a DeleteObjects request: %v", err)
	}
	var out strings.Builder
	for _, object := range request.Objects {
		delete(f.objects, object.Key)
		fmt.Fprintf(&out, "<Deleted><Key>%s</Key></Deleted>", object.Key)
	}
	fmt.Fprintf(w, "<DeleteResult>%s</DeleteResult>", out.String())
}

func fakeError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Amz-Request-Id", "request-1")
	w.WriteHeader(status)
	fmt.Fprint(w, fakeErrorDocument(code))
}

func fakeErrorDocument(code string) string {
	return "<Error><Code>" + code + "</Code><Message>The server said so.</Message></Error>"
}

func fakeETag(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func fakeChecksum(data []byte) string {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// hangUp ends a connection without another byte.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
