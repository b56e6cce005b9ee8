//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/pkg/storage/s3"
	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestKilledUpload is faults 1 and 22: a push that is killed in the middle of an
// upload in parts leaves nothing that can be seen, the next one succeeds, and
// what the killed ones left on the server can be collected.
func TestKilledUpload(t *testing.T) {
	const (
		name = "000000010000000000000001"
		size = 128 << 20 // more than is held in memory
	)
	server := s3test.Start(t, s3test.VersityGW)
	gate, through := newGate(t, server)
	site := newSite(t, 15, siteOptions{server: through, encrypted: true})
	c := pgtest.New(t, 15, pgtest.SegmentSize(size>>20), pgtest.Env(site.env...))
	path := filepath.Join(c.DataDir, "pg_wal", name)
	fill(t, path, 40<<20, 60<<20)

	uploads := func() int {
		list, err := server.Client().ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: aws.String(server.Bucket)})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Uploads)
	}
	left := 0
	for _, limit := range []int{10 << 20, 50 << 20} {
		cmd := site.commandOn(t, c, "wal", "push", path)
		if !killDuring(t, gate, cmd, func(_ bool, sent int) bool { return sent > limit }) {
			t.Errorf("the push wasn't killed behind %d MiB: %v", limit>>20, cmd.ProcessState)
		}
		left++
		if n := uploads(); n != left {
			t.Errorf("behind %d kills there are %d uploads: the kill struck no upload in parts", left, n)
		}
		if result := site.try(t, "wal", "show", name); result.Code != 1 || !strings.Contains(result.Stderr, "not in the archive") {
			t.Errorf("wal show of a segment whose push was killed: exit code %d\n%s", result.Code, result.Stderr)
		}
	}
	pgtest.MustRun(t, site.commandOn(t, c, "wal", "push", path))
	dest := filepath.Join(c.DataDir, "pg_wal", "RECOVERYXLOG")
	pgtest.MustRun(t, site.commandOn(t, c, "wal", "fetch", name, dest))
	sameContent(t, path, dest)

	server.SetEnv(t)
	store, err := s3.Open(t.Context(), server.URL(filepath.Base(site.dir)), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, sweep := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), left}} {
		if swept, err := store.Sweep(t.Context(), "", sweep.before); err != nil || swept != sweep.want {
			t.Errorf("sweep what was begun before %v: %d, want %d (%v)", sweep.before, swept, sweep.want, err)
		}
	}
	if n := uploads(); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	if show := site.walship(t, "wal", "show", "--json", name).Stdout; !strings.Contains(show, fmt.Sprintf(`"plain_size": %d`, size)) {
		t.Errorf("the segment isn't whole behind the sweep:\n%s", show)
	}
}
