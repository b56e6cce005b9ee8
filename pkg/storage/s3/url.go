package s3

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walship/walship/pkg/storage"
)

// settings are what a repository's URL says.
type settings struct {
	bucket       string
	prefix       string // "" or ending in "/"
	region       string // "": the SDK's own
	endpoint     string // "": AWS
	pathStyle    bool
	storageClass types.StorageClass
	sse          types.ServerSideEncryption
	kmsKeyID     string
	partSize     int64 // bytes
}

const (
	minPartSize     = 5 << 20 // S3's own smallest, except for a last part
	maxPartSize     = 1 << 30
	defaultPartSize = 16 << 20
)

const optionNames = "endpoint, part_size, path_style, region, sse, sse_kms_key_id, storage_class"

// Compiled when they are asked for: a call that needs no storage starts sooner.
var (
	bucketName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`) })
	className  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`) })
	regionName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9-]+$`) })
)

// parseURL reads a repository's URL. Errors wrap storage.ErrInvalid and quote
// only what can't be a secret.
func parseURL(raw string) (settings, error) {
	set, err := parse(raw)
	if err != nil {
		return settings{}, fmt.Errorf("parse S3 URL: %w: %w", storage.ErrInvalid, err)
	}
	return set, nil
}

func parse(raw string) (settings, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return settings{}, errors.New("not a URL of the form s3://bucket/prefix?region=…")
	}
	if u.Scheme != "s3" || u.Opaque != "" {
		return settings{}, errors.New("it doesn't start with s3://")
	}
	if u.User != nil {
		return settings{}, errors.New("it carries credentials; leave them to the AWS SDK's own chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or a role")
	}
	if u.Fragment != "" {
		return settings{}, errors.New("it has a fragment (#…)")
	}
	if u.Host == "" {
		return settings{}, errors.New("it names no bucket: s3://bucket/prefix")
	}
	if !bucketName().MatchString(u.Host) {
		return settings{}, fmt.Errorf("bucket %q isn't 3 to 63 lower-case letters, digits, dots and hyphens", u.Host)
	}
	set := settings{bucket: u.Host, partSize: defaultPartSize}
	if prefix := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/"); prefix != "" {
		if err := storage.ValidKey(prefix); err != nil {
			return settings{}, fmt.Errorf("the prefix: %w", err)
		}
		set.prefix = prefix + "/"
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return settings{}, errors.New("its options aren't of the form ?name=value&name=value")
	}
	for name, values := range options {
		if len(values) != 1 {
			return settings{}, fmt.Errorf("option %q is given %d times", name, len(values))
		}
		if err := set.option(name, values[0]); err != nil {
			return settings{}, err
		}
	}
	if set.kmsKeyID != "" && !strings.HasPrefix(string(set.sse), "aws:kms") {
		return settings{}, errors.New("option sse_kms_key_id needs sse=aws:kms or sse=aws:kms:dsse")
	}
	return set, nil
}

func (s *settings) option(name, value string) error {
	wrong := func(want string) error {
		return fmt.Errorf("option %s=%q: want %s", name, value, want)
	}
	switch name {
	case "endpoint":
		u, err := url.Parse(value)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") ||
			u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return errors.New("option endpoint: want an http or https URL of a server, without user, path or query")
		}
		s.endpoint = u.Scheme + "://" + u.Host
	case "part_size":
		size, err := parseSize(value)
		if err != nil || size < minPartSize || size > maxPartSize {
			return wrong("5MB to 1GB (units kB, MB, GB)")
		}
		s.partSize = size
	case "path_style":
		if value != "true" && value != "false" {
			return wrong("true or false")
		}
		s.pathStyle = value == "true"
	case "region":
		if !regionName().MatchString(value) {
			return wrong("a region such as eu-central-1")
		}
		s.region = value
	case "sse":
		switch s.sse = types.ServerSideEncryption(value); s.sse {
		case types.ServerSideEncryptionAes256, types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse:
		default:
			return wrong("AES256, aws:kms or aws:kms:dsse")
		}
	case "sse_kms_key_id":
		if value == "" {
			return wrong("a key id, alias or ARN")
		}
		s.kmsKeyID = value
	case "storage_class":
		switch s.storageClass = types.StorageClass(value); {
		case s.storageClass == types.StorageClassGlacier, s.storageClass == types.StorageClassDeepArchive:
			return wrong("a class whose objects can be read at once, such as STANDARD_IA or GLACIER_IR")
		case !className().MatchString(value):
			return wrong("a storage class such as STANDARD_IA")
		}
	default:
		// The value isn't shown: it may be somebody's secret key.
		return fmt.Errorf("unknown option %q; the options are %s", name, optionNames)
	}
	return nil
}

// parseSize reads a number of bytes, with PostgreSQL's units.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kMGB")
	factor, known := map[string]int64{"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[text[len(digits):]]
	if !known {
		return 0, errors.New("unknown unit")
	}
	number, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, err
	}
	return number * factor, nil
}
