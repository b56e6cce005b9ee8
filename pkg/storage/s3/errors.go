package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/walship/walship/pkg/storage"
)

// requestError is a failed request in one line: what was done, which object,
// why it failed, what to do next.
type requestError struct {
	what   string
	kind   error // one of storage's sentinels, or nil: unknown, may pass
	detail string
	hint   string
	cause  error
}

func (e *requestError) Error() string {
	text := e.what
	if e.kind != nil {
		text += ": " + e.kind.Error()
	}
	text += ": " + e.detail
	if e.hint != "" {
		text += "; " + e.hint
	}
	return text
}

func (e *requestError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// fail describes the failure of a request about key ("" for the whole store).
func (s *Store) fail(ctx context.Context, verb, key string, err error) error {
	failed := &requestError{what: verb + " " + s.location(key), cause: err}
	if ended := ctx.Err(); ended != nil {
		failed.kind, failed.detail = ended, "the request was given up"
		if givenUp, is := errors.AsType[*givenUpError](err); is {
			failed.detail = "the last try failed: " + detail(givenUp.last)
			failed.hint = hint(verb, givenUp.last, classify(givenUp.last))
		}
		return failed
	}
	failed.kind = classify(err)
	failed.detail = detail(err)
	failed.hint = hint(verb, err, failed.kind)
	return failed
}

// classify returns the sentinel that a failed request means, or nil where
// trying again may help.
func classify(err error) error {
	var creds *credentialsError
	if errors.As(err, &creds) {
		if creds.passing {
			return nil
		}
		return storage.ErrDenied
	}
	switch errorCode(err) {
	case "NoSuchKey":
		return storage.ErrNotExist
	case "NoSuchBucket":
		return storage.ErrNoStore
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired",
		"InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied",
		"XAdminUserNotFound": // versitygw's word, with status 404, for an unknown key
		return storage.ErrDenied
	case "RequestTimeout", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
		"IncompleteBody", "InvalidPart", "InvalidPartOrder", "SlowDown":
		return nil // bytes or parts lost on the way
	}
	switch status := statusCode(err); {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return storage.ErrDenied
	case status == http.StatusNotFound, status == http.StatusRequestTimeout, status == http.StatusConflict,
		status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable,
		status == http.StatusTooManyRequests:
		// A 404 without S3's own words may come from something that
		// stands before the storage.
		return nil
	case status >= 300 && status < 500, status == http.StatusNotImplemented:
		return storage.ErrInvalid
	}
	return nil
}

func errorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// statusCode is the status of the response, 0 if there was none.
func statusCode(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

func responseHeader(err error, name string) string {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil && response.Response.Response != nil {
		return response.Response.Header.Get(name)
	}
	return ""
}

// preconditionFailed reports whether If-None-Match or If-Match wasn't met.
func preconditionFailed(err error) bool {
	return statusCode(err) == http.StatusPreconditionFailed || errorCode(err) == "PreconditionFailed"
}

// detail is the gist of an SDK error, whose own text repeats itself.
func detail(err error) string {
	var creds *credentialsError
	if errors.As(err, &creds) {
		return creds.Error()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		text := api.ErrorCode()
		if message := oneLine(api.ErrorMessage()); message != "" && message != text {
			text += ": " + message
		}
		if status := statusCode(err); status != 0 {
			text += fmt.Sprintf(" (HTTP %d", status)
			if request := oneLine(responseHeader(err, "X-Amz-Request-Id")); request != "" {
				text += ", request " + request
			}
			text += ")"
		}
		return text
	}
	var sent *url.Error
	if errors.As(err, &sent) {
		return sent.Err.Error() // without the URL, which what has said already
	}
	return err.Error()
}

// oneLine makes a server's text fit for a message of one line.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func hint(verb string, err, kind error) string {
	switch errorCode(err) {
	case "NoSuchBucket":
		return "create the bucket, or correct the repository's URL"
	case "RequestTimeTooSkewed":
		return "correct this machine's clock"
	case "NoSuchUpload":
		return "the upload may have gone through, or somebody removed it; try again"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect":
		if region := oneLine(responseHeader(err, "X-Amz-Bucket-Region")); region != "" {
			return "the bucket is in region " + region + ": set region=" + region + " in the repository's URL"
		}
		return "check region and endpoint in the repository's URL"
	}
	var creds *credentialsError
	switch {
	case errors.As(err, &creds):
		return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
	case errorCode(err) == "AccessDenied" && (verb == "get" || verb == "stat"):
		return "check what the credentials are allowed to do; who may not list the bucket gets this answer for a missing object, too"
	case errors.Is(kind, storage.ErrDenied):
		return "check the credentials and what they are allowed to do"
	case statusCode(err) == http.StatusNotFound && kind == nil:
		return "the answer isn't S3's; check the endpoint in the repository's URL"
	}
	return ""
}
