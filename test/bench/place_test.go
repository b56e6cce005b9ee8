//go:build bench

package bench

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// place is where repositories lie: each below a prefix of its own.
type place struct {
	name   string
	dir    string         // of all repositories; "" in S3
	server *s3test.Server // nil in a directory
	front  *front
}

func directory(t *testing.T) *place {
	return &place{name: "directory", dir: pgtest.WorkDir(t)}
}

func bucket(t *testing.T) *place {
	server := s3test.Start(t, s3test.VersityGW)
	return &place{name: "S3", server: server, front: startFront(t, server.Endpoint)}
}

// requests returns how many requests do makes to the place; none if it is a
// directory.
func (p *place) requests(do func()) int64 {
	if p.front == nil {
		do()
		return 0
	}
	return p.front.requests(do)
}

// stored adds up what a repository holds: how many different segments, and the
// bytes of them.
func (p *place) stored(t *testing.T, prefix string) (segments int, bytes int64) {
	t.Helper()
	seen := map[string]bool{}
	p.walk(t, prefix, func(key string, size int64) {
		if name := segmentName.FindString(filepath.Base(key)); name != "" {
			seen[name] = true
			bytes += size
		}
	})
	return len(seen), bytes
}

// remove removes a repository.
func (p *place) remove(t *testing.T, prefix string) {
	t.Helper()
	if p.server == nil {
		if err := os.RemoveAll(filepath.Join(p.dir, prefix)); err != nil {
			t.Fatal(err)
		}
		return
	}
	var keys []string
	p.walk(t, prefix, func(key string, _ int64) { keys = append(keys, key) })
	client := p.server.Client()
	for _, key := range keys {
		if _, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &p.server.Bucket, Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
}

// walk calls visit for each object or file of a repository.
func (p *place) walk(t *testing.T, prefix string, visit func(key string, size int64)) {
	t.Helper()
	var err error
	if p.server == nil {
		err = walkFiles(filepath.Join(p.dir, prefix), visit)
	} else {
		err = walkObjects(t.Context(), p.server, prefix+"/", visit)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func walkFiles(dir string, visit func(string, int64)) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			visit(path, info.Size())
		}
		return err
	})
}

func walkObjects(ctx context.Context, server *s3test.Server, prefix string, visit func(string, int64)) error {
	pages := s3.NewListObjectsV2Paginator(server.Client(), &s3.ListObjectsV2Input{Bucket: &server.Bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, object := range page.Contents {
			visit(aws.ToString(object.Key), aws.ToInt64(object.Size))
		}
	}
	return nil
}
