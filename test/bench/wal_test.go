//go:build bench

package bench

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

var (
	runs     = flag.Int("runs", 5, "rounds that are timed, after one that samples memory")
	segments = flag.Int("segments", 64, "segments that wait, and that are recovered")
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
	backlogCall
	drainSpeed
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

func metrics() [metricCount]Metric {
	return [metricCount]Metric{
		coldPush:        {Title: "One call that pushes a segment, ms", Decimals: 1},
		coldFetch:       {Title: "One call that fetches a segment, ms", Decimals: 1},
		coldMiss:        {Title: "One call that asks for a segment that isn't there, ms", Decimals: 1},
		coldAgain:       {Title: "One call that pushes a segment that is archived already, ms", Decimals: 1},
		backlogCall:     {Title: fmt.Sprintf("Calls one after the other while %d segments wait: the quickest quarter takes at most, ms", backlog()), Decimals: 1},
		drainSpeed:      {Title: fmt.Sprintf("PostgreSQL's archiver with %d segments waiting, segments/s", *segments), Decimals: 1, Better: More},
		redoTime:        {Title: fmt.Sprintf("Redo of %d segments, s", *segments), Decimals: 2},
		drainMemory:     {Title: "Peak memory of all processes while archiving, shared pages counted once, MiB", Decimals: 0, Plain: true},
		drainMemoryMost: {Title: "The same as sum of each process's own peak, MiB", Decimals: 0, Plain: true},
		redoMemory:      {Title: "Peak memory of all processes in recovery, shared pages counted once, MiB", Decimals: 0, Plain: true},
		storedBytes:     {Title: fmt.Sprintf("Stored for %d segments, MiB", *segments), Decimals: 1},
		pushRequests:    {Title: "Requests of one push", Decimals: 1, Plain: true},
		fetchRequests:   {Title: "Requests of one fetch", Decimals: 1, Plain: true},
		missRequests:    {Title: "Requests of one fetch of what isn't there", Decimals: 1, Plain: true},
		againRequests:   {Title: "Requests of one push of what is archived already", Decimals: 1, Plain: true},
		drainRequests:   {Title: "Requests per segment while archiving", Decimals: 2, Plain: true},
		redoRequests:    {Title: "Requests per segment in recovery", Decimals: 2, Plain: true},
	}
}

// backlog is how many segments wait while calls are made one after the other.
func backlog() int { return min(*segments, 16) }

// result is what was measured at one place.
type result struct {
	place *place
	rows  [metricCount][]Row // by contestant
}

// TestWAL measures and prints the tables. Contestants take turns, so that what
// else the machine does meets all of them.
func TestWAL(t *testing.T) {
	if *runs < 1 || *segments < 2 || *calls < 1 {
		t.Fatal("-runs and -calls must be at least 1, and -segments at least 2")
	}
	b := newBench(t)
	walship := pgtest.BuildWalship(t)
	var results []*result
	fields := map[*result][]contestant{}
	for _, p := range []*place{b.directory, b.bucket} {
		r := &result{place: p}
		fields[r] = contestants(p, walship)
		for m := range r.rows {
			for _, c := range fields[r] {
				r.rows[m] = append(r.rows[m], Row{Name: c.name, Peer: c.peer, Floor: c.floor})
			}
		}
		results = append(results, r)
	}
	for round := range *runs + 1 {
		for _, r := range results {
			for i, c := range fields[r] {
				progress("round %d of %d, %s: %s", round, *runs, r.place.name, c.name)
				if !t.Run(fmt.Sprintf("%s/%s/%d", r.place.name, c.name, round), func(t *testing.T) {
					b.measure(t, r, i, c, round == 0)
				}) {
					t.FailNow()
				}
			}
		}
	}
	shareFloors(results)
	fmt.Println(machine())
	for m, metric := range metrics() {
		for _, r := range results {
			titled := metric
			titled.Title += " (" + r.place.name + ")"
			WriteTable(os.Stdout, titled, r.rows[m])
		}
	}
}

// shareFloors holds what was measured in S3 against plain copies to a directory
// too.
func shareFloors(results []*result) {
	for _, m := range []int{coldPush, coldFetch, backlogCall, drainSpeed, redoTime} {
		for _, row := range results[0].rows[m] {
			if row.Name == "true" || row.Name == "cp" {
				for _, r := range results[1:] {
					r.rows[m] = append([]Row{row}, r.rows[m]...)
				}
			}
		}
	}
}

// machine says what this was measured on.
func machine() string {
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
	return fmt.Sprintf("%s, %d cores, %s; %s; %d rounds of %d segments.", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), model,
		strings.Join(versions(), ", "), *runs, *segments)
}

// progress tells whoever waits what is going on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// settle has the kernel write what it still has to, so that the next
// contestant doesn't wait for the work of the one before.
func settle() { syscall.Sync() }
