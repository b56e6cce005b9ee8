//go:build integration

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// seedVariable names the environment variable that repeats the choices of an
// earlier run of a test that chooses by chance.
const seedVariable = "WALSHIP_TEST_SEED"

func chooseSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedVariable)
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	return seed
}

// TestSoak lets a busy server with little room for WAL archive under blows:
// pushes and the archiver are killed at moments of a seeded sample (faults 1
// and 3), the storage is away, silent or overloaded for moments, or its answers
// get lost (7, 8, 11, 15), the server is restarted. Afterwards nothing that
// PostgreSQL took for archived is missing, and a backup from the beginning is
// restored to the end with equal rows.
func TestSoak(t *testing.T) {
	t.Parallel()
	majors, rounds := []pgtest.Major{15}, 1
	if full() {
		majors, rounds = pgtest.Majors(), 6
	}
	seed := chooseSeed(t)
	for _, major := range majors {
		t.Run(major.String(), func(t *testing.T) {
			t.Logf("%s=%d repeats the blows", seedVariable, seed)
			s := newSoak(t, major, seed)
			id := s.backup(t, s.cluster)
			stop := s.load(t)
			s.blows(t, rounds)
			stop()
			s.finish(t)
			s.audit(t)
			s.restored(t, id)
		})
	}
}

// soak is a site under blows.
type soak struct {
	*site
	server  *s3test.Server // without what stands before it
	gate    *gate
	weather *weather
	random  *rand.Rand
	done    *doneWatch
	want    string // the database in the end
	batched bool   // pushes took others along
}

func newSoak(t *testing.T, major pgtest.Major, seed uint64) *soak {
	t.Helper()
	s := &soak{server: s3test.Start(t, s3test.VersityGW), random: rand.New(rand.NewPCG(seed, uint64(major)))}
	var through *s3test.Server
	s.weather, through = newWeather(t, s.server)
	s.gate, through = newGate(t, through)
	s.site = newSite(t, major, siteOptions{
		server: through, encrypted: true, settings: "log.level = \"debug\"\nwal.push_deadline = \"2s\"",
		cluster: []pgtest.Option{
			pgtest.SegmentSize(1), pgtest.Set("min_wal_size", "2MB"), pgtest.Set("max_wal_size", "8MB"),
		},
	})
	// PostgreSQL would wait for ten seconds behind each command that a signal
	// has ended.
	command := s.binary + " --config " + s.config + " wal push %p"
	s.cluster.Configure(t, "archive_command", command+` || { code=$?; test $code -gt 125 && exit 125; exit $code; }`)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the archive is kept in %s", s.keep(t))
		}
	})
	s.done = watchDone(t, filepath.Join(s.cluster.DataDir, "pg_wal", "archive_status"))
	pgtest.MustRun(t, s.pgbench(t.Context(), t, "--initialize", "--quiet"))
	return s
}

// blows deals every kind of blow, in a random order. Each is seen to strike.
func (s *soak) blows(t *testing.T, rounds int) {
	t.Helper()
	kinds := []struct {
		count  int
		strike func(*testing.T)
	}{
		{2, s.unavailable}, {2, s.overloaded}, {2, s.silent}, {3, s.answersLost},
		{6, s.pushKilledSending}, {3, s.pushKilledAtSight}, {2, s.pushTerminated},
		{1, s.archiverKilled}, {1, s.crash}, {1, s.restart},
	}
	var order []func(*testing.T)
	for _, kind := range kinds {
		for range kind.count * rounds {
			order = append(order, kind.strike)
		}
	}
	s.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, strike := range order {
		strike(t)
		s.noteBatch(t)
	}
}

// noteBatch remembers that a push took other segments along.
func (s *soak) noteBatch(t *testing.T) {
	t.Helper()
	s.batched = s.batched || tookAlong.MatchString(s.cluster.Log(t))
}

// tookAlong is what a push logs that archived others beside its own segment.
var tookAlong = regexp.MustCompile(`along=[1-9]`)

// outage lasts until a push has failed by it.
func (s *soak) outage(t *testing.T, what string, begin func(), struck func() int) {
	t.Helper()
	failures := func() int { return strings.Count(s.cluster.Log(t), "failed with exit code 10") }
	before := failures()
	begin()
	pgtest.WaitFor(t, "a push to fail with the storage "+what, func() bool { return struck() > 0 && failures() > before })
	s.gate.set(gateOpen)
	s.weather.set(weatherFair)
}

func (s *soak) unavailable(t *testing.T) {
	s.outage(t, "away", func() { s.gate.set(gateShut) }, s.gate.turnedAway)
}

func (s *soak) silent(t *testing.T) {
	s.outage(t, "silent", func() { s.gate.set(gateSilent) }, s.gate.turnedAway)
}

func (s *soak) overloaded(t *testing.T) {
	s.outage(t, "overloaded", func() { s.weather.set(weatherSlowDown) }, s.weather.struck)
}

// answersLost has the answers to a few uploads lost.
func (s *soak) answersLost(t *testing.T) {
	s.weather.set(weatherLost)
	pgtest.WaitFor(t, "answers to get lost", func() bool { return s.weather.struck() > 2 })
	s.weather.set(weatherFair)
}

// signalPush sends a signal to the pushes that the server runs, and tells
// whether there was one.
func (s *soak) signalPush(signal syscall.Signal) bool {
	return s.cluster.Signal(signal, func(command string) bool {
		return strings.HasPrefix(command, s.binary+" ") && strings.Contains(command, " wal push ")
	}) > 0
}

// pushKilledSending kills a push somewhere in what it exchanges with the
// storage: a segment has up to 1 MiB, and its answer comes at the end.
func (s *soak) pushKilledSending(t *testing.T) {
	limit, answer := s.random.IntN(300_000), s.random.IntN(3) == 0
	var mu sync.Mutex
	sent, struck := 0, false
	s.gate.observe(func(toServer bool, n int) {
		mu.Lock()
		defer mu.Unlock()
		if toServer {
			sent += n
		}
		if !struck && sent > limit && toServer != answer {
			struck = s.signalPush(syscall.SIGKILL)
		}
	})
	pgtest.WaitFor(t, fmt.Sprintf("a push to kill behind %d bytes", limit), func() bool {
		mu.Lock()
		defer mu.Unlock()
		return struck
	})
	s.gate.observe(nil)
}

// pushKilledAtSight kills a push wherever it is when it is seen.
func (s *soak) pushKilledAtSight(t *testing.T) {
	pgtest.WaitFor(t, "a push to kill", func() bool { return s.signalPush(syscall.SIGKILL) })
}

// pushTerminated is what a push gets that somebody stops.
func (s *soak) pushTerminated(t *testing.T) {
	pgtest.WaitFor(t, "a push to stop", func() bool { return s.signalPush(syscall.SIGTERM) })
}

// archiverKilled kills the archiver, which makes the server recover from a
// crash. A push that it has started goes on beside the next ones.
func (s *soak) archiverKilled(t *testing.T) {
	archiver := func(signal syscall.Signal) bool {
		return s.cluster.Signal(signal, func(command string) bool { return strings.HasPrefix(command, "postgres: archiver") }) > 0
	}
	ready := func() int { return strings.Count(s.cluster.Log(t), "database system is ready to accept connections") }
	before := ready()
	pgtest.WaitFor(t, "the archiver", func() bool { return archiver(syscall.SIGKILL) })
	pgtest.WaitFor(t, "the server to recover", func() bool { return ready() > before })
	// The server starts no archiver within ten seconds of the last one, and
	// thinks of it when something wakes it.
	pgtest.WaitFor(t, "a new archiver", func() bool { return s.cluster.SQL(t, "SELECT 1") == "1" && archiver(0) })
}

func (s *soak) crash(t *testing.T) {
	s.cluster.Stop(t, pgtest.Immediate)
	s.cluster.Start(t)
}

func (s *soak) restart(t *testing.T) { s.cluster.Restart(t) }

// pgbench prepares the machine's own pgbench on the site's cluster.
func (s *soak) pgbench(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := pgtest.Command(ctx, t, 15, "pgbench", append(args, s.cluster.ConnString("postgres"))...)
	cmd.Dir = s.cluster.Dir
	return cmd
}

// load keeps the server busy until stop is called, whatever happens to it.
func (s *soak) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			// It ends with its connections. The server takes new ones soon.
			_ = s.pgbench(ctx, t, "--no-vacuum", "--client=4", "--rate=300", "--time=3600").Run()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// finish has everything archived, and stops the server as an administrator
// does: nothing of its WAL may stay behind.
func (s *soak) finish(t *testing.T) {
	t.Helper()
	c := s.cluster
	pgtest.WaitFor(t, "pgbench's connections to end", func() bool {
		return c.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'") == "0"
	})
	c.Archive(t)
	s.noteBatch(t)
	if got := c.SQL(t, balanced); got != "t" {
		t.Errorf("the server's own accounts aren't balanced: %s", got)
	}
	if n := c.SQL(t, "SELECT count(*) FROM pgbench_history"); n == "0" {
		t.Error("pgbench did nothing")
	}
	s.want = c.Dump(t, "postgres")
	c.Stop(t, pgtest.Fast)
	if !s.batched {
		t.Error("no push took a segment along")
	}
}

// balanced says whether every transaction of pgbench is there as a whole.
const balanced = `SELECT (SELECT sum(abalance) FROM pgbench_accounts) = all (ARRAY[
	(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)])`

// restored restores the backup from the beginning to the end.
func (s *soak) restored(t *testing.T, id string) {
	t.Helper()
	restored := s.restore(t, "restored", "--backup", id)
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, balanced); got != "t" {
		t.Errorf("the restored accounts aren't balanced: %s", got)
	}
	if got := restored.Dump(t, "postgres"); got != s.want {
		t.Errorf("the restored database differs:\n%s", diff(t, s.want, got))
	}
	s.amcheck(t, restored)
}
