//go:build bench

package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

// front stands before an S3 server that speaks HTTP only. It answers on two
// ports, with TLS and without, and counts the requests.
type front struct {
	plain, secure string // host:port
	bundle        string // file of certificates to trust, nobody's
	count         atomic.Int64
}

// startFront starts it before the server at the URL, until the end of the test.
func startFront(t *testing.T, server string) *front {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	f := new(front)
	proxy := &httputil.ReverseProxy{
		// The host that the client has signed stays.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		BufferPool: new(buffers),
		ErrorLog:   log.New(io.Discard, "", 0), // clients that are gone
	}
	certificate, pemText := selfSigned(t)
	f.bundle = writeBundle(t, pemText)
	version := new(http.Protocols)
	version.SetHTTP1(true) // what S3 itself speaks
	serve := func(config *tls.Config) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				f.count.Add(1)
				proxy.ServeHTTP(w, r)
			}),
			TLSConfig: config,
			Protocols: version,
			ErrorLog:  log.New(io.Discard, "", 0),
		}
		ended := make(chan error, 1)
		go func() {
			if config == nil {
				ended <- s.Serve(listener)
				return
			}
			ended <- s.ServeTLS(listener, "", "")
		}()
		t.Cleanup(func() {
			_ = s.Close() // the outcome is that of Serve
			if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("serve before the S3 server: %v", err)
			}
		})
		return listener.Addr().String()
	}
	f.plain = serve(nil)
	f.secure = serve(&tls.Config{Certificates: []tls.Certificate{certificate}})
	return f
}

// requests returns how many requests f makes.
func (f *front) requests(do func()) int64 {
	before := f.count.Load()
	do()
	return f.count.Load() - before
}

// selfSigned makes a certificate of the loopback address.
func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "walship bench"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeBundle adds a certificate to those that the machine trusts, so that
// loading them takes what it takes elsewhere.
func writeBundle(t *testing.T, certificate []byte) string {
	t.Helper()
	machine, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatalf("read the machine's certificates: %v (Debian's package ca-certificates)", err)
	}
	return pgtest.WriteNobody(t, filepath.Join(pgtest.WorkDir(t), "ca.pem"), string(machine)+string(certificate))
}

// buffers is the proxy's pool.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, 64<<10)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }
