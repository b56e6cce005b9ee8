package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// maxDelete is S3's own limit for one request.
const maxDelete = 1000

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var failed []error
	valid := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, err := s.fullKey(key); err != nil {
			failed = append(failed, err)
			continue
		}
		valid = append(valid, key)
	}
	for batch := range slices.Chunk(valid, maxDelete) {
		if err := s.deleteBatch(ctx, batch); err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// deleteBatch deletes with one request, or one by one where the server doesn't
// know that request.
func (s *Store) deleteBatch(ctx context.Context, keys []string) error {
	if len(keys) == 1 {
		return s.deleteOne(ctx, keys[0])
	}
	objects := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		objects[i].Key = aws.String(s.settings.prefix + key)
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: aws.String(s.settings.bucket),
		Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(false)},
	})
	switch {
	case lacksDeleteObjects(err):
		var failed []error
		for _, key := range keys {
			if err := s.deleteOne(ctx, key); err != nil {
				failed = append(failed, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
		return errors.Join(failed...)
	case err != nil:
		return s.fail(ctx, fmt.Sprintf("delete %d objects from", len(keys)), "", err)
	}
	return s.unconfirmed(ctx, keys, out)
}

// unconfirmed joins an error for each key that the server didn't say it
// deleted.
func (s *Store) unconfirmed(ctx context.Context, keys []string, out *s3.DeleteObjectsOutput) error {
	outcome := make(map[string]error, len(keys))
	for _, deleted := range out.Deleted {
		outcome[aws.ToString(deleted.Key)] = nil
	}
	for _, e := range out.Errors {
		outcome[aws.ToString(e.Key)] = &smithy.GenericAPIError{Code: aws.ToString(e.Code), Message: aws.ToString(e.Message)}
	}
	var failed []error
	for _, key := range keys {
		err, told := outcome[s.settings.prefix+key]
		if !told {
			err = errors.New("the server didn't confirm it")
		}
		if err != nil && errorCode(err) != "NoSuchKey" {
			failed = append(failed, s.fail(ctx, "delete", key, err))
		}
	}
	return errors.Join(failed...)
}

func (s *Store) deleteOne(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{
		Bucket: aws.String(s.settings.bucket), Key: aws.String(s.settings.prefix + key),
	})
	if err != nil && errorCode(err) != "NoSuchKey" {
		return s.fail(ctx, "delete", key, err)
	}
	return nil
}

func lacksDeleteObjects(err error) bool {
	switch statusCode(err) {
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return true
	}
	return errorCode(err) == "MissingContentMD5"
}

// Sweep implements storage.Store: it aborts multipart uploads. MinIO lists
// uploads only of a prefix that is a whole key, so it has to be left to remove
// older ones by its own schedule.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	var (
		swept  int
		failed []error
	)
	in := &s3.ListMultipartUploadsInput{
		Bucket: aws.String(s.settings.bucket), Prefix: optional(s.settings.prefix + prefix),
	}
	for {
		out, err := s.client.ListMultipartUploads(ctx, in)
		if err != nil {
			return swept, errors.Join(append(failed, s.fail(ctx, "list unfinished uploads of", prefix, err))...)
		}
		if out.IsTruncated == nil {
			err := errors.New("the server's answer isn't a listing")
			return swept, errors.Join(append(failed, s.fail(ctx, "list unfinished uploads of", prefix, err))...)
		}
		for _, found := range out.Uploads {
			full := aws.ToString(found.Key)
			if !strings.HasPrefix(full, s.settings.prefix+prefix) || found.Initiated == nil || !found.Initiated.Before(before) {
				continue
			}
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
				Bucket: aws.String(s.settings.bucket), Key: found.Key, UploadId: found.UploadId,
			})
			switch {
			case err == nil:
				swept++
			case errorCode(err) != "NoSuchUpload":
				failed = append(failed, s.fail(ctx, "abort an upload of", strings.TrimPrefix(full, s.settings.prefix), err))
			}
		}
		if !*out.IsTruncated || ctx.Err() != nil {
			return swept, errors.Join(failed...)
		}
		key, id := aws.ToString(out.NextKeyMarker), aws.ToString(out.NextUploadIdMarker)
		if key == "" || (key == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker)) {
			err := errors.New("the server cut the listing short without saying how to go on")
			return swept, errors.Join(append(failed, s.fail(ctx, "list unfinished uploads of", prefix, err))...)
		}
		in.KeyMarker, in.UploadIdMarker = aws.String(key), optional(id)
	}
}
