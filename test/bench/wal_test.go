//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

var (
	runs     = flag.Int("runs", 3, "rounds that are timed, after one that samples memory")
	segments = flag.Int("segments", 64, "segments that wait, and that are recovered")
	output   = flag.String("output", "/dev/stdout", "file for the tables")
	calls    = flag.Int("calls", 10, "cold calls of a kind in each round")
)

// made is how many segments are kept in the cache, at least.
const made = 64

// The tables, in the order of printing.
const (
	coldPush = iota
	coldFetch
	coldMiss
	coldAgain
	pushCPU
	fetchCPU
	backlogCall
	drainSpeed
	doneSpeed
	redoTime
	drainMemory
	drainMemoryMost
	redoMemory
	storedBytes
	pushRequests
	fetchRequests
	missRequests
	againRequests
	drainRequests
	redoRequests
	metricCount
)

// none is the metric of what isn't recorded.
const none = -1

func metrics() [metricCount]Metric {
	compressing := []string{"zstd -1", "zstd -1 + PUT"}
	all := [metricCount]Metric{
		coldPush:        {Title: "One call that pushes a segment, ms", Decimals: 1, Against: compressing, Peers: true},
		coldFetch:       {Title: "One call that fetches a segment, ms", Decimals: 1, Against: compressing, Peers: true},
		coldMiss:        {Title: "One call that asks for a segment that isn't there, ms", Decimals: 1, Peers: true},
		coldAgain:       {Title: "One call that pushes a segment that is archived already, ms", Decimals: 1, Peers: true},
		pushCPU:         {Title: "Processor time of one call that pushes a segment, ms", Decimals: 1, Against: compressing, Peers: true},
		fetchCPU:        {Title: "Processor time of one call that fetches a segment, ms", Decimals: 1, Against: compressing, Peers: true},
		backlogCall:     {Title: fmt.Sprintf("Calls one after the other while %d segments wait: the quickest quarter takes at most, ms", backlog()), Decimals: 1, Against: []string{"true"}, Peers: true},
		drainSpeed:      {Title: fmt.Sprintf("PostgreSQL's archiver with %d segments waiting, segments/s", *segments), Decimals: 1, Better: More, Against: append(compressing, "cp"), Peers: true},
		doneSpeed:       {Title: fmt.Sprintf("PostgreSQL's archiver with %d segments that the call before has archived, segments/s", *segments-1), Decimals: 1, Better: More, Against: []string{"true"}, Peers: true},
		redoTime:        {Title: fmt.Sprintf("Redo of %d segments, s", *segments), Decimals: 2, Against: []string{"cp"}, Peers: true},
		drainMemory:     {Title: "Peak memory of all processes while archiving, shared pages counted once, MiB"},
		drainMemoryMost: {Title: "The same as the sum of each process's own peak, MiB"},
		redoMemory:      {Title: "Peak memory of all processes in recovery, shared pages counted once, MiB"},
		storedBytes:     {Title: fmt.Sprintf("Stored for %d segments, MiB", *segments), Decimals: 1, Peers: true},
		pushRequests:    {Title: "Requests of one push", Decimals: 1},
		fetchRequests:   {Title: "Requests of one fetch", Decimals: 1},
		missRequests:    {Title: "Requests of one fetch of what isn't there", Decimals: 1},
		againRequests:   {Title: "Requests of one push of what is archived already", Decimals: 1},
		drainRequests:   {Title: "Requests per segment while archiving", Decimals: 2},
		redoRequests:    {Title: "Requests per segment in recovery", Decimals: 2},
	}
	aim := func(metric int, row, of string, limit float64) {
		all[metric].Aims = append(all[metric].Aims, Aim{row, of, limit})
	}
	for _, level := range []struct {
		row           string
		speed, stored float64
	}{{"walship default", 1.2, 1.05}, {"walship fastest", 1.4, 1.15}} {
		aim(drainSpeed, level.row, TheBestPeer, level.speed)
		aim(doneSpeed, level.row, "true", 1.0/3)
		aim(redoTime, level.row, "cp", 1.35)
		aim(drainMemory, level.row, "", 128)
		aim(drainMemoryMost, level.row, "", 128)
		aim(storedBytes, level.row, TheBestPeer, level.stored)
		aim(pushRequests, level.row, "", 1)
		aim(fetchRequests, level.row, "", 1)
		aim(missRequests, level.row, "", 2)
	}
	aim(coldPush, "walship fastest", "pgBackRest zstd 1", 0.9)
	return all
}

// backlog is how many segments wait while calls are made one after the other.
func backlog() int { return min(*segments, 16) }

// result is what was measured at one place.
type result struct {
	place *place
	rows  [metricCount][]Row // by contestant
}

// load is how busy the machine is: its load average of the last minute.
func load(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	average, _, _ := strings.Cut(string(text), " ")
	return average
}

// TestWAL measures and prints the tables. Contestants take turns, so that what
// else the machine does meets all of them.
func TestWAL(t *testing.T) {
	if *runs < 1 || *segments < 2 || *calls < 1 {
		t.Fatal("-runs and -calls must be at least 1, and -segments at least 2")
	}
	before := load(t)
	progress("load average before the start: %s; it ought to be near 0", before)
	// Whoever interrupts it leaves nothing behind either.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := newBench(ctx, t)
	walship := pgtest.BuildWalship(t)
	var results []*result
	fields := map[*result][]contestant{}
	for _, p := range []*place{b.directory, b.bucket} {
		r := &result{place: p}
		fields[r] = contestants(p, walship)
		for m := range r.rows {
			for _, c := range fields[r] {
				r.rows[m] = append(r.rows[m], Row{Name: c.name, Peer: c.peer})
			}
		}
		results = append(results, r)
	}
	for round := range *runs + 1 {
		for _, r := range results {
			for i, c := range fields[r] {
				progress("round %d of %d, %s: %s", round, *runs, r.place.name, c.name)
				if !t.Run(fmt.Sprintf("%s/%s/%d", r.place.name, c.name, round), func(t *testing.T) {
					b.measure(ctx, t, r, i, c, round == 0)
				}) {
					t.FailNow()
				}
			}
		}
	}
	shareFloors(results[0], results[1])
	if err := os.WriteFile(*output, report(t, results, before), 0o644); err != nil {
		t.Fatal(err)
	}
}

// report is what is printed in the end.
func report(t *testing.T, results []*result, load string) []byte {
	t.Helper()
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s Load average before the start: %s.\n\n", machine(t), load)
	all := metrics()
	each := func(write func(m Metric, rows []Row)) {
		for m, metric := range all {
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

// shareFloors shows what copies to a directory reach beside what S3 does.
func shareFloors(directory, s3 *result) {
	for _, m := range []int{backlogCall, drainSpeed, doneSpeed, redoTime} {
		other := func(r Row) bool { return r.Name != "true" && r.Name != "cp" }
		floors := slices.DeleteFunc(slices.Clone(directory.rows[m]), other)
		s3.rows[m] = append(floors, s3.rows[m]...)
	}
}

// machine says what this was measured on, and how often.
func machine(t *testing.T) string {
	return fmt.Sprintf("%s %d rounds of %d segments.", platform(t), *runs, *segments)
}

// platform says what this was measured on, and when.
func platform(t *testing.T) string {
	t.Helper()
	model := "unknown processor"
	if file, err := os.Open("/proc/cpuinfo"); err == nil {
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s; %s;", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), model, versions(t))
}

// progress tells whoever waits what is going on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// settle has the kernel write what it still has to, so that the next
// contestant doesn't wait for the work of the one before.
func settle() { syscall.Sync() }
