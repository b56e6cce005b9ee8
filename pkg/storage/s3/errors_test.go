package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// TestAnswers is fault 17: what each answer to a read means, and what it never
// means.
func TestAnswers(t *testing.T) {
	redirect := func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-west-3")
		fakeError(w, http.StatusMovedPermanently, "PermanentRedirect")
	}
	page := func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<html><body>Not found<br></body></html>")
	}
	bare := func(code int) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(code) }
	}
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		want   error // nil: one that may pass
		text   string
	}{
		{"absent", status(404, "NoSuchKey"), storage.ErrNotExist, "NoSuchKey"},
		{"no bucket", status(404, "NoSuchBucket"), storage.ErrNoStore, "create the bucket"},
		{"404 of something else", page, nil, "check the endpoint"},
		{"404 without a word", bare(404), nil, "check the endpoint"},
		{"403", status(403, "AccessDenied"), storage.ErrDenied, "allowed to do"},
		{"403 without a word", bare(403), storage.ErrDenied, "HTTP 403"},
		{"401", bare(401), storage.ErrDenied, "HTTP 401"},
		{"unknown key", status(403, "InvalidAccessKeyId"), storage.ErrDenied, "InvalidAccessKeyId"},
		{"unknown key, as 404", status(404, "XAdminUserNotFound"), storage.ErrDenied, "XAdminUserNotFound"},
		{"wrong secret", status(403, "SignatureDoesNotMatch"), storage.ErrDenied, "SignatureDoesNotMatch"},
		{"expired", status(400, "ExpiredToken"), storage.ErrDenied, "ExpiredToken"},
		{"bad token", status(400, "InvalidToken"), storage.ErrDenied, "InvalidToken"},
		{"clock", status(403, "RequestTimeTooSkewed"), storage.ErrDenied, "clock"},
		{"archived", status(403, "InvalidObjectState"), storage.ErrDenied, "InvalidObjectState"},
		{"other region", redirect, storage.ErrInvalid, "set region=eu-west-3"},
		{"bad signature scope", status(400, "AuthorizationHeaderMalformed"), storage.ErrInvalid, "check region"},
		{"bad request", status(400, "InvalidArgument"), storage.ErrInvalid, "InvalidArgument"},
		{"method", status(405, "MethodNotAllowed"), storage.ErrInvalid, "MethodNotAllowed"},
		{"409", status(409, "OperationAborted"), nil, "OperationAborted"},
		{"429", status(429, "TooManyRequests"), nil, "TooManyRequests"},
		{"500", status(500, "InternalError"), nil, "InternalError"},
		{"503", bare(503), nil, "HTTP 503"},
		{"slow client", status(400, "RequestTimeout"), nil, "RequestTimeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for operation, do := range map[string]func(s *Store) error{
				"GetObject": func(s *Store) error { _, _, err := s.Get(t.Context(), "key", 0, -1); return err },
				"GetObject of a range": func(s *Store) error {
					_, _, err := s.Get(t.Context(), "key", 3, 4)
					return err
				},
				"GetObject for Stat": func(s *Store) error { _, err := s.Stat(t.Context(), "key"); return err },
				"ListObjectsV2": func(s *Store) error {
					for _, err := range s.List(t.Context(), "key", "") {
						return err
					}
					return nil
				},
				"DeleteObject":  func(s *Store) error { return s.Delete(t.Context(), "key") },
				"DeleteObjects": func(s *Store) error { return s.Delete(t.Context(), "key", "key2") },
				"ListMultipartUploads": func(s *Store) error {
					_, err := s.Sweep(t.Context(), "key", time.Now())
					return err
				},
			} {
				if strings.HasPrefix(c.name, "absent") && operation == "DeleteObject" {
					continue // as good as deleted
				}
				if c.name == "method" && operation == "DeleteObjects" {
					continue // a server that lacks it
				}
				f := newFake(t)
				s := f.open("")
				f.fault(strings.Fields(operation)[0], always, c.answer)
				err := do(s)
				if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v; want one line with %q", operation, err, c.text)
				}
				if c.want == nil && lasting(err) || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%s: %v; want it to be %v", operation, err, c.want)
				}
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.server.Close()
	_, err := s.Stat(t.Context(), "key")
	if err == nil || lasting(err) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Stat: %v; want one that may pass and says that the connection was refused", err)
	}
}

// TestContextWins checks that the error of a context is never hidden, nor
// taken for the storage's, and that it says what was wrong until then.
func TestContextWins(t *testing.T) {
	f := newFake(t)
	s := f.open("", func(l *limits) { l.firstBackoff, l.lastBackoff = time.Hour, time.Hour })
	f.refuse("GetObject", always, http.StatusServiceUnavailable, "SlowDown")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Stat(ctx, "key"); !errors.Is(err, context.DeadlineExceeded) || lasting(err) || !strings.Contains(err.Error(), "SlowDown") {
		t.Errorf("Stat: %v; want the context's error, and what the server said", err)
	}
}
