//go:build bench

package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walship/walship/test/pgtest"
)

// nobody is the user that everything measured runs as, as with pgtest.
const nobody = 65534

// bench is what stays the same from one measurement to the next.
type bench struct {
	material
	directory, bucket *place
	env               []string
	archiver          *pgtest.Cluster // has all segments
	conn              *pgx.Conn       // to it
	end               string          // LSN at which each recovery ended
}

func newBench(ctx context.Context, t *testing.T) *bench {
	b := &bench{material: newMaterial(ctx, t, max(*segments, made)), directory: directory(t), bucket: bucket(t)}
	b.segments = b.segments[:*segments]
	b.env = append(b.bucket.server.Env(), "SSL_CERT_FILE="+b.bucket.front.bundle, marker())
	b.archiver = pgtest.Open(t, major, b.cluster, pgtest.Set("autovacuum", "off"), pgtest.Env(b.env...))
	b.archiver.Start(t)
	b.conn = b.archiver.Conn(t, "postgres")
	return b
}

// measure does all that is measured with one contestant at one place. The
// first round samples memory, which takes time, so nothing of it is timed.
func (b *bench) measure(ctx context.Context, t *testing.T, r *result, i int, c contestant, sampled bool) {
	t.Helper()
	record := func(metric int, value float64) {
		row := &r.rows[metric][i]
		row.Values = append(row.Values, value)
	}
	if !sampled {
		b.repository(ctx, t, r.place, c, func(s setting, do commands) { b.cold(ctx, t, s, c, do, record) })
	}
	if c.coldOnly {
		return
	}
	if !sampled {
		b.repository(ctx, t, r.place, c, func(_ setting, do commands) { record(backlogCall, b.backlogCalls(ctx, t, do)) })
		if c.ahead {
			b.repository(ctx, t, r.place, c, func(_ setting, do commands) { record(doneSpeed, b.drainDone(ctx, t, do)) })
		}
	}
	b.repository(ctx, t, r.place, c, func(s setting, do commands) {
		requests := s.place.requests(func() {
			if sampled {
				_, peak := b.drain(ctx, t, do, b.segments, startSampler())
				record(drainMemory, mebibytes(peak.shared))
				record(drainMemoryMost, mebibytes(peak.most))
			} else {
				seconds, _ := b.drain(ctx, t, do, b.segments, nil)
				record(drainSpeed, float64(*segments)/seconds)
			}
		})
		if do.fetch == "" {
			return
		}
		b.countStored(t, s, record)
		if s.place.server != nil {
			record(drainRequests, float64(requests)/float64(*segments))
		}
		if c.noRedo || c.floor && sampled {
			return
		}
		redo := s.place.requests(func() {
			if sampled {
				_, peak := b.recover(ctx, t, s, do, startSampler())
				record(redoMemory, mebibytes(peak.shared))
			} else {
				seconds, _ := b.recover(ctx, t, s, do, nil)
				record(redoTime, seconds)
			}
		})
		if s.place.server != nil {
			record(redoRequests, float64(redo)/float64(*segments))
		}
	})
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// repository makes a repository, has it used, and removes it with all that
// belongs to it.
func (b *bench) repository(ctx context.Context, t *testing.T, p *place, c contestant, use func(setting, commands)) {
	t.Helper()
	s := setting{dir: pgtest.WorkDir(t), place: p, dataDir: b.cluster, env: b.env}
	s.prefix = filepath.Base(s.dir)
	defer p.remove(t, s.prefix)
	use(s, c.prepare(t, s))
	waitQuiet(ctx, t)
}

func (b *bench) countStored(t *testing.T, s setting, record func(int, float64)) {
	t.Helper()
	count, bytes := s.place.stored(t, s.prefix)
	if count != *segments {
		t.Fatalf("%d segments are archived, and the repository holds %d", *segments, count)
	}
	record(storedBytes, mebibytes(bytes))
}

// cold makes single calls, each with nothing left running from the one before,
// and with nothing else to push. Floors aren't asked to push again, because they
// don't look whether a segment is there.
func (b *bench) cold(ctx context.Context, t *testing.T, s setting, c contestant, do commands, record func(int, float64)) {
	t.Helper()
	var names []string
	for i := range min(*calls, *segments) {
		names = append(names, b.segments[i*len(b.segments)/min(*calls, *segments)])
	}
	settle()
	series := func(times, cpu, requests int, each func(name string) usage) {
		var took, used, counted []float64
		for _, name := range names {
			counted = append(counted, float64(s.place.requests(func() {
				u := each(name)
				took, used = append(took, milliseconds(u.took)), append(used, milliseconds(u.cpu))
				waitQuiet(ctx, t)
			})))
		}
		record(times, SpreadOf(took).Median)
		if cpu != none && !c.detached {
			record(cpu, SpreadOf(used).Median)
		}
		if s.place.server != nil {
			record(requests, SpreadOf(counted).Median)
		}
	}
	push := func(name string) usage {
		b.mark(t, []string{name})
		return b.call(ctx, t, b.cluster, expand(do.push, name, "pg_wal/"+name, b.cluster), 0)
	}
	series(coldPush, pushCPU, pushRequests, push)
	if do.fetch == "" {
		return
	}
	if !c.floor {
		series(coldAgain, none, againRequests, push)
	}
	// Backwards, so that nothing that is asked for was fetched ahead.
	slices.Reverse(names)
	recovered := b.copyBase(t, s)
	const fetched = "pg_wal/RECOVERYXLOG"
	path := filepath.Join(recovered, fetched)
	series(coldFetch, fetchCPU, fetchRequests, func(name string) usage {
		used := b.call(ctx, t, recovered, expand(do.fetch, name, fetched, recovered), 0)
		same(t, path, filepath.Join(b.cluster, "pg_wal", name))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return used
	})
	series(coldMiss, none, missRequests, func(name string) usage {
		// Another timeline's, which nobody has pushed.
		return b.call(ctx, t, recovered, expand(do.fetch, "000000FF"+name[8:], fetched, recovered), 1)
	})
}

// same fails the test unless two files have equal content.
func same(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expected, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, expected) {
		t.Fatalf("what was fetched to %s isn't what was pushed from %s", path, want)
	}
}

// expand puts in what PostgreSQL would.
func expand(command, name, path, dataDir string) string {
	return strings.NewReplacer("%f", name, "%p", path, "DATA", dataDir).Replace(command)
}

// usage is what one call took.
type usage struct {
	took time.Duration
	cpu  time.Duration // of it and of those that it has waited for
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// call runs a command as PostgreSQL does, by a shell in the data directory, and
// returns what it took. It fails the test if success was expected and isn't
// there, or the other way round.
func (b *bench) call(ctx context.Context, t *testing.T, dir, command string, code int) usage {
	t.Helper()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", "TZ=UTC"}, b.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	// A file, and not a pipe, which would be open until the last process that
	// the command leaves behind has ended.
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	started := time.Now()
	err = cmd.Run()
	took := time.Since(started)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", command, err)
	}
	if (err == nil) != (code == 0) {
		text, _ := os.ReadFile(output.Name()) // it helps, but isn't needed
		t.Fatalf("%s: %v, and exit code %d was expected\n%s", command, cmd.ProcessState, code, text)
	}
	return usage{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

// backlogCalls pushes the first segments of a backlog one after the other, as
// the archiver does, and returns the 25th percentile of the calls in ms: what a
// call takes whose segment an earlier one has pushed.
func (b *bench) backlogCalls(ctx context.Context, t *testing.T, do commands) float64 {
	t.Helper()
	names := b.segments[:backlog()]
	b.mark(t, names)
	b.warm(t, names)
	settle()
	var took []float64
	for _, name := range names {
		took = append(took, milliseconds(b.call(ctx, t, b.cluster, expand(do.push, name, "pg_wal/"+name, b.cluster), 0).took))
		status := filepath.Join(b.cluster, "pg_wal/archive_status", name)
		if err := os.Rename(status+".ready", status+".done"); err != nil {
			t.Fatal(err)
		}
	}
	waitQuiet(ctx, t)
	slices.Sort(took)
	return took[len(took)/4]
}

// mark makes PostgreSQL believe that those segments wait for the archiver, and
// no others.
func (b *bench) mark(t *testing.T, ready []string) {
	t.Helper()
	dir := filepath.Join(b.cluster, "pg_wal/archive_status")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".ready"); ok {
			if err := os.Rename(filepath.Join(dir, entry.Name()), filepath.Join(dir, name+".done")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range ready {
		if err := os.Remove(filepath.Join(dir, name+".done")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		pgtest.WriteNobody(t, filepath.Join(dir, name+".ready"), "")
	}
}

// warm has the kernel's cache hold the segments, as when they were just written.
func (b *bench) warm(t *testing.T, names []string) {
	t.Helper()
	for _, name := range names {
		file, err := os.Open(filepath.Join(b.cluster, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// drainDone has PostgreSQL archive what a call for the first segment has taken
// along, and returns how many segments it archives in a second.
func (b *bench) drainDone(ctx context.Context, t *testing.T, do commands) float64 {
	t.Helper()
	b.mark(t, b.segments)
	mark := filepath.Join(b.cluster, "first-call")
	if err := os.RemoveAll(mark); err != nil {
		t.Fatal(err)
	}
	b.setCommand(t, do.push+" && mkdir first-call && false") // so that PostgreSQL doesn't go on to the next one
	poll(ctx, t, time.Minute, "the first call", func() bool {
		_, err := os.Stat(mark)
		return err == nil
	})
	b.archiver.Configure(t, "archive_command", "")
	waitQuiet(ctx, t)
	rest := b.segments[1:]
	seconds, _ := b.drain(ctx, t, do, rest, nil)
	return float64(len(rest)) / seconds
}

// setCommand has PostgreSQL archive by a command from now on, which is returned
// in seconds since 1970, by its clock. What it has counted of archiving before is
// forgotten.
func (b *bench) setCommand(t *testing.T, command string) (now float64) {
	t.Helper()
	b.exec(t, "SELECT pg_stat_reset_shared('archiver')")
	b.exec(t, "ALTER SYSTEM SET archive_command = '"+strings.ReplaceAll(command, "'", "''")+"'")
	if err := b.conn.QueryRow(t.Context(), "SELECT extract(epoch FROM clock_timestamp()), pg_reload_conf()").Scan(&now, nil); err != nil {
		t.Fatal(err)
	}
	return now
}

// drain has PostgreSQL archive those segments, and returns the seconds from the
// moment when it learned how to the moment when it had noted the last one.
func (b *bench) drain(ctx context.Context, t *testing.T, do commands, names []string, memory *sampler) (seconds float64, peak footprint) {
	t.Helper()
	defer func() { peak = memory.end() }()
	defer b.archiver.Configure(t, "archive_command", "")
	b.mark(t, names)
	b.warm(t, names)
	settle()
	started := b.setCommand(t, do.push)
	poll(ctx, t, 10*time.Minute, "the archiver to be done", func() bool {
		var archived, failed int
		err := b.conn.QueryRow(t.Context(), "SELECT archived_count, failed_count, extract(epoch FROM last_archived_time) - $1 FROM pg_stat_archiver", started).
			Scan(&archived, &failed, &seconds)
		if err != nil && archived > 0 || failed > 0 {
			t.Fatalf("archive: %d segments failed: %v\n%s", failed, err, b.archiver.Log(t))
		}
		return archived == len(names)
	})
	waitQuiet(ctx, t)
	return seconds, peak
}

func (b *bench) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := b.conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("execute %s: %v", statement, err)
	}
}

// copyBase copies the data directory from before the WAL.
func (b *bench) copyBase(t *testing.T, s setting) string {
	t.Helper()
	dir := s.path("recovered")
	s.run(t, "rm", "-rf", dir)
	s.run(t, "cp", "-a", b.base, dir)
	return dir
}

var redoLine = regexp.MustCompile(`(?m)^(\S+ \S+) UTC \[\d+\] LOG:  redo (?:starts|done) at ([0-9A-F]+/[0-9A-F]+)`)

// recover has a server recover all segments, and returns the seconds between
// the lines of its log in which redo starts and is done.
func (b *bench) recover(ctx context.Context, t *testing.T, s setting, do commands, memory *sampler) (seconds float64, peak footprint) {
	t.Helper()
	defer func() { peak = memory.end() }()
	dir := b.copyBase(t, s)
	pgtest.WriteNobody(t, filepath.Join(dir, "recovery.signal"), "")
	settle()
	c := pgtest.Open(t, major, dir, pgtest.Set("archive_mode", "off"), pgtest.Env(b.env...),
		pgtest.Set("restore_command", strings.ReplaceAll(do.fetch, "DATA", dir)))
	c.Start(t)
	poll(ctx, t, 10*time.Minute, "the end of recovery", func() bool {
		return !c.Running() || strings.Contains(c.Log(t), "archive recovery complete")
	})
	log := c.Log(t)
	if !c.Running() {
		t.Fatalf("the server ended in recovery:\n%s", log)
	}
	c.Stop(t, pgtest.Immediate)
	waitQuiet(ctx, t)
	lines := redoLine.FindAllStringSubmatch(log, -1)
	if len(lines) != 2 {
		t.Fatalf("the log doesn't say when redo started and when it was done:\n%s", log)
	}
	if b.end == "" {
		b.end = lines[1][2]
	}
	if lines[1][2] != b.end {
		t.Fatalf("redo ended at %s, and with others at %s:\n%s", lines[1][2], b.end, log)
	}
	return logTime(t, lines[1][1]).Sub(logTime(t, lines[0][1])).Seconds(), peak
}

func logTime(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02 15:04:05.000", text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// waitQuiet waits until nothing that PostgreSQL's commands started still runs.
func waitQuiet(ctx context.Context, t *testing.T) {
	t.Helper()
	poll(ctx, t, 2*time.Minute, "background processes to end", func() bool { return len(marked()) == 0 })
}

// poll waits until done returns true.
func poll(ctx context.Context, t *testing.T, most time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited up to %v for %s: %v", most, what, ctx.Err())
		}
	}
}

// versions names what takes part, as Debian calls it.
func versions(t *testing.T) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "dpkg-query", "--show", "--showformat=${Package} ${Version}, ",
		"postgresql-15", "pgbackrest", "zstd", "curl").Output()
	if err != nil {
		t.Fatalf("ask for versions: %v", err)
	}
	return string(output) + runtime.Version()
}
