//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestSearchMemory: what a search holds of segments doesn't follow their size.
func TestSearchMemory(t *testing.T) {
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(64)}})
	for range 8 {
		s.cluster.Exec(t, "CREATE TABLE IF NOT EXISTS things (id int)", "TRUNCATE things")
		s.cluster.SwitchWAL(t)
	}
	s.cluster.Archive(t)
	for _, args := range [][]string{{"--dropped"}, {"--checkpoints"}, {}} {
		cmd := s.command(t, append([]string{"wal", "search"}, args...)...)
		var output strings.Builder
		cmd.Stdout = &output
		const limit = 256 // MiB
		most := peakMemory(t, cmd) >> 20
		if output.Len() < 100 {
			t.Fatalf("search %q found little: %s", args, output.String())
		}
		if most == 0 || most > limit {
			t.Errorf("search %q of eight segments of 64 MiB takes %d MiB, more than %d", args, most, limit)
		}
	}
}

// TestSearchRollup: the second search over 256 segments reads one roll-up of
// them, and finds the same.
func TestSearchRollup(t *testing.T) {
	t.Parallel()
	s := newSite(t, 15, siteOptions{cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	s.cluster.Stop(t, pgtest.Fast)
	pgtest.MustRun(t, s.cluster.Tool(t.Context(), t, "pg_resetwal", "--next-wal-file", "0000000100000000000000FF", s.cluster.DataDir))
	s.cluster.Start(t)
	s.cluster.Exec(t, "CREATE TABLE things (id int, note text)")
	for i := range 400 {
		// Some records cross into the next segment.
		s.cluster.Exec(t, fmt.Sprintf("INSERT INTO things SELECT g, repeat('x', 500) FROM generate_series(1, %d) g", i*13%900))
		if i%5 > 0 {
			s.cluster.Exec(t, "SELECT pg_switch_wal()")
		}
	}
	s.cluster.Archive(t)
	type report struct {
		Headers, Rollups, Written int
	}
	search := func() (events []foundEvent, r report) {
		var output struct {
			Events []foundEvent
			Report struct {
				Headers int `json:"headers_read"`
				Rollups int `json:"rollups_read"`
				Written int `json:"rollups_written"`
			}
		}
		if err := json.Unmarshal([]byte(s.walship(t, "wal", "search", "--json", "--from-lsn", "0/FF00000").Stdout), &output); err != nil {
			t.Fatal(err)
		}
		return output.Events, report(output.Report)
	}
	first, before := search()
	second, after := search()
	if before.Written != 1 || before.Rollups != 0 || after.Written != 0 || after.Rollups != 1 || after.Headers != before.Headers-256 {
		t.Errorf("the first search costs %+v, the second %+v", before, after)
	}
	if len(first) < 200 || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("the first search finds %d events, the second %d", len(first), len(second))
	}
}
