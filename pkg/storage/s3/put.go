package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walship/walship/pkg/storage"
)

// Put implements storage.Store. A seekable body of up to 64 MiB, and any body
// of up to one part, goes out as one request; anything else is a multipart
// upload that holds at most two parts in memory, one being sent while the next
// is read. Put returns only after the body's own Read has returned: a body
// that blocks must obey ctx itself.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	full, err := s.fullKey(key)
	if err != nil {
		return storage.Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return storage.Info{}, s.fail(ctx, "put", key, err)
	}
	whole, err := measure(body)
	if err != nil {
		return storage.Info{}, s.bodyError(key, err)
	}
	if whole != nil && whole.size <= s.limits.singlePut {
		return s.putWhole(ctx, key, full, whole, whole.size)
	}
	for attempt := 1; ; attempt++ {
		info, err := s.putStream(ctx, key, full, body)
		if whole == nil || attempt == s.limits.attempts || !conflict(err) {
			return info, err
		}
		// Only the whole upload can be repeated after such a conflict.
		if _, err := whole.Seek(0, io.SeekStart); err != nil {
			return storage.Info{}, s.bodyError(key, err)
		}
		if err := wait(ctx, s.limits.backoff(attempt)); err != nil {
			return storage.Info{}, s.fail(ctx, "put", key, err)
		}
	}
}

// putStream sends what fits into one part as one request, and the rest as a
// multipart upload.
func (s *Store) putStream(ctx context.Context, key, full string, body io.Reader) (storage.Info, error) {
	first, ended, err := readPart(ctx, body, nil, s.partSize(1))
	if err != nil {
		return storage.Info{}, s.bodyError(key, err)
	}
	if ended {
		return s.putWhole(ctx, key, full, bytes.NewReader(first), int64(len(first)))
	}
	return s.putParts(ctx, key, full, body, first)
}

// putWhole writes an object with one request. Having its checksum keeps the
// SDK from adding one as a trailer.
func (s *Store) putWhole(ctx context.Context, key, full string, body io.ReadSeeker, size int64) (storage.Info, error) {
	sum, err := checksum(ctx, body)
	if err != nil {
		return storage.Info{}, s.bodyError(key, err)
	}
	out, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket:               aws.String(s.settings.bucket),
		Key:                  aws.String(full),
		Body:                 body,
		ContentLength:        aws.Int64(size),
		ContentType:          aws.String("application/octet-stream"),
		ChecksumCRC32C:       aws.String(sum),
		IfNoneMatch:          aws.String("*"),
		StorageClass:         s.settings.storageClass,
		ServerSideEncryption: s.settings.sse,
		SSEKMSKeyId:          optional(s.settings.kmsKeyID),
	})
	if err != nil {
		return storage.Info{}, s.putError(ctx, key, err)
	}
	if aws.ToString(out.ETag) == "" {
		return storage.Info{}, s.fail(ctx, "put", key, errors.New("the server's answer has no ETag, so it may not have stored the object"))
	}
	return storage.Info{
		Key: key, Size: size, ETag: plainETag(out.ETag), ServerTime: serverTime(out.ResultMetadata),
	}, nil
}

// putError tells a name that is taken from other failures of a write.
func (s *Store) putError(ctx context.Context, key string, err error) error {
	if preconditionFailed(err) {
		return &requestError{
			what: "put " + s.location(key), kind: storage.ErrExist,
			detail: "the storage keeps what it has", cause: err,
		}
	}
	return s.fail(ctx, "put", key, err)
}

func (s *Store) bodyError(key string, err error) error {
	return fmt.Errorf("put %s: read what to store: %w", s.location(key), err)
}

// conflict reports whether a server refused a write because of another one
// that was going on, about whose outcome it said nothing.
func conflict(err error) bool {
	switch errorCode(err) {
	case "ConditionalRequestConflict", "OperationAborted":
		return true
	}
	return false
}

// section is the rest of a seekable body, from where it stood. It hides the
// body's other methods: HTTP would close a file, for example.
type section struct {
	body  io.ReadSeeker
	start int64
	size  int64
	at    int64
}

// measure returns body as a section, or nil if it can't seek.
func measure(body io.Reader) (*section, error) {
	seeker, ok := body.(io.ReadSeeker)
	if !ok {
		return nil, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil // a pipe in a type that could seek
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return nil, err
	}
	return &section{body: seeker, start: start, size: max(end-start, 0)}, nil
}

// Read implements io.Reader. A body that became shorter since it was measured
// is an error, and what was added isn't read.
func (s *section) Read(p []byte) (int, error) {
	left := s.size - s.at
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := s.body.Read(p[:min(int64(len(p)), left)])
	s.at += int64(n)
	if err == io.EOF && s.at < s.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements io.Seeker.
func (s *section) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 || offset > s.size {
		return 0, fmt.Errorf("seek to %d in a body of %d bytes", offset, s.size)
	}
	if _, err := s.body.Seek(s.start+offset, io.SeekStart); err != nil {
		return 0, err
	}
	s.at = offset
	return offset, nil
}

// readPart reads up to size bytes into buf's memory, which it replaces by
// larger memory as needed. ended says that the body ended.
func readPart(ctx context.Context, body io.Reader, buf []byte, size int64) (data []byte, ended bool, err error) {
	const (
		least      = 64 << 10
		emptyReads = 100
	)
	data = buf[:0]
	for empty := 0; int64(len(data)) < size; {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if len(data) == cap(data) {
			larger := make([]byte, len(data), min(max(2*int64(cap(data)), least), size))
			copy(larger, data)
			data = larger
		}
		n, err := body.Read(data[len(data):min(int64(cap(data)), size)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, true, nil
		case err != nil:
			return nil, false, err
		case n > 0:
			empty = 0
		default:
			if empty++; empty == emptyReads {
				return nil, false, io.ErrNoProgress
			}
		}
	}
	return data, false, nil
}

// checksum is the CRC-32C of body in the form of S3's headers. It leaves body
// at its start.
func checksum(ctx context.Context, body io.ReadSeeker) (string, error) {
	hash := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(hash, &checkedReader{ctx, body}); err != nil {
		return "", err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, hash.Sum32())), nil
}

// checkedReader ends when its context does.
type checkedReader struct {
	ctx  context.Context
	body io.Reader
}

func (r *checkedReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return aws.String(text)
}
