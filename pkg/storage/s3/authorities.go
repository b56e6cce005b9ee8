package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// authorities verify a server's certificate as crypto/x509 does, by the
// authorities that the system trusts, but read the one file that most systems
// keep them in before the folders in which each of them lies once more. To read
// all takes three times as long as to store a small object.
type authorities struct {
	quick  func() *x509.CertPool // what the file has; nil: there is none
	system *x509.CertPool        // nil: what crypto/x509 finds
	all    atomic.Bool           // the file didn't suffice
}

// bundles are the files that crypto/x509 looks for on Linux, in its order. It
// reads the first that there is.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/pki/tls/cacert.pem",                           // OpenELEC
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Red Hat
	"/etc/ssl/cert.pem",                                 // Alpine
}

// newAuthorities reads nothing yet. file is what SSL_CERT_FILE says, which takes
// the place of the others; "" where it isn't set.
func newAuthorities(file string) *authorities {
	files := bundles
	switch {
	case file != "":
		files = []string{file}
	case runtime.GOOS != "linux": // there, the files aren't what the system goes by
		files = nil
	}
	return &authorities{quick: sync.OnceValue(func() *x509.CertPool { return readBundle(files) })}
}

func readBundle(files []string) *x509.CertPool {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pool := x509.NewCertPool()
		if pool.AppendCertsFromPEM(data) {
			return pool
		}
		break
	}
	return nil
}

// install has a client go by the authorities, unless it was told others, as by
// AWS_CA_BUNDLE. Connections through a proxy are left as they are.
func (a *authorities) install(client *awshttp.BuildableClient) *awshttp.BuildableClient {
	return client.WithTransportOptions(func(tr *http.Transport) {
		if tr.TLSClientConfig != nil && tr.TLSClientConfig.RootCAs != nil {
			return
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if tr.TLSClientConfig != nil {
			config = tr.TLSClientConfig.Clone()
		}
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0) // a handshake is shorter with what is known of an earlier one
		dial, timeout := tr.DialContext, tr.TLSHandshakeTimeout
		tr.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			config := config.Clone()
			config.ServerName = host
			return a.connect(config, func(config *tls.Config) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return handshake(ctx, conn, config, timeout)
			})
		}
	})
}

// connect shakes hands with a server that the file's authorities vouch for, or
// else one of all.
func (a *authorities) connect(config *tls.Config, shake func(*tls.Config) (net.Conn, error)) (net.Conn, error) {
	if pool := a.quick(); pool != nil && !a.all.Load() {
		config.RootCAs = pool
		conn, err := shake(config)
		if _, unverified := errors.AsType[*tls.CertificateVerificationError](err); !unverified {
			return conn, err
		}
	}
	config.RootCAs = a.system
	conn, err := shake(config)
	if err == nil {
		a.all.Store(true)
	}
	return conn, err
}

// handshake makes a connection one with TLS, within that time, or closes it.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config, timeout time.Duration) (net.Conn, error) {
	shaking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secure := tls.Client(conn, config)
	err := secure.HandshakeContext(shaking)
	if err == nil {
		return secure, nil
	}
	_ = conn.Close() // a handshake that took too long has done it
	if ctx.Err() == nil && shaking.Err() != nil {
		return nil, fmt.Errorf("TLS handshake with %s: no end of it within %s", config.ServerName, timeout)
	}
	return nil, err
}
