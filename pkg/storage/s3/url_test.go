package s3

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walship/walship/pkg/storage"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		want settings
	}{
		{"s3://bucket", settings{bucket: "bucket", partSize: defaultPartSize}},
		{"s3://bucket/", settings{bucket: "bucket", partSize: defaultPartSize}},
		{"s3://my.bucket-1/a/b/", settings{bucket: "my.bucket-1", prefix: "a/b/", partSize: defaultPartSize}},
		{"s3://bucket/p?region=eu-central-1&endpoint=http://127.0.0.1:7070&path_style=true", settings{
			bucket: "bucket", prefix: "p/", region: "eu-central-1", endpoint: "http://127.0.0.1:7070", pathStyle: true, partSize: defaultPartSize,
		}},
		{"s3://bucket?endpoint=https%3A%2F%2Fs3.example.org%2F&path_style=false&part_size=5MB", settings{
			bucket: "bucket", endpoint: "https://s3.example.org", partSize: 5 << 20,
		}},
		{"s3://bucket?storage_class=STANDARD_IA&sse=AES256&part_size=1GB", settings{
			bucket: "bucket", storageClass: types.StorageClassStandardIa, sse: types.ServerSideEncryptionAes256, partSize: 1 << 30,
		}},
		{"s3://bucket?sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu-central-1:111122223333:key/k&part_size=8388608", settings{
			bucket: "bucket", sse: types.ServerSideEncryptionAwsKms, kmsKeyID: "arn:aws:kms:eu-central-1:111122223333:key/k", partSize: 8 << 20,
		}},
	} {
		if got, err := parseURL(c.url); err != nil || got != c.want {
			t.Errorf("parseURL(%q) = %+v, %v; want %+v", c.url, got, err, c.want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, c := range []struct{ url, text string }{
		{"", "s3://"},
		{"http://bucket", "s3://"},
		{"s3:bucket", "s3://"},
		{"s3://", "names no bucket"},
		{"s3:///prefix", "names no bucket"},
		{"s3://Bucket/p", "lower-case"},
		{"s3://b", "lower-case"},
		{"s3://bucket:443/p", "lower-case"},
		{"s3://bucket/a//b", "empty segment"},
		{"s3://bucket/../b", "segment . or .."},
		{"s3://bucket/a b", "character"},
		{"s3://bucket/p#f", "fragment"},
		{"s3://bucket/%zz", "not a URL"},
		{"s3://bucket/?region=%zz", "options"},
		{"s3://hunter2@bucket/p", "AWS_ACCESS_KEY_ID"},
		{"s3://key:hunter2@bucket/p", "AWS_ACCESS_KEY_ID"},
		{"s3://bucket?secret_access_key=hunter2", "endpoint, part_size, path_style, region, sse, sse_kms_key_id, storage_class"},
		{"s3://bucket?Region=x", `unknown option "Region"`},
		{"s3://bucket?region=a&region=b", "2 times"},
		{"s3://bucket?region=", "a region such as"},
		{"s3://bucket?region=eu/x", "a region such as"},
		{"s3://bucket?path_style=yes", "true or false"},
		{"s3://bucket?path_style", "true or false"},
		{"s3://bucket?endpoint=127.0.0.1:7070", "http or https"},
		{"s3://bucket?endpoint=ftp://host", "http or https"},
		{"s3://bucket?endpoint=http://u:hunter2@host", "http or https"},
		{"s3://bucket?endpoint=http://host/path", "http or https"},
		{"s3://bucket?storage_class=standard", "such as STANDARD_IA"},
		{"s3://bucket?storage_class=GLACIER", "read at once"},
		{"s3://bucket?storage_class=DEEP_ARCHIVE", "read at once"},
		{"s3://bucket?sse=aes", "AES256"},
		{"s3://bucket?sse_kms_key_id=k", "needs sse=aws:kms"},
		{"s3://bucket?sse=AES256&sse_kms_key_id=k", "needs sse=aws:kms"},
		{"s3://bucket?sse=aws:kms&sse_kms_key_id=", "a key id"},
		{"s3://bucket?part_size=4MB", "5MB to 1GB"},
		{"s3://bucket?part_size=1025MB", "5MB to 1GB"},
		{"s3://bucket?part_size=9999999999GB", "5MB to 1GB"},
		{"s3://bucket?part_size=16MiB", "5MB to 1GB"},
		{"s3://bucket?part_size=-16MB", "5MB to 1GB"},
		{"s3://bucket?part_size=MB", "5MB to 1GB"},
	} {
		_, err := Open(t.Context(), c.url, "")
		if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Open(%q): %v; want ErrInvalid with %q", c.url, err, c.text)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) shows a secret: %v", c.url, err)
		}
	}
}

func TestRegion(t *testing.T) {
	for _, c := range []struct{ url, environment, want string }{
		{"s3://bucket?region=eu-west-1", "", "eu-west-1"},
		{"s3://bucket?region=eu-west-1", "eu-west-2", "eu-west-1"},
		{"s3://bucket", "eu-west-2", "eu-west-2"},
		{"s3://bucket?endpoint=http://127.0.0.1:1", "", "us-east-1"},
		{"s3://bucket?endpoint=http://127.0.0.1:1", "eu-west-2", "eu-west-2"},
	} {
		t.Setenv("AWS_REGION", c.environment)
		s, err := Open(t.Context(), c.url, "")
		if err != nil {
			t.Errorf("Open(%q): %v", c.url, err)
		} else if got := s.client.Options().Region; got != c.want {
			t.Errorf("Open(%q) signs for %q; want %q", c.url, got, c.want)
		}
	}
	t.Setenv("AWS_REGION", "")
	if _, err := Open(t.Context(), "s3://bucket", ""); !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "region=") {
		t.Errorf("Open without a region: %v; want ErrInvalid that says how to name one", err)
	}
}

// TestOptionsAreDocumented holds the documentation to the options there are.
func TestOptionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(optionNames, ", ") {
		if !strings.Contains(string(text), "\n| `"+name+"` | ") {
			t.Errorf("docs/configuration.md doesn't have the option %s", name)
		}
		if err := new(settings).option(name, "x"); err != nil && strings.Contains(err.Error(), "unknown option") {
			t.Errorf("the option %s isn't one", name)
		}
	}
}
