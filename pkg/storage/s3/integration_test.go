//go:build integration

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/storagetest"
	"github.com/walship/walship/test/s3test"
)

// TestRealServers holds the store to the contract on servers of two makes
// (fault 24).
func TestRealServers(t *testing.T) {
	for _, server := range s3test.Makes() {
		t.Run(string(server), func(t *testing.T) {
			s := s3test.Start(t, server)
			s.SetEnv(t)
			var stores atomic.Int32
			open := func(t *testing.T) storage.Store {
				store, err := Open(t.Context(), s.URL(fmt.Sprintf("store/%d", stores.Add(1)))+"&part_size=5MB", "")
				if err != nil {
					t.Fatal(err)
				}
				return store
			}
			options := []storagetest.Option{storagetest.LargeBody(12 << 20), storagetest.Abandon(abandon)}
			storagetest.Run(t, open, options...)
		})
	}
}

// TestRealServersRefuse checks what real servers' refusals are taken for
// (fault 17), and that writes given up in the middle leave no upload (faults 3
// and 22).
func TestRealServersRefuse(t *testing.T) {
	for _, server := range s3test.Makes() {
		t.Run(string(server), func(t *testing.T) {
			s := s3test.Start(t, server)
			s.SetEnv(t)
			everyCall(t, "missing bucket", s.BucketURL("missing", "p"), storage.ErrNoStore)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
			everyCall(t, "wrong secret", s.URL("p"), storage.ErrDenied)
			t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
			everyCall(t, "unknown key", s.URL("p"), storage.ErrDenied)

			s.SetEnv(t)
			store, err := Open(t.Context(), s.URL("p")+"&part_size=5MB", "")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := io.MultiReader(bytes.NewReader(random(11<<20)), readerFunc(func([]byte) (int, error) {
				cancel()
				return 0, nil
			}))
			if _, err := store.Put(ctx, "given-up", body); !errors.Is(err, context.Canceled) {
				t.Errorf("Put given up: %v", err)
			}
			broken := errors.New("broken")
			body = io.MultiReader(bytes.NewReader(random(11<<20)), readerFunc(func([]byte) (int, error) { return 0, broken }))
			if _, err := store.Put(t.Context(), "broken", body); !errors.Is(err, broken) {
				t.Errorf("Put of a broken body: %v", err)
			}
			for upload, err := range store.uploads(t.Context(), "") {
				t.Errorf("an upload of %s is left, %v", aws.ToString(upload.Key), err)
			}
		})
	}
}

// everyCall checks that each method of the store at a URL fails in one way.
func everyCall(t *testing.T, name, url string, want error) {
	t.Helper()
	s, err := Open(t.Context(), url+"&part_size=5MB", "")
	if err != nil {
		t.Fatal(err)
	}
	secret := os.Getenv("AWS_SECRET_ACCESS_KEY")
	_, putErr := s.Put(t.Context(), "key", bytes.NewReader(random(100)))
	_, partsErr := s.Put(t.Context(), "key", stream(random(6<<20)))
	_, statErr := s.Stat(t.Context(), "key")
	_, _, getErr := s.Get(t.Context(), "key", 0, -1)
	_, sweepErr := s.Sweep(t.Context(), "", time.Now())
	var listErr error
	for _, listErr = range s.List(t.Context(), "", "") {
	}
	for call, err := range map[string]error{
		"Put": putErr, "Put in parts": partsErr, "Stat": statErr, "Get": getErr, "List": listErr, "Sweep": sweepErr,
		"Delete": s.Delete(t.Context(), "key"), "Delete of two": s.Delete(t.Context(), "key", "key2"),
	} {
		if !errors.Is(err, want) || strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%s: %s: %v; want %v", name, call, err, want)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
