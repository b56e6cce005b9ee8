package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walship/walship/pkg/storage"
)

// Stat implements storage.Store. It asks for the first byte rather than with
// HEAD, whose answers have no body and so can't tell a missing bucket from a
// missing object.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	full, err := s.fullKey(key)
	if err != nil {
		return storage.Info{}, err
	}
	span, err := s.request(ctx, key, full, 0, 1, "")
	if statusCode(err) == http.StatusRequestedRangeNotSatisfiable {
		return s.statEmpty(ctx, key, full)
	}
	if err != nil {
		return storage.Info{}, s.fail(ctx, "stat", key, err)
	}
	// The byte itself says nothing; it is read so that the connection can be
	// used again.
	_, _ = io.Copy(io.Discard, span.body)
	_ = span.body.Close()
	return span.info, nil
}

// statEmpty describes an object that has no first byte.
func (s *Store) statEmpty(ctx context.Context, key, full string) (storage.Info, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: aws.String(s.settings.bucket), Key: aws.String(full),
	})
	if err != nil {
		return storage.Info{}, s.fail(ctx, "stat", key, err)
	}
	if aws.ToInt64(out.ContentLength) != 0 {
		return storage.Info{}, s.fail(ctx, "stat", key, errors.New("the server refused to read it as empty, and says that it isn't"))
	}
	return storage.Info{
		Key: key, ETag: plainETag(out.ETag),
		Modified: aws.ToTime(out.LastModified), ServerTime: serverTime(out.ResultMetadata),
	}, nil
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	full, err := s.fullKey(key)
	if err != nil {
		return nil, storage.Info{}, err
	}
	if offset < 0 {
		return nil, storage.Info{}, fmt.Errorf("get %s: %w: offset %d", s.location(key), storage.ErrInvalid, offset)
	}
	if rest := math.MaxInt64 - offset; length < 0 || length > rest {
		length = rest
	}
	if length == 0 {
		info, err := s.Stat(ctx, key)
		return http.NoBody, info, err
	}
	span, err := s.request(ctx, key, full, offset, length, "")
	if statusCode(err) == http.StatusRequestedRangeNotSatisfiable {
		info, err := s.Stat(ctx, key)
		if err == nil && info.Size > offset {
			err = s.fail(ctx, "get", key, fmt.Errorf("the server refused to read from byte %d of %d", offset, info.Size))
		}
		return http.NoBody, info, err
	}
	if err != nil {
		return nil, storage.Info{}, s.fail(ctx, "get", key, err)
	}
	return &reader{
		ctx: ctx, store: s, key: key, full: full,
		span: span, at: offset, end: offset + span.length,
	}, span.info, nil
}

// span is one response: some bytes of an object.
type span struct {
	body   io.ReadCloser
	length int64 // of body
	info   storage.Info
}

// request asks for length bytes from offset on, or as many as there are, of
// the object that has this ETag, if one is given. The server's answer is
// checked to be just that.
func (s *Store) request(ctx context.Context, key, full string, offset, length int64, etag string) (span, error) {
	in := &s3.GetObjectInput{Bucket: aws.String(s.settings.bucket), Key: aws.String(full)}
	last := offset + length - 1
	whole := offset == 0 && last == math.MaxInt64-1
	switch {
	case whole: // without a range, servers send a checksum of all
	case last == math.MaxInt64-1:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	default:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, last))
	}
	if etag != "" {
		in.IfMatch = aws.String(`"` + etag + `"`)
	}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		return span{}, err
	}
	answer := span{body: out.Body, info: storage.Info{
		Key: key, ETag: plainETag(out.ETag),
		Modified: aws.ToTime(out.LastModified), ServerTime: serverTime(out.ResultMetadata),
	}}
	if err := answer.measure(out, offset, last, whole); err != nil {
		_ = out.Body.Close()
		return span{}, err
	}
	return answer, nil
}

// measure takes the sizes from the response's headers, and checks that they
// agree with each other and with what was asked for.
func (a *span) measure(out *s3.GetObjectOutput, offset, last int64, whole bool) error {
	if out.ContentLength == nil || *out.ContentLength < 0 {
		return errors.New("the server's answer has no length")
	}
	a.length = *out.ContentLength
	// Some servers answer a range of an empty object as if it were whole.
	if out.ContentRange == nil && (whole || a.length == 0) {
		a.info.Size = a.length
		return nil
	}
	var from, to, size int64
	contentRange := aws.ToString(out.ContentRange)
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &from, &to, &size); err != nil {
		return fmt.Errorf("the server's answer has no usable range: %q", oneLine(contentRange))
	}
	if from != offset || to != min(last, size-1) || a.length != to-from+1 {
		return fmt.Errorf("the server answered with %d bytes, range %q, to a request for bytes %d to %d", a.length, contentRange, offset, last)
	}
	a.info.Size = size
	return nil
}

const (
	maxResumes = 5       // in a row, each having moved less than
	goodResume = 1 << 20 // bytes
)

// reader delivers a span, and asks for the rest of it where a connection
// breaks.
type reader struct {
	ctx       context.Context
	store     *Store
	key, full string
	span      span
	at, end   int64 // offsets in the object
	resumes   int
	since     int64 // where the reader stood when it last resumed
	err       error // what ended it, io.EOF included
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if r.at == r.end {
			r.err = r.finish()
			break
		}
		if err := r.ctx.Err(); err != nil { // what has arrived could still be read
			r.err = r.store.fail(r.ctx, "read", r.key, err)
			break
		}
		n, err := r.span.body.Read(p[:min(int64(len(p)), r.end-r.at)])
		r.at += int64(n)
		if err != nil && r.at < r.end {
			r.err = r.resume(err)
		} else if err != nil && err != io.EOF {
			r.err = r.store.fail(r.ctx, "read", r.key, err) // a wrong checksum
			return 0, r.err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// finish reads the end of the last span, which is where its checksum is
// compared.
func (r *reader) finish() error {
	n, err := io.ReadFull(r.span.body, make([]byte, 1))
	switch {
	case n > 0:
		return r.store.fail(r.ctx, "read", r.key, errors.New("the server sent more than it announced"))
	case err != io.EOF:
		return r.store.fail(r.ctx, "read", r.key, err)
	}
	return io.EOF
}

// resume asks for what is missing after a response ended with an error, or
// too early, of the very same object.
func (r *reader) resume(why error) error {
	_ = r.span.body.Close() // it has failed already
	short := func(reason string) error {
		if why == io.EOF {
			why = io.ErrUnexpectedEOF
		}
		return r.store.fail(r.ctx, "read", r.key, fmt.Errorf("it ended %d bytes early, and %s: %w", r.end-r.at, reason, why))
	}
	if r.at-r.since >= goodResume {
		r.resumes = 0
	}
	r.since = r.at
	if r.resumes++; r.resumes > maxResumes {
		return short(fmt.Sprintf("again in %d more attempts", maxResumes))
	}
	if r.span.info.ETag == "" {
		return short("the server gives it no ETag, by which the rest could be told to belong to it")
	}
	if err := wait(r.ctx, r.store.limits.backoff(r.resumes)); err != nil {
		return r.store.fail(r.ctx, "read", r.key, err)
	}
	next, err := r.store.request(r.ctx, r.key, r.full, r.at, r.end-r.at, r.span.info.ETag)
	switch {
	case preconditionFailed(err), err == nil && next.info.ETag != r.span.info.ETag:
		if err == nil {
			_ = next.body.Close()
		}
		return short("it is another object by now")
	case errorCode(err) == "NoSuchKey":
		return short("it was deleted") // it had been there, so this isn't ErrNotExist
	case err != nil:
		return r.store.fail(r.ctx, "read", r.key, err)
	case next.length != r.end-r.at:
		_ = next.body.Close()
		return short("its length is another one by now")
	}
	r.span = next
	return nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	return r.span.body.Close()
}
