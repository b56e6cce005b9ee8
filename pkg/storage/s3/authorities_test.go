package s3

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Whether a server is trusted doesn't depend on what is read first.
func TestAuthorities(t *testing.T) {
	f := newFake(t)
	f.server.Close()
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	var handshakes atomic.Int32
	f.server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}}
	f.server.StartTLS()

	itself, other := f.server.Certificate(), unrelated(t)
	for name, c := range map[string]struct {
		file, system *x509.Certificate // nil: there is no file
		trusted      bool
		handshakes   int32 // of two connections
	}{
		"in the file":      {itself, other, true, 2},
		"in a folder":      {other, itself, true, 3},
		"without a file":   {nil, itself, true, 2},
		"nowhere":          {other, other, false, 4},
		"nowhere, no file": {nil, other, false, 2},
	} {
		a := newAuthorities(filepath.Join(t.TempDir(), "missing"))
		if c.file != nil {
			a = newAuthorities(bundleOf(t, c.file))
		}
		a.system = x509.NewCertPool()
		a.system.AddCert(c.system)
		handshakes.Store(0)
		s := f.openTrusting(a, "", func(l *limits) { l.attempts = 1 })
		for range 2 {
			_, err := s.Stat(t.Context(), "absent")
			if trusted := err == nil || !strings.Contains(err.Error(), "certificate"); trusted != c.trusted {
				t.Errorf("%s: %v", name, err)
			}
			f.server.CloseClientConnections()
		}
		if n := handshakes.Load(); n != c.handshakes {
			t.Errorf("%s: %d handshakes, want %d", name, n, c.handshakes)
		}
	}

	// A trusted authority's certificate is another host's.
	f.server.URL = strings.Replace(f.server.URL, "127.0.0.1", "localhost", 1)
	s := f.openTrusting(newAuthorities(bundleOf(t, itself)), "", func(l *limits) { l.attempts = 1 })
	if _, err := s.Stat(t.Context(), "absent"); err == nil || !strings.Contains(err.Error(), "not localhost") {
		t.Errorf("a server of another name: %v", err)
	}
}

// Fault 12: a peer that takes connections and says nothing of TLS.
func TestSilentHandshake(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f := newFake(t)
	f.server.URL = "https://" + listener.Addr().String()
	s := f.open("", func(l *limits) { l.dial, l.attempts = 100*time.Millisecond, 2 })
	_, err = s.Stat(t.Context(), "absent")
	if err == nil || lasting(err) || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("Stat: %v", err)
	}
}

// The first file that there is counts, as in crypto/x509.
func TestBundle(t *testing.T) {
	certificate := unrelated(t)
	missing := filepath.Join(t.TempDir(), "missing")
	good := bundleOf(t, certificate)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files []string
		found bool
	}{
		"the second": {[]string{missing, good, empty}, true},
		"an empty":   {[]string{missing, empty, good}, false},
		"none":       {[]string{missing}, false},
	} {
		if pool := readBundle(c.files); (pool != nil) != c.found {
			t.Errorf("%s: found %t", name, pool != nil)
		}
	}
}

func bundleOf(t *testing.T, c *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// unrelated is an authority that has signed nothing.
func unrelated(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
