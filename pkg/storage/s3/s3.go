// Package s3 keeps objects in a bucket of any server that speaks S3 with
// conditional writes. It is the only importer of the AWS SDK.
//
// Every write carries "If-None-Match: *", multipart uploads included, so that
// no object is ever replaced. Checksums travel in headers, computed before a
// request starts, and never as trailers, which not every server understands.
// What is sent again after a failure is held in memory or seekable.
//
// A server's word counts only where it is unmistakable: an object is absent
// when the server said NoSuchKey, a listing is complete when the server said
// so, an object was deleted when its key was confirmed. Anything else is an
// error.
package s3

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/walship/walship/pkg/storage"
)

// Store is a bucket, or what lies below one prefix in it. It implements
// storage.Store; it may be used from several goroutines at once.
//
// A Modified time comes from the server in whole seconds or finer, as the
// server keeps it. Objects whose names storage.ValidKey refuses, which walship
// never writes, are left out of listings.
type Store struct {
	client *s3.Client
	// complete makes the one request that a server may take minutes to
	// answer: joining the parts of a large object.
	complete func(*s3.Options)
	settings settings
	limits   limits
}

var _ storage.Store = (*Store)(nil)

// limits are the measures that tests make smaller.
type limits struct {
	stall         time.Duration // a connection on which nothing moves for so long is given up
	completeStall time.Duration // the same while the server joins parts
	dial          time.Duration
	firstBackoff  time.Duration // doubles with each attempt
	lastBackoff   time.Duration
	attempts      int   // of one request
	partAttempts  int   // of one part of a stream, which nobody else can send again
	singlePut     int64 // bytes: a seekable body up to this goes out as one request
	page          int32 // keys of one listing request
}

func defaultLimits() limits {
	return limits{
		stall:         20 * time.Second,
		completeStall: 2 * time.Minute,
		dial:          10 * time.Second,
		firstBackoff:  200 * time.Millisecond,
		lastBackoff:   5 * time.Second,
		attempts:      6,
		partAttempts:  10,
		singlePut:     64 << 20,
		page:          1000,
	}
}

// Open returns the store that a URL names:
//
//	s3://bucket/prefix?region=eu-central-1&endpoint=https://s3.example.org
//
// The options are
//
//	endpoint        the server's http or https URL; AWS itself if missing
//	path_style      true: the bucket is named in the path, not the host name
//	region          the SDK's own setting if missing; us-east-1 with an endpoint
//	storage_class   as the server names it, e.g. STANDARD_IA
//	sse             server-side encryption: AES256, aws:kms or aws:kms:dsse
//	sse_kms_key_id  the key for sse=aws:kms and sse=aws:kms:dsse
//	part_size       of multipart uploads, 5MB to 1GB; 16MB if missing
//
// Credentials come from the AWS SDK's own chain (environment, shared files,
// roles) and are refused in the URL. certificates is the file of the authorities
// that the system trusts, as SSL_CERT_FILE names it; "" where it doesn't. Open
// makes no network request: it fails only with ErrInvalid, for a URL or an SDK
// configuration that can't be used.
func Open(ctx context.Context, rawURL, certificates string) (*Store, error) {
	return open(ctx, rawURL, newAuthorities(certificates), defaultLimits())
}

func open(ctx context.Context, rawURL string, trusted *authorities, l limits) (*Store, error) {
	set, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	client, slow, err := newClient(ctx, set, trusted, l)
	if err != nil {
		return nil, fmt.Errorf("open s3://%s: %w", set.bucket, err)
	}
	return &Store{
		client: client,
		complete: func(o *s3.Options) {
			o.HTTPClient = slow
			o.RetryMaxAttempts = l.partAttempts
		},
		settings: set,
		limits:   l,
	}, nil
}

// fullKey is the name in the bucket of a key in the store.
func (s *Store) fullKey(key string) (string, error) {
	if err := storage.ValidKey(key); err != nil {
		return "", err
	}
	full := s.settings.prefix + key
	if len(full) > 1024 {
		return "", fmt.Errorf("%w: key %q is longer than 1,024 bytes with the prefix of the repository", storage.ErrInvalid, full)
	}
	return full, nil
}

// location names an object, or the whole store for the key "", in messages.
func (s *Store) location(key string) string {
	return "s3://" + s.settings.bucket + "/" + s.settings.prefix + key
}

// plainETag is an entity tag as storage.Info carries it. Servers differ in
// whether listings quote them.
func plainETag(tag *string) string { return strings.Trim(aws.ToString(tag), `"`) }

func serverTime(metadata middleware.Metadata) time.Time {
	at, _ := awsmiddleware.GetServerTime(metadata)
	return at
}
