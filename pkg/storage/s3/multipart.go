package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/storage"
)

const (
	maxParts = 10_000 // S3's own limit
	// Parts grow in steps, slowly enough that a stream of a few hundred
	// gigabytes stays cheap in memory, and fast enough that 10,000 parts
	// hold 5 TiB even from the smallest size on.
	partsPerStep = 100
	partStep     = 11 << 20

	// A server may have begun an upload although the caller gave up, so the
	// answer is awaited a little longer, in order to abort it.
	createGrace  = 2 * time.Second
	abortTimeout = 2 * time.Second
)

// partSize is the size in bytes of the part of a number, from 1 on.
func (s *Store) partSize(number int32) int64 {
	return s.settings.partSize + int64(number-1)/partsPerStep*partStep
}

// upload is a multipart upload that is going on.
type upload struct {
	store *Store
	key   string
	full  string
	id    string
	parts []types.CompletedPart
	size  int64
}

// putParts writes an object whose first part has been read from body already.
// Whatever goes wrong, it aborts the upload before it returns.
func (s *Store) putParts(ctx context.Context, key, full string, body io.Reader, first []byte) (info storage.Info, err error) {
	u, err := s.begin(ctx, key, full)
	if err != nil {
		return storage.Info{}, err
	}
	defer func() {
		if err != nil {
			err = u.abort(ctx, err)
		}
	}()
	if err := u.sendAll(ctx, body, first); err != nil {
		return storage.Info{}, err
	}
	return u.complete(ctx)
}

func (s *Store) begin(ctx context.Context, key, full string) (*upload, error) {
	late, cancel := outlive(ctx, createGrace)
	defer cancel()
	out, err := s.client.CreateMultipartUpload(late, &s3.CreateMultipartUploadInput{
		Bucket:               aws.String(s.settings.bucket),
		Key:                  aws.String(full),
		ContentType:          aws.String("application/octet-stream"),
		ChecksumAlgorithm:    types.ChecksumAlgorithmCrc32c,
		StorageClass:         s.settings.storageClass,
		ServerSideEncryption: s.settings.sse,
		SSEKMSKeyId:          optional(s.settings.kmsKeyID),
	})
	if err != nil {
		return nil, s.fail(ctx, "begin the upload of", key, err)
	}
	if aws.ToString(out.UploadId) == "" {
		return nil, s.fail(ctx, "begin the upload of", key, errors.New("the server's answer has no upload id"))
	}
	return &upload{store: s, key: key, full: full, id: *out.UploadId}, nil
}

// sendAll sends first and then the rest of body, each part while the next one
// is being read.
func (u *upload) sendAll(ctx context.Context, body io.Reader, first []byte) error {
	var spare []byte
	data, ended := first, false
	for number := int32(1); len(data) > 0; number++ {
		if number > maxParts {
			return fmt.Errorf("put %s: %w: it is longer than %d parts hold; raise part_size in the repository's URL",
				u.store.location(u.key), storage.ErrInvalid, maxParts)
		}
		var next []byte
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error { return u.send(ctx, number, data) })
		if !ended {
			both.Go(func() (err error) {
				if next, ended, err = readPart(ctx, body, spare, u.store.partSize(number+1)); err != nil {
					return u.store.bodyError(u.key, err)
				}
				return nil
			})
		}
		if err := both.Wait(); err != nil {
			return err
		}
		data, spare = next, data
	}
	return nil
}

func (u *upload) send(ctx context.Context, number int32, data []byte) error {
	body := bytes.NewReader(data)
	sum, err := checksum(ctx, body)
	if err != nil {
		return u.store.bodyError(u.key, err)
	}
	out, err := u.store.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket:         aws.String(u.store.settings.bucket),
		Key:            aws.String(u.full),
		UploadId:       aws.String(u.id),
		PartNumber:     aws.Int32(number),
		Body:           body,
		ContentLength:  aws.Int64(int64(len(data))),
		ChecksumCRC32C: aws.String(sum),
	}, func(o *s3.Options) { o.RetryMaxAttempts = u.store.limits.partAttempts })
	verb := fmt.Sprintf("put part %d of", number)
	if err != nil {
		return u.store.fail(ctx, verb, u.key, err)
	}
	if aws.ToString(out.ETag) == "" {
		return u.store.fail(ctx, verb, u.key, errors.New("the server's answer has no ETag, so it may not have stored the part"))
	}
	u.parts = append(u.parts, types.CompletedPart{
		PartNumber:     aws.Int32(number),
		ETag:           out.ETag,
		ChecksumCRC32C: aws.String(sum),
	})
	u.size += int64(len(data))
	return nil
}

// complete makes the object visible, unless its name is taken.
func (u *upload) complete(ctx context.Context) (storage.Info, error) {
	out, err := u.store.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket:          aws.String(u.store.settings.bucket),
		Key:             aws.String(u.full),
		UploadId:        aws.String(u.id),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
		MpuObjectSize:   aws.Int64(u.size),
		IfNoneMatch:     aws.String("*"),
	}, u.store.complete)
	if err != nil {
		return storage.Info{}, u.store.putError(ctx, u.key, err)
	}
	if aws.ToString(out.ETag) == "" {
		return storage.Info{}, u.store.fail(ctx, "put", u.key, errors.New("the server's answer has no ETag, so it may not have stored the object"))
	}
	return storage.Info{
		Key: u.key, Size: u.size, ETag: plainETag(out.ETag), ServerTime: serverTime(out.ResultMetadata),
	}, nil
}

// abort removes the parts from the storage, even if ctx is over, and returns
// why. That it couldn't is part of the message.
func (u *upload) abort(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := u.store.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket:   aws.String(u.store.settings.bucket),
		Key:      aws.String(u.full),
		UploadId: aws.String(u.id),
	})
	if err != nil && errorCode(err) != "NoSuchUpload" {
		return fmt.Errorf("%w (its unfinished upload is still there: %s)", why, detail(err))
	}
	return why
}

// outlive returns a context that ends a while after ctx.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, func() {
		stop()
		cancel()
	}
}

// wait waits, or returns ctx's error when that ends first.
func wait(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
