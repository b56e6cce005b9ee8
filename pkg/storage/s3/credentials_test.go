package s3

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// TestNoCredentials checks that a machine without credentials says so soon,
// even if EC2's metadata service swallows what is sent to it.
func TestNoCredentials(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	for _, disabled := range []string{"true", "false"} {
		f := newFake(t)
		withoutKeys(t)
		t.Setenv("AWS_EC2_METADATA_DISABLED", disabled)
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+hole.Addr().String())
		s := f.open("", func(l *limits) { *l = defaultLimits() })
		started := time.Now()
		_, err := s.Stat(t.Context(), "key")
		if took := time.Since(started); !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") || took > 4*time.Second {
			t.Errorf("Stat without credentials: %v after %v; want ErrDenied that says what to set, soon", err, took)
		}
		if len(f.requests) != 0 {
			t.Error("a request was sent unsigned")
		}
	}
}

// roleService is a credential service on a loopback port, such as a container
// gets its role from.
func roleService(t *testing.T, answer func(n int32) (status int, accessKey string)) {
	t.Helper()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status, key := answer(calls.Add(1))
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":%q}`,
			key, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(server.Close)
	withoutKeys(t)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL)
}

// TestExpiredCredentialsAreRenewed is fault 21.
func TestExpiredCredentialsAreRenewed(t *testing.T) {
	f := newFake(t)
	roleService(t, func(n int32) (int, string) { return 200, fmt.Sprintf("key-%d", n) })
	s := f.open("")
	f.fault("PutObject", always, func(w http.ResponseWriter, r *http.Request, normal http.HandlerFunc) {
		if strings.Contains(r.Header.Get("Authorization"), "Credential=key-1/") {
			fakeError(w, http.StatusBadRequest, "ExpiredToken")
			return
		}
		normal(w, r)
	})
	put(t, s, "key", random(100))
	requests := f.received("PutObject")
	if n := len(requests); n != 2 || !strings.Contains(requests[n-1].header.Get("Authorization"), "Credential=key-2/") {
		t.Errorf("%d requests, the last one with %v; want the second one with new credentials", n, requests[n-1].header.Get("Authorization"))
	}
}

// TestCredentialServiceFails tells a service that refuses from one that may
// come back.
func TestCredentialServiceFails(t *testing.T) {
	for _, c := range []struct {
		status int
		want   error
	}{{http.StatusForbidden, storage.ErrDenied}, {http.StatusInternalServerError, nil}} {
		f := newFake(t)
		roleService(t, func(int32) (int, string) { return c.status, "" })
		s := f.open("")
		_, err := s.Stat(t.Context(), "key")
		if err == nil || c.want == nil && lasting(err) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("Stat with a credential service that answers %d: %v; want %v", c.status, err, c.want)
		}
	}
}

// TestTLS writes through TLS, where the SDK would send checksums behind the
// body, and trusts what AWS_CA_BUNDLE says. Large providers' servers offer
// HTTP/2 too.
func TestTLS(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2 too": true} {
		t.Run(name, func(t *testing.T) { testTLS(t, http2) })
	}
}

func testTLS(t *testing.T, http2 bool) {
	f := newFake(t)
	f.server.Close()
	f.server = httptest.NewUnstartedServer(f)
	f.server.EnableHTTP2 = http2
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.server.StartTLS()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	if err := os.WriteFile(bundle, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open("").Stat(t.Context(), "key"); err == nil || lasting(err) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Stat on a server of an unknown authority: %v", err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	s := f.open("")
	put(t, s, "key", random(100))
	if _, err := s.Put(t.Context(), "parts", stream(random(inParts))); err != nil {
		t.Error(err)
	}
	if got, err := read(t, s, "parts", 0, -1); err != nil || len(got) != inParts {
		t.Errorf("Get: %d bytes, %v", len(got), err)
	}
}
