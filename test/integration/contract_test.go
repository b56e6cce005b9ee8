//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// gated makes a site whose storage can be taken away. Deadlines are short, so
// that an outage is noticed soon.
func gated(t *testing.T, encrypted bool) (*site, *gate, *s3test.Server) {
	t.Helper()
	server := s3test.Start(t, s3test.VersityGW)
	gate, through := newGate(t, server)
	site := newSite(t, 15, siteOptions{
		server: through, encrypted: encrypted,
		settings: "wal.push_deadline = \"1s\"\nwal.fetch_deadline = \"1s\"",
		cluster:  []pgtest.Option{pgtest.SegmentSize(1)},
	})
	site.cluster.Exec(t, "CREATE TABLE t (id serial, name text)")
	return site, gate, server
}

const rows = "SELECT coalesce(string_agg(name, ' ' ORDER BY id), '') FROM t"

// segments writes a row into each of n new segments and completes them.
func segments(t *testing.T, c *pgtest.Cluster, prefix string, n int) (names []string) {
	t.Helper()
	for i := range n {
		c.SQL(t, "INSERT INTO t (name) VALUES ($1)", fmt.Sprint(prefix, i))
		names = append(names, c.SwitchWAL(t))
	}
	return names
}

// TestArchiverOutage is fault 7 and rule 27: PostgreSQL tries again after an
// outage and loses nothing; a storage that accepts connections and never
// answers (faults 3 and 8) doesn't keep the server from stopping.
func TestArchiverOutage(t *testing.T) {
	t.Parallel()
	site, gate, _ := gated(t, true)
	c := site.cluster
	site.backup(t, c)

	gate.set(gateShut)
	names := segments(t, c, "shut", 4)
	pgtest.WaitFor(t, "the archiver's failures", func() bool {
		return c.SQL(t, "SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
	})
	if gate.turnedAway() == 0 {
		t.Error("nobody asked the storage in its outage")
	}
	if !strings.Contains(c.Log(t), "exit code 10") {
		t.Error("the server's log has no exit code 10 of the archive command")
	}
	if got := c.SQL(t, "SELECT last_archived_wal >= $1 FROM pg_stat_archiver", names[0]); got != "f" {
		t.Errorf("%s counts as archived in the outage", names[0])
	}

	gate.set(gateSilent)
	names = append(names, segments(t, c, "silent", 2)...)
	pgtest.WaitFor(t, "a push that hangs", func() bool { return gate.turnedAway() > 0 })
	start := time.Now()
	c.Stop(t, pgtest.Fast)
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("the server took %v to stop", took)
	}

	gate.set(gateOpen)
	c.Start(t)
	names = append(names, segments(t, c, "open", 1)...)
	for _, name := range names {
		c.WaitArchived(t, name)
	}
	archived := site.files(t)
	for _, name := range names {
		if !slices.Contains(archived, name) {
			t.Errorf("segment %s isn't in the repository", name)
		}
	}
	want := c.Dump(t, "postgres")
	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
}

// TestRecoveryOutage is promise 3: recovery stops where the storage can't be
// reached, rather than take what it has for all there is. It goes on when the
// storage is back.
func TestRecoveryOutage(t *testing.T) {
	t.Parallel()
	site, gate, _ := gated(t, false)
	c := site.cluster
	site.backup(t, c)
	names := segments(t, c, "row", 8)
	for _, name := range names {
		c.WaitArchived(t, name)
	}
	want := c.SQL(t, rows)
	c.Stop(t, pgtest.Fast)

	restored := site.restore(t, "restored")
	restored.AppendConf(t, "recovery_prefetch = off") // replays what it reads at once
	for _, outage := range []struct {
		name      string
		begin     func()
		replaying bool
	}{
		{"from the start", func() { gate.set(gateShut) }, false},
		{"silent", func() { gate.set(gateSilent) }, false},
		{"behind consistency", func() { gate.refuse("/" + names[5]) }, true},
	} {
		outage.begin()
		log, code := restored.StartToEnd(t)
		if code == 0 || strings.Contains(log, "selected new timeline") || strings.Contains(log, "ready to accept connections") {
			t.Fatalf("outage %s: the server ended with %d:\n%s", outage.name, code, log)
		}
		if !strings.Contains(log, "FATAL") || gate.turnedAway() == 0 {
			t.Errorf("outage %s: %d connections met it, and the server printed:\n%s", outage.name, gate.turnedAway(), log)
		}
		if got := strings.Contains(log, "consistent recovery state reached"); got != outage.replaying {
			t.Errorf("outage %s: consistency reached %v, want %v:\n%s", outage.name, got, outage.replaying, log)
		}
	}
	gate.set(gateOpen)
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != want {
		t.Errorf("rows %q, want %q", got, want)
	}
}

// TestStandbyOutage follows the archive with a standby, which stays up in an
// outage and catches up after it; and rule 16: while it isn't known whether a
// child's segment is there, its parent's isn't given out. The timeline is
// pinned, as every restore does: a standby that looks for newer ones asks for
// their history files, whose unknown answer ends it.
func TestStandbyOutage(t *testing.T) {
	t.Parallel()
	site, gate, _ := gated(t, true)
	c := site.cluster
	site.backup(t, c)
	first := segments(t, c, "first", 2)
	c.WaitArchived(t, first[1])

	standby := site.restore(t, "standby")
	signal := filepath.Join(standby.DataDir, "recovery.signal")
	if err := os.Rename(signal, filepath.Join(standby.DataDir, "standby.signal")); err != nil {
		t.Fatal(err)
	}
	standby.AppendConf(t, "wal_retrieve_retry_interval = 200ms")
	standby.Start(t)
	follows := func(what, want string) {
		t.Helper()
		pgtest.WaitFor(t, what, func() bool { return standby.SQL(t, rows) == want })
	}
	follows("the standby's first rows", c.SQL(t, rows))
	pid := standby.PID()

	gate.set(gateShut)
	second := segments(t, c, "second", 2)
	// More than one request of the standby ends unanswered: each lasts until
	// its deadline.
	unanswered := func() int { return strings.Count(standby.Log(t), "as far as the standby is told") }
	pgtest.WaitFor(t, "the standby's requests", func() bool { return unanswered() >= 2 })

	child, parent := "00000002"+first[0][8:], first[0]
	fetch := func(name string) pgtest.Result {
		return pgtest.Run(t, site.commandOn(t, standby, "wal", "fetch", name, "pg_wal/ASKED"))
	}
	if result := fetch(child); result.Code != 1 {
		t.Errorf("fetch of the child's segment in the outage: exit code %d, want 1\n%s", result.Code, result.Stderr)
	}
	if result := fetch("00000002.history"); result.Code != 255 {
		t.Errorf("fetch of a history file in the outage: exit code %d, want 255\n%s", result.Code, result.Stderr)
	}
	gate.set(gateOpen)
	for _, step := range []struct {
		name string
		want int
	}{
		{parent, 1}, // the child's answer is still unknown
		{child, 1},  // now it is known: absent
		{parent, 0},
	} {
		if result := fetch(step.name); result.Code != step.want {
			t.Errorf("fetch of %s after the outage: exit code %d, want %d\n%s", step.name, result.Code, step.want, result.Stderr)
		}
	}

	third := segments(t, c, "third", 1) // which wakes the archiver
	for _, name := range append(second, third...) {
		c.WaitArchived(t, name)
	}
	follows("the standby's last rows", c.SQL(t, rows))
	if !standby.Running() || standby.PID() != pid {
		t.Errorf("the standby didn't stay up:\n%s", standby.Log(t))
	}
}

// patience fetches a segment for a standby from a storage that is down, with
// the usual deadlines. It returns what waits for the answer: not there, after
// half a minute, because a standby asks again.
func patience(t *testing.T, site *site) (check func()) {
	t.Helper()
	standby := pgtest.New(t, 15)
	write(t, filepath.Join(standby.DataDir, "standby.signal"), "")
	url := "s3://bucket/x?region=here&path_style=true&endpoint=http://" + closedAddress(t)
	cmd := standby.Command(t.Context(), t, site.binary, "--repository", url, "wal", "fetch", "000000010000000000000001", "pg_wal/RECOVERYXLOG")
	cmd.Dir = standby.DataDir
	cmd.Env = append(cmd.Env, "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=hunter2")
	var said strings.Builder
	cmd.Stderr = &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Duration, 1)
	go func() {
		_ = cmd.Wait() // ProcessState says how it ended
		ended <- time.Since(start)
	}()
	return func() {
		t.Helper()
		took := <-ended
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "connection refused") {
			t.Errorf("fetch for a standby: exit code %d, want 1\n%s", code, said.String())
		}
		if took < 29*time.Second || took > 50*time.Second {
			t.Errorf("fetch for a standby took %v, want half a minute", took)
		}
	}
}

// killDuring runs a command and kills it as soon as when says so of what it
// exchanges with the storage. It returns whether that was what ended it.
func killDuring(t *testing.T, gate *gate, cmd *exec.Cmd, when func(toServer bool, sent int) bool) bool {
	t.Helper()
	var mu sync.Mutex // several connections are watched at once
	sent, fired := 0, false
	started := make(chan struct{})
	gate.observe(func(toServer bool, n int) {
		<-started
		mu.Lock()
		defer mu.Unlock()
		if toServer {
			sent += n
		}
		if !fired && when(toServer, sent) {
			fired = cmd.Process.Kill() == nil
		}
	})
	err := cmd.Start()
	close(started)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // ProcessState says how it ended
	gate.observe(nil)
	mu.Lock()
	defer mu.Unlock()
	return fired && cmd.ProcessState.ExitCode() == -1
}

// TestKilledPush is fault 1: a push killed anywhere in its upload leaves
// nothing that keeps the next try from success, and one object.
func TestKilledPush(t *testing.T) {
	t.Parallel()
	site, gate, server := gated(t, true)
	c := site.cluster
	site.backup(t, c)
	c.Configure(t, "archive_command", "false")
	c.Exec(t, "CREATE TABLE noise (id serial, noise text)")

	const body = 100_000 // so much is more than questions: an object is on its way
	moments := []struct {
		name  string
		batch bool
		when  func(toServer bool, sent int) bool // before the next bytes pass
	}{
		{"first question", false, func(bool, int) bool { return true }},
		{"head of the object", false, func(_ bool, sent int) bool { return sent > 2_000 }},
		{"its beginning", false, func(_ bool, sent int) bool { return sent > 20_000 }},
		{"its middle", false, func(_ bool, sent int) bool { return sent > body }},
		{"the answer", false, func(toServer bool, sent int) bool { return !toServer && sent > body }},
		// More than one object has. It takes along what waits behind the first.
		{"a batch", true, func(_ bool, sent int) bool { return sent > 600_000 }},
	}
	var names []string
	for range moments {
		c.Exec(t, "INSERT INTO noise (noise) SELECT md5(random()::text) FROM generate_series(1, 6000)")
		names = append(names, c.SwitchWAL(t))
	}
	for i, moment := range moments {
		name, env := names[i], "WALSHIP_STATE_DIRECTORY=/dev/null" // without one there is no batch
		if moment.batch {
			name, env = names[0], "WALSHIP_STATE_DIRECTORY="+filepath.Join(site.dir, "state")
		}
		cmd := site.commandOn(t, c, "wal", "push", "--wal-push-deadline=1min", "pg_wal/"+name)
		cmd.Env = append(cmd.Env, env)
		if !killDuring(t, gate, cmd, moment.when) {
			t.Errorf("the push wasn't killed at %s: %v", moment.name, cmd.ProcessState)
		}
	}

	c.Configure(t, "archive_command", site.binary+" --config "+site.config+" wal push %p")
	c.Exec(t, "INSERT INTO t (name) VALUES ('the last')")
	names = append(names, c.Archive(t))
	for _, name := range names {
		c.WaitArchived(t, name)
	}
	archived := site.files(t)
	for _, name := range names {
		if n := len(slices.DeleteFunc(slices.Clone(archived), func(s string) bool { return s != name })); n != 1 {
			t.Errorf("%d objects of segment %s, want 1", n, name)
		}
	}
	uploads, err := server.Client().ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: aws.String(server.Bucket)})
	if err != nil || len(uploads.Uploads) > 0 {
		t.Errorf("%d uploads are left over (%v)", len(uploads.Uploads), err)
	}
	want := c.Dump(t, "postgres")
	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.Dump(t, "postgres"); got != want {
		t.Errorf("the restored database differs:\n%s", diff(t, want, got))
	}
}
