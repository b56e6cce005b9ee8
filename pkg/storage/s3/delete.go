package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

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
