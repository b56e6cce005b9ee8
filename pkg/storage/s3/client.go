package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/walship/walship/pkg/storage"
)

// newClient makes the SDK's client and, for requests that may take long to be
// answered, a second HTTP client.
func newClient(ctx context.Context, set settings, trusted *authorities, l limits) (*s3.Client, aws.HTTPClient, error) {
	metadata := new(metadataClient)
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(withTimeouts(awshttp.NewBuildableClient(), l.dial, l.stall)),
		config.WithRetryer(func() aws.Retryer { return newRetryer(l, nil) }),
		config.WithLogger(logging.Nop{}),
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata }),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) {
			o.ExpiryWindow = time.Minute
			o.ExpiryWindowJitterFrac = 0.5
		}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("load the AWS SDK's configuration: %w: %w", storage.ErrInvalid, err)
	}
	// Loading may have replaced the client by one that trusts AWS_CA_BUNDLE.
	base, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return nil, nil, fmt.Errorf("load the AWS SDK's configuration: %w: it made an HTTP client of type %T", storage.ErrInvalid, cfg.HTTPClient)
	}
	metadata.client = imds.NewFromConfig(cfg, func(o *imds.Options) { o.Retryer = aws.NopRetryer{} })
	creds := newCredentials(cfg.Credentials)

	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if set.endpoint != "" {
			o.BaseEndpoint = aws.String(set.endpoint)
		}
		if set.region != "" {
			o.Region = set.region
		}
		if o.Region == "" && o.BaseEndpoint != nil {
			o.Region = "us-east-1" // what servers other than AWS expect unless told otherwise
		}
		o.UsePathStyle = set.pathStyle
		o.HTTPClient = trusted.install(base).Freeze()
		o.Credentials = creds
		o.Retryer = newRetryer(l, creds)
		o.DisableLogOutputChecksumValidationSkipped = true
		o.ClientLogMode = 0
		o.APIOptions = append(o.APIOptions, awsmiddleware.AddUserAgentKey("walship"), rememberFailures)
	})
	if client.Options().Region == "" {
		return nil, nil, fmt.Errorf("%w: no region: add region=… to the URL, or set AWS_REGION", storage.ErrInvalid)
	}
	return client, trusted.install(withTimeouts(base, l.dial, l.completeStall)).Freeze(), nil
}

// metadataClient asks EC2's metadata service once, without retries, so that a
// machine that isn't in EC2 learns within a second or two that it has no
// credentials. The client is made from the configuration that loading yields.
type metadataClient struct{ client *imds.Client }

func (m *metadataClient) GetMetadata(ctx context.Context, in *imds.GetMetadataInput, opts ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	return m.client.GetMetadata(ctx, in, opts...)
}

// withTimeouts gives every phase of a request its own end: dialling, the TLS
// handshake, and then any stretch of time in which nothing moves on the
// connection, in either direction.
func withTimeouts(client *awshttp.BuildableClient, dial, stall time.Duration) *awshttp.BuildableClient {
	dialer := &net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}
	return client.WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return newLiveConn(conn, stall), nil
		}
		tr.TLSHandshakeTimeout = dial
		// HTTP/1.1 only, whose connections the time-outs are made for. The
		// transport is a copy of one that may have been set up for HTTP/2,
		// and must not offer what it then can't speak.
		tr.ForceAttemptHTTP2 = false
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		if tr.TLSClientConfig != nil {
			tr.TLSClientConfig = tr.TLSClientConfig.Clone()
			tr.TLSClientConfig.NextProtos = nil
		}
		tr.DisableCompression = true
		tr.MaxIdleConnsPerHost = 64
		tr.ReadBufferSize = 64 << 10
		tr.WriteBufferSize = 64 << 10
	})
}

// liveConn fails when nothing could be read or written for the stall time.
// What is written also extends the wait for what is read, because HTTP waits
// for the response while it sends a long body.
type liveConn struct {
	net.Conn
	stall  time.Duration
	closed chan struct{}
	close  sync.Once
}

func newLiveConn(conn net.Conn, stall time.Duration) *liveConn {
	return &liveConn{Conn: conn, stall: stall, closed: make(chan struct{})}
}

func (c *liveConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn. A server may answer before it has read a body,
// and close the connection on the rest of it: then the failure is held back
// for a moment, or HTTP would report it instead of the answer.
func (c *liveConn) Write(p []byte) (int, error) {
	const moment = time.Second
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		timer := time.NewTimer(moment)
		defer timer.Stop()
		select {
		case <-c.closed:
		case <-timer.C:
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *liveConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// newRetryer sends a request again for what may pass: failures of the network
// and of the server, throttling, conflicts between conditional writes, bytes
// changed on the way, and credentials that expired, which it has renewed.
func newRetryer(l limits, creds *credentials) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = l.attempts
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			return l.backoff(attempt), nil
		})
		// Attempts are bounded as it is; a budget shared by all requests
		// would make one request's outcome depend on the others.
		o.RateLimiter = ratelimit.None
		o.Retryables = append(o.Retryables,
			retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{
				http.StatusRequestTimeout: {}, http.StatusTooManyRequests: {},
			}},
			retry.RetryableErrorCode{Codes: map[string]struct{}{
				"ConditionalRequestConflict": {}, "OperationAborted": {},
				"BadDigest": {}, "XAmzContentSHA256Mismatch": {}, "XAmzContentChecksumMismatch": {}, "IncompleteBody": {},
				// versitygw, on a directory: somebody's deletion took away
				// the folder that this write was about to use.
				"ExistingObjectIsDirectory": {},
			}},
			retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
				switch {
				case errors.Is(err, io.ErrUnexpectedEOF):
					return aws.TrueTernary // a response cut short
				case creds != nil && expired(err):
					creds.renew()
					return aws.TrueTernary
				}
				return aws.UnknownTernary
			}),
		)
	})
}

// backoff is how long to wait after the given attempt, the first being 1:
// doubling, and anywhere in the upper half of that at random.
func (l limits) backoff(attempt int) time.Duration {
	wait := l.lastBackoff
	if doublings := attempt - 1; doublings < 16 {
		wait = min(wait, l.firstBackoff<<doublings)
	}
	return wait/2 + rand.N(wait/2+1)
}
