package s3

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go"
)

// credentials is the SDK's credential chain with two additions: its failures
// are told apart into lasting and passing ones, and a request that was refused
// because its credentials had expired can ask for new ones.
type credentials struct {
	cache *aws.CredentialsCache

	mu      sync.Mutex
	worked  bool      // the chain has given credentials before
	renewed time.Time // when renew last dropped what was cached
}

func newCredentials(chain aws.CredentialsProvider) *credentials {
	cache, ok := chain.(*aws.CredentialsCache)
	if !ok {
		cache = aws.NewCredentialsCache(chain)
	}
	return &credentials{cache: cache}
}

// Retrieve implements aws.CredentialsProvider.
func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.cache.Retrieve(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return aws.Credentials{}, err
		}
		return aws.Credentials{}, &credentialsError{err: err, passing: c.worked || passing(err)}
	}
	c.worked = true
	return found, nil
}

// renew drops the cached credentials, at most once in ten seconds, because
// requests that run at the same time are all refused at once.
func (c *credentials) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.renewed) > 10*time.Second {
		c.renewed = time.Now()
		c.cache.Invalidate()
	}
}

// credentialsError means that no credentials could be had.
type credentialsError struct {
	err     error
	passing bool
}

func (e *credentialsError) Error() string { return "find credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// RetryableError tells the SDK's retryer that the credential's own provider
// has tried often enough.
func (e *credentialsError) RetryableError() bool { return false }

// passing reports whether a credential service, such as STS, couldn't be
// reached or failed on its side. EC2's metadata service is the end of the
// chain, and its silence means that this machine has no credentials at all.
func passing(err error) bool {
	var operation *smithy.OperationError
	if errors.As(err, &operation) && operation.Service() == imds.ServiceID {
		return false
	}
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) && response.HTTPStatusCode() != 0 {
		status := response.HTTPStatusCode()
		return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
	}
	var connection interface{ ConnectionError() bool }
	return errors.As(err, &connection) && connection.ConnectionError()
}

// expired reports whether a server refused credentials because of their age.
func expired(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired":
		return true
	}
	return false
}
