//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestCopiedBucket is fault 19: all objects are copied to another bucket, the
// last first, so that modification times are new and in the opposite order. It
// is the same repository: lists and plans are, and what a restore chooses.
func TestCopiedBucket(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t, s3test.VersityGW)
	site := newSite(t, 15, siteOptions{server: server, encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	segments(t, c, "one", 2)
	last := site.backup(t, c)
	segments(t, c, "two", 2)
	want := c.SQL(t, rows)
	c.Stop(t, pgtest.Fast)

	questions := [][]string{
		{"backup", "list", "--json"}, {"wal", "list", "--files", "--json"}, {"wal", "search", "--json"},
		{"restore", "plan", "--no-probe", "--json", "--target-directory", filepath.Join(site.dir, "copied")},
		{"restore", "plan", "--no-probe", "--json", "--timeline", "current", "--target-directory", filepath.Join(site.dir, "copied")},
	}
	before := make([]string, len(questions))
	for i, question := range questions {
		before[i] = site.walship(t, question...).Stdout
	}
	if !strings.Contains(before[3], last) {
		t.Errorf("the plan isn't of the last backup, %s:\n%s", last, before[3])
	}

	const bucket = "copied-bucket"
	copyReversed(t, server, bucket)
	text, err := os.ReadFile(site.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, site.config, strings.ReplaceAll(string(text), "s3://"+server.Bucket+"/", "s3://"+bucket+"/"))
	for i, question := range questions {
		after := strings.ReplaceAll(site.walship(t, question...).Stdout, "s3://"+bucket+"/", "s3://"+server.Bucket+"/")
		if after != before[i] {
			t.Errorf("walship %s answers otherwise from the copy:\n%s", strings.Join(question, " "), diff(t, before[i], after))
		}
	}
	restored := site.restore(t, "copied")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != want {
		t.Errorf("rows %q, want %q", got, want)
	}
}

// copyReversed copies what is in a server's bucket to a new one, the last key
// first, and removes it from the old one.
func copyReversed(t *testing.T, server *s3test.Server, bucket string) {
	t.Helper()
	client := server.Client()
	if _, err := client.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
		t.Fatal(err)
	}
	list, err := client.ListObjectsV2(t.Context(), &awss3.ListObjectsV2Input{Bucket: aws.String(server.Bucket)})
	if err != nil || aws.ToBool(list.IsTruncated) {
		t.Fatalf("list the bucket: %v", err)
	}
	for _, object := range slices.Backward(list.Contents) {
		_, err := client.CopyObject(t.Context(), &awss3.CopyObjectInput{
			Bucket: aws.String(bucket), Key: object.Key, CopySource: aws.String(server.Bucket + "/" + url.PathEscape(*object.Key)),
		})
		if err != nil {
			t.Fatalf("copy %s: %v", *object.Key, err)
		}
	}
	empty(t, server)
}

// TestClockOff is fault 20: this machine's clock is a day from the storage's.
// walship says so, and archives, backs up and restores all the same.
func TestClockOff(t *testing.T) {
	t.Parallel()
	offs := []time.Duration{24 * time.Hour}
	if full() {
		offs = append(offs, -24*time.Hour)
	}
	for _, off := range offs {
		t.Run(off.String(), func(t *testing.T) {
			server := otherClock(t, s3test.Start(t, s3test.VersityGW), off)
			site := newSite(t, 15, siteOptions{server: server, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
			c := site.cluster
			said := site.walship(t, "--repository", server.URL("another"), "init", "--no-encryption").Stdout
			warning := regexp.MustCompile(`WARNING: this machine's clock is (-?\d+) s from the storage's`).FindStringSubmatch(said)
			if warning == nil {
				t.Fatalf("init doesn't say that the clock is off:\n%s", said)
			}
			seconds, err := strconv.Atoi(warning[1])
			if found := time.Duration(-seconds) * time.Second; err != nil || (found-off).Abs() > time.Minute {
				t.Errorf("init says %q of a storage whose clock is off by %v", warning[0], off)
			}
			c.Exec(t, "CREATE TABLE t (id serial, name text)")
			site.backup(t, c)
			segments(t, c, "row", 3)
			want := c.SQL(t, rows)
			c.Stop(t, pgtest.Fast)
			restored := site.restore(t, "restored")
			restored.Start(t)
			restored.WaitPromoted(t)
			if got := restored.SQL(t, rows); got != want {
				t.Errorf("rows %q, want %q", got, want)
			}
		})
	}
}

// otherClock returns a server as seen through one with another clock. It refuses
// what is signed at another time than its own, as S3 does, and tells its time
// with every answer.
func otherClock(t *testing.T, server *s3test.Server, off time.Duration) *s3test.Server {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	const signedAt = "20060102T150405Z"
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Authorization")
			credentials := aws.Credentials{AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
			err := signer.SignHTTP(r.Out.Context(), credentials, r.Out, r.Out.Header.Get("X-Amz-Content-Sha256"), "s3", s3test.Region, time.Now())
			if err != nil {
				t.Errorf("sign a request anew: %v", err)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			for _, header := range []string{"Date", "Last-Modified"} {
				if at, err := http.ParseTime(r.Header.Get(header)); err == nil {
					r.Header.Set(header, at.Add(off).UTC().Format(http.TimeFormat))
				}
			}
			return nil
		},
	}
	var refused atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(off)
		if at, err := time.Parse(signedAt, r.Header.Get("X-Amz-Date")); err != nil || now.Sub(at).Abs() > 15*time.Minute {
			refused.Add(1)
			w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the server's time is too large.</Message></Error>`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		front.Close()
		if refused.Load() == 0 {
			t.Error("no request was refused for its time")
		}
	})
	through := *server
	through.Endpoint = front.URL
	return &through
}
