//go:build integration

package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestStoppedInBatch is fault 3 in a batch: a push that gets SIGTERM stops in
// time. It has succeeded if its own segment is stored, and another call finds
// the rest. Of the archiver's pushes that doesn't restart the archiver.
func TestStoppedInBatch(t *testing.T) {
	t.Parallel()
	const most = 20
	server := s3test.Start(t, s3test.VersityGW)
	requests, through := newLedger(t, server)
	site := newSite(t, 15, siteOptions{server: through, encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	c := site.cluster
	c.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, c)
	names := site.backlog(t, "row", most)
	pid := c.SQL(t, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'")

	for _, call := range []struct{ at, code int }{{0, 10}, {7, 0}} {
		cmd := site.commandOn(t, c, "wal", "push", "pg_wal/"+names[0])
		started, ended := make(chan struct{}), make(chan struct{})
		var asked time.Time
		requests.begin(func(entry string) {
			if <-started; entry == "PUT "+names[call.at]+".zst.age" {
				asked = time.Now()
				_ = cmd.Process.Signal(syscall.SIGTERM) // ProcessState says how it ended
				<-ended                                 // the answer mustn't be quicker than the signal
			}
		})
		var said strings.Builder
		cmd.Stderr = &said
		err := cmd.Start()
		close(started)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		close(ended)
		if took := time.Since(asked); asked.IsZero() || took > 5*time.Second {
			t.Errorf("stopped at segment %d, the push took %v", call.at, took)
		}
		if code := cmd.ProcessState.ExitCode(); code != call.code {
			t.Errorf("stopped at segment %d, the push ended with %d, want %d: %s", call.at, code, call.code, said.String())
		}
	}
	if stored := site.files(t); len(stored) >= most {
		t.Errorf("the stopped pushes stored %d files", len(stored))
	}

	stopped := 0
	requests.begin(func(entry string) {
		if stopped == 0 && entry == "PUT "+names[12]+".zst.age" { // uploads are one after the other
			stopped = c.Signal(syscall.SIGTERM, func(command string) bool { return strings.HasPrefix(command, site.binary+" ") })
		}
	})
	site.drain(t, names)
	requests.begin(nil)
	if stopped == 0 {
		t.Error("no push of the archiver was stopped")
	}
	if now := c.SQL(t, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'"); now != pid {
		t.Errorf("the archiver was restarted:\n%s", c.Log(t))
	}
	site.once(t, names)
	uploads, err := server.Client().ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: aws.String(server.Bucket)})
	if err != nil || len(uploads.Uploads) > 0 {
		t.Errorf("%d uploads are left over (%v)", len(uploads.Uploads), err)
	}
}

// TestShutdownInBatch is rule 27 and faults 3 and 8: a storage that falls silent
// in the middle of a batch keeps a fast shutdown waiting for no longer than the
// pushes' deadline, for each of the calls that PostgreSQL makes: three in the
// cycle that runs, a second apart, and three in the last one.
func TestShutdownInBatch(t *testing.T) {
	t.Parallel()
	const (
		most     = 24
		deadline = time.Second // of gated
		calls    = 6
	)
	site, gate, _ := gated(t, true)
	c := site.cluster
	site.backup(t, c)
	names := site.backlog(t, "row", most)
	sent := 0
	gate.observe(func(toServer bool, n int) {
		if toServer { // one connection at a time: segments are published in their order
			sent += n
		}
		if sent > 20_000 {
			sent = -1 << 40
			gate.set(gateSilent)
		}
	})
	c.Configure(t, "archive_command", site.binary+" --config "+site.config+" wal push %p")
	pgtest.WaitFor(t, "a push that hangs", func() bool { return gate.turnedAway() > 0 })
	start := time.Now()
	c.Stop(t, pgtest.Fast)
	if took := time.Since(start); took > calls*(deadline+time.Second)+5*time.Second {
		t.Errorf("the server took %v to stop:\n%s", took, c.Log(t))
	}
	gate.observe(nil)
	gate.set(gateOpen)
	if stored := len(site.files(t)); stored == 0 || stored >= most {
		t.Errorf("%d files were stored before the silence", stored)
	}
	c.Start(t)
	for _, name := range append(names, segments(t, c, "after", 1)...) {
		c.WaitArchived(t, name)
	}
	site.once(t, names)
}
