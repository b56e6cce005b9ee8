package s3

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walship/walship/pkg/storage"
)

// Sweep implements storage.Store: it aborts multipart uploads.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	full := s.settings.prefix + prefix
	swept, found, err := s.sweep(ctx, prefix, full, before)
	if err != nil || found > 0 || full == "" {
		return swept, err
	}
	// MinIO lists uploads of a whole key, or all of a bucket's, but none of
	// a prefix. Who may list the prefix only isn't on MinIO.
	swept, _, err = s.sweep(ctx, prefix, "", before)
	if errors.Is(err, storage.ErrDenied) {
		err = nil
	}
	return swept, err
}

// sweep goes through the uploads that the server lists for a prefix in the
// bucket, and aborts those that lie below prefix in the store. found counts
// what was listed.
func (s *Store) sweep(ctx context.Context, prefix, listed string, before time.Time) (swept, found int, err error) {
	var failed []error
	for upload, err := range s.uploads(ctx, listed) {
		if err != nil {
			failed = append(failed, s.fail(ctx, "list unfinished uploads of", prefix, err))
			break
		}
		found++
		full := aws.ToString(upload.Key)
		if !strings.HasPrefix(full, s.settings.prefix+prefix) || upload.Initiated == nil || !upload.Initiated.Before(before) {
			continue
		}
		_, err = s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
			Bucket: aws.String(s.settings.bucket), Key: upload.Key, UploadId: upload.UploadId,
		})
		switch {
		case err == nil:
			swept++
		case errorCode(err) != "NoSuchUpload":
			failed = append(failed, s.fail(ctx, "abort an upload of", strings.TrimPrefix(full, s.settings.prefix), err))
		}
	}
	return swept, found, errors.Join(failed...)
}

// uploads yields the multipart uploads of a prefix in the bucket. An error
// ends it.
func (s *Store) uploads(ctx context.Context, prefix string) iter.Seq2[types.MultipartUpload, error] {
	return func(yield func(types.MultipartUpload, error) bool) {
		in := &s3.ListMultipartUploadsInput{Bucket: aws.String(s.settings.bucket), Prefix: optional(prefix)}
		for {
			out, err := s.client.ListMultipartUploads(ctx, in)
			if err == nil && out.IsTruncated == nil {
				err = errors.New("the server's answer isn't a listing")
			}
			if err != nil {
				yield(types.MultipartUpload{}, err)
				return
			}
			for _, upload := range out.Uploads {
				if !yield(upload, nil) {
					return
				}
			}
			if !*out.IsTruncated {
				return
			}
			key, id := aws.ToString(out.NextKeyMarker), aws.ToString(out.NextUploadIdMarker)
			if key == "" || (key == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker)) {
				yield(types.MultipartUpload{}, errors.New("the server cut the listing short without saying how to go on"))
				return
			}
			in.KeyMarker, in.UploadIdMarker = aws.String(key), optional(id)
		}
	}
}
