package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walship/walship/pkg/storage"
)

// List implements storage.Store, a page of 1,000 keys at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		stop := func(err error) { yield(storage.Info{}, s.fail(ctx, "list", prefix, err)) }
		if err := ctx.Err(); err != nil {
			stop(err)
			return
		}
		if after > prefix && !strings.HasPrefix(after, prefix) {
			return // every key that starts with prefix is smaller than after
		}
		in := &s3.ListObjectsV2Input{
			Bucket:  aws.String(s.settings.bucket),
			Prefix:  optional(s.settings.prefix + prefix),
			MaxKeys: aws.Int32(s.limits.page),
		}
		if after >= prefix && after != "" {
			in.StartAfter = aws.String(s.settings.prefix + after)
		}
		order := ordered{prefix: s.settings.prefix + prefix, last: aws.ToString(in.StartAfter)}
		for {
			out, err := s.client.ListObjectsV2(ctx, in)
			if err != nil {
				stop(err)
				return
			}
			// An answer that lacks these isn't a listing, so the absence
			// of keys in it means nothing.
			if out.IsTruncated == nil || out.Name == nil {
				stop(errors.New("the server's answer isn't a listing"))
				return
			}
			for _, object := range out.Contents {
				full := aws.ToString(object.Key)
				if err := order.next(full); err != nil {
					stop(err)
					return
				}
				key := strings.TrimPrefix(full, s.settings.prefix)
				if storage.ValidKey(key) != nil {
					continue
				}
				info := storage.Info{
					Key: key, Size: aws.ToInt64(object.Size),
					ETag: plainETag(object.ETag), Modified: aws.ToTime(object.LastModified),
				}
				if !yield(info, nil) {
					return
				}
			}
			if !*out.IsTruncated {
				return
			}
			token := aws.ToString(out.NextContinuationToken)
			if token == "" || token == aws.ToString(in.ContinuationToken) {
				stop(errors.New("the server cut the listing short without saying how to go on"))
				return
			}
			in.ContinuationToken = aws.String(token)
		}
	}
}

// ordered holds a server to the order of its listing, by which the caller
// knows that nothing was left out or comes twice.
type ordered struct{ prefix, last string }

func (o *ordered) next(key string) error {
	if !strings.HasPrefix(key, o.prefix) {
		return fmt.Errorf("the server listed %q, which doesn't start with %q", oneLine(key), o.prefix)
	}
	if key <= o.last {
		return fmt.Errorf("the server listed %q behind %q, out of order", oneLine(key), oneLine(o.last))
	}
	o.last = key
	return nil
}
