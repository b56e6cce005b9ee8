//go:build integration

package s3test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func TestServers(t *testing.T) {
	for _, server := range Makes() {
		t.Run(string(server), func(t *testing.T) {
			s := Start(t, server)
			if want := "s3://walship-test/a/b?region=us-east-1&endpoint=" + s.Endpoint + "&path_style=true"; s.URL("a/b") != want {
				t.Errorf("URL = %q, want %q", s.URL("a/b"), want)
			}
			t.Run("second put", func(t *testing.T) { secondPut(t, s) })
			t.Run("second multipart", func(t *testing.T) { secondMultipart(t, s) })
			t.Run("race", func(t *testing.T) { race(t, s) })
		})
	}
}

// secondPut checks fault 23's first half: the server refuses to write a name
// that is taken, and keeps the first bytes.
func secondPut(t *testing.T, s *Server) {
	if err := put(t, s, "put", "first"); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, put(t, s, "put", "second"), http.StatusPreconditionFailed)
	expectBody(t, s, "put", "first")
}

func secondMultipart(t *testing.T, s *Server) {
	if err := multipart(t, s, "multipart", "first"); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, multipart(t, s, "multipart", "second"), http.StatusPreconditionFailed)
	expectBody(t, s, "multipart", "first")
}

func race(t *testing.T, s *Server) {
	const writers = 16
	results := make(chan error, writers)
	for i := range writers {
		go func() { results <- put(t, s, "race", strings.Repeat(string(rune('a'+i)), 1000)) }()
	}
	var won int
	for range writers {
		if err := <-results; err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of %d writers of one name were told that they wrote it, want 1", won, writers)
	}
}

func put(t *testing.T, s *Server, key, body string) error {
	_, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(s.Bucket), Key: aws.String(key), Body: strings.NewReader(body), IfNoneMatch: aws.String("*"),
	})
	return err
}

func multipart(t *testing.T, s *Server, key, body string) error {
	client, ctx := s.Client(), t.Context()
	created, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(s.Bucket), Key: aws.String(key)})
	if err != nil {
		return err
	}
	part, err := client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: aws.String(s.Bucket), Key: aws.String(key), UploadId: created.UploadId,
		PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte(body)),
	})
	if err != nil {
		return err
	}
	_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(s.Bucket), Key: aws.String(key), UploadId: created.UploadId, IfNoneMatch: aws.String("*"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag, ChecksumCRC32: part.ChecksumCRC32}}},
	})
	return err
}

func expectStatus(t *testing.T, err error, want int) {
	t.Helper()
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() != want {
		t.Errorf("the second write gave %v, want status %d", err, want)
	}
}

func expectBody(t *testing.T, s *Server, key, want string) {
	t.Helper()
	object, err := s.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(s.Bucket), Key: aws.String(key)})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	body, err := io.ReadAll(object.Body)
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != want {
		t.Errorf("%s holds %q, want %q", key, body, want)
	}
}
