//go:build bench

package bench

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

var gibibytes = flag.Int("gib", 2, "size of pgbench's tables of which backups are taken, in GiB")

// The tables of backups, in the order of printing.
const (
	saveTime = iota
	saveCPU
	saveMemory
	saveStored
	restoreTime
	restoreMemory
	incrementalTime
	incrementalMemory
	incrementalRead
	incrementalStored
	incrementalRestore
	saveRead // beside incrementalRead
	saveMetricCount
)

func saveMetrics() [saveMetricCount]Metric {
	floors := []string{"cp -a", "tar, zstd -1", "pg_basebackup"}
	full := []string{"walship, full", "pgBackRest, full"}
	all := [saveMetricCount]Metric{
		saveTime:      {Title: "Full backup, s", Decimals: 2, Against: floors, Peers: true},
		saveCPU:       {Title: "Processor time of a full backup, s", Decimals: 2, Against: floors, Peers: true},
		saveMemory:    {Title: "Peak memory of all processes in a full backup, the sum of each one's own peak, MiB"},
		saveStored:    {Title: "Stored for a full backup, MiB", Decimals: 1, Against: floors, Peers: true},
		restoreTime:   {Title: "Restore, s", Decimals: 2, Against: floors, Peers: true},
		restoreMemory: {Title: "Peak memory of all processes in a restore, the sum of each one's own peak, MiB"},

		incrementalTime:    {Title: "Incremental backup after 1 % of the blocks changed, s", Decimals: 2, Against: full, Peers: true},
		incrementalMemory:  {Title: "Peak memory of all processes in an incremental backup, the sum of each one's own peak, MiB"},
		incrementalRead:    {Title: "Read for an incremental backup, from anywhere, MiB", Decimals: 1, Against: []string{clusterFiles, changedBlocks}},
		incrementalStored:  {Title: "Stored for an incremental backup, MiB", Decimals: 1, Against: full, Peers: true},
		incrementalRestore: {Title: "Restore of a full and an incremental backup, s", Decimals: 2, Against: full, Peers: true},
		saveRead:           {Title: "Read for a full backup, from anywhere, MiB", Decimals: 1},
	}
	aim := func(metric int, row, of string, limit float64) {
		all[metric].Aims = append(all[metric].Aims, Aim{row, of, limit})
	}
	aim(saveTime, "walship", "pgBackRest", 1/1.2)
	aim(saveMemory, "walship", "", 256)
	aim(saveStored, "walship", "pgBackRest", 1.05)
	aim(restoreTime, "walship", "pgBackRest", 1/1.4)
	aim(restoreTime, "walship", "tar, zstd -1", 1.5)
	aim(incrementalTime, "walship", "walship, full", 0.1)
	aim(incrementalMemory, "walship", "", 256)
	aim(incrementalRead, "walship", clusterFiles, 0.05)
	return all
}

// saved is what was measured of backups at one place.
type saved struct {
	place *place
	rows  [saveMetricCount][]Row // by saver
	// What incremental backups are held against, in MiB.
	files, changed Row
}

// TestBackup measures and prints the tables of backups, as TestWAL does for WAL.
func TestBackup(t *testing.T) {
	if *runs < 1 || *gibibytes < 1 {
		t.Fatal("-runs and -gib must be at least 1")
	}
	before := load(t)
	progress("load average before the start: %s; it ought to be near 0", before)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	places := []*place{directory(t), bucket(t)}
	env := append(places[1].server.Env(), "SSL_CERT_FILE="+places[1].front.bundle, marker())
	source := newSample(ctx, t, *gibibytes, pgtest.Set("archive_mode", "on"), pgtest.Set("shared_buffers", "128MB"),
		pgtest.Set("autovacuum", "off"), pgtest.Set("wal_keep_size", "1GB"), pgtest.Env(env...))
	walship := pgtest.BuildWalship(t)
	var results []*saved
	for _, p := range places {
		r := &saved{place: p, files: Row{Name: clusterFiles}, changed: Row{Name: changedBlocks}}
		for m := range r.rows {
			for _, s := range savers(p, walship) {
				r.rows[m] = append(r.rows[m], Row{Name: s.name, Peer: s.peer})
			}
		}
		results = append(results, r)
	}
	for round := range *runs + 1 {
		for _, r := range results {
			for i, s := range savers(r.place, walship) {
				if round == 0 && s.floor {
					continue // of which no memory is shown
				}
				progress("round %d of %d, %s: %s", round, *runs, r.place.name, s.name)
				if !t.Run(fmt.Sprintf("%s/%s/%d", r.place.name, s.name, round), func(t *testing.T) {
					b := &backupBench{source: source, env: env, sampled: round == 0}
					b.measure(ctx, t, r, i, s)
				}) {
					t.FailNow()
				}
			}
		}
	}
	for _, r := range results {
		r.addFull()
	}
	// What copies to a directory take stands beside what S3 does.
	for _, m := range []int{saveTime, saveCPU, restoreTime} {
		results[1].rows[m] = append(append([]Row{}, results[0].rows[m][:3]...), results[1].rows[m]...)
	}
	if err := os.WriteFile(*output, saveReport(t, results, before), 0o644); err != nil {
		t.Fatal(err)
	}
}

func saveReport(t *testing.T, results []*saved, load string) []byte {
	t.Helper()
	var text bytes.Buffer
	what := fmt.Sprintf("%d rounds of %d GiB and %d small relations.", *runs, *gibibytes, smallRelations)
	fmt.Fprintf(&text, "%s %s Load average before the start: %s.\n\n", platform(t), what, load)
	each := func(write func(m Metric, rows []Row)) {
		for m, metric := range saveMetrics() {
			for _, r := range results {
				titled := metric
				titled.Title += " (" + r.place.name + ")"
				write(titled, r.rows[m])
			}
		}
	}
	WriteAimsHead(&text)
	each(func(m Metric, rows []Row) { WriteAims(&text, m, rows) })
	each(func(m Metric, rows []Row) { WriteTable(&text, m, rows) })
	return text.Bytes()
}

// backupBench is one round of one saver. The first round samples memory, which
// takes time, so nothing of it is timed.
type backupBench struct {
	source  *sample
	env     []string
	sampled bool
}

func (b *backupBench) measure(ctx context.Context, t *testing.T, r *saved, i int, saver saver) {
	t.Helper()
	record := func(metric int, value float64) {
		row := &r.rows[metric][i]
		row.Values = append(row.Values, value)
	}
	c := b.source.cluster
	s := setting{dir: pgtest.WorkDir(t), place: r.place, dataDir: c.DataDir, env: b.env}
	s.prefix = filepath.Base(s.dir)
	defer r.place.remove(t, s.prefix)
	do := saver.prepare(t, s, b.source)
	c.Configure(t, "archive_command", do.archive)
	defer c.Configure(t, "archive_command", "")
	settle()
	took, peak, read := b.call(ctx, t, s, do.push)
	if b.sampled {
		record(saveMemory, mebibytes(peak.most))
	} else if !b.sampled {
		record(saveTime, took.took.Seconds())
		record(saveCPU, took.cpu.Seconds())
		record(saveRead, mebibytes(read))
	}
	if !b.sampled {
		record(saveStored, mebibytes(r.place.storedBackup(t, s.prefix)))
	}
	waitQuiet(ctx, t)
	if do.restore == "" {
		return
	}
	took, peak = b.restore(ctx, t, s, do)
	if b.sampled {
		record(restoreMemory, mebibytes(peak.most))
	} else if !b.sampled {
		record(restoreTime, took.took.Seconds())
	}
	if do.incremental != "" {
		b.measureIncremental(ctx, t, s, r, saver, do, record)
	}
}

// restore restores the latest backup to a directory, which goes away again.
func (b *backupBench) restore(ctx context.Context, t *testing.T, s setting, do saving) (usage, footprint) {
	t.Helper()
	target := s.path("restored")
	settle()
	took, peak, _ := b.call(ctx, t, s, strings.ReplaceAll(do.restore, "TARGET", target))
	// It has to be a cluster of the size that was backed up.
	if _, err := os.Stat(filepath.Join(target, "data/global/pg_control")); err != nil {
		t.Fatal(err)
	}
	s.run(t, "rm", "-rf", target)
	return took, peak
}

// call runs a shell's command as the user of the cluster, and returns what it
// took, and how many bytes it read. It fails the test unless it succeeds.
func (b *backupBench) call(ctx context.Context, t *testing.T, s setting, command string) (usage, footprint, int64) {
	t.Helper()
	c := b.source.cluster
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", "set -o pipefail; "+counted(command, s.path("io")))
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", "TZ=UTC",
		"PGHOST=" + c.SocketDir, "PGUSER=postgres", "PGDATABASE=postgres", "PGDATA=" + c.DataDir}, b.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	var memory *sampler
	if b.sampled {
		memory = startSampler()
	}
	started := time.Now()
	err := cmd.Run()
	took := time.Since(started)
	peak := memory.end()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output.String())
	}
	return usage{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, peak, readBytes(t, s.path("io"))
}
