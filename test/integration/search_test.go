//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

// TestSearch tells who dropped what, on every major, and goes back to right
// before it with the flags that the search prints.
func TestSearch(t *testing.T) {
	t.Parallel()
	settings := map[pgtest.Major][]pgtest.Option{
		14: {pgtest.Set("wal_compression", "on")},
		15: {pgtest.Set("wal_compression", "lz4")},
		16: {pgtest.Set("wal_level", "logical"), pgtest.Set("wal_compression", "pglz")},
		17: {pgtest.Set("wal_compression", "zstd")},
		18: {pgtest.Checksums(true)},
	}
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			options := append(settings[major], pgtest.SegmentSize(1), pgtest.Set("track_commit_timestamp", "on"), pgtest.Set("max_prepared_transactions", "5"))
			s := &busySite{site: newSite(t, major, siteOptions{encrypted: major%2 == 1, cluster: options})}
			s.walship(t, "backup", "push")
			done := happenings()
			stop := s.work(t)
			for _, h := range done {
				s.do(t, h)
			}
			stop()
			s.cluster.Exec(t, "CREATE TABLE last (id int)", "SELECT pg_create_restore_point('at the end')")
			s.cluster.Exec(t, "CHECKPOINT")
			s.cluster.Archive(t)
			found := s.dropped(t)
			compareSearch(t, found, done)
			s.checkSpans(t, found, done)
			s.checkControl(t)
			s.checkRecords(t)
			for i, h := range done {
				// One each, and all of them once.
				if h.rows != "" && (major == 15 || full() || i == int(major)%2) {
					s.goBack(t, h, found)
				}
			}
			s.checkUnknown(t, found, done)
		})
	}
}

type foundEvent struct {
	Kind      string
	Time      time.Time
	XID       uint32
	LSN       string
	Segment   string
	Redo      string `json:"redo_lsn"`
	Name      string
	Relations []foundRelation
	Restore   []string `json:"restore_flags"`
}

type foundRelation struct {
	Change, Kind, Schema, Name, File string
	Parts                            []foundRelation
}

// search runs walship wal search and returns its events by their xid.
func (s *site) search(t *testing.T, args ...string) []foundEvent {
	t.Helper()
	result := s.walship(t, append([]string{"wal", "search", "--json"}, args...)...)
	var output struct{ Events []foundEvent }
	if err := json.Unmarshal([]byte(result.Stdout), &output); err != nil {
		t.Fatalf("%v in\n%s", err, result.Stdout)
	}
	return output.Events
}

func (s *site) dropped(t *testing.T, args ...string) map[string]foundEvent {
	t.Helper()
	found := map[string]foundEvent{}
	for _, event := range s.search(t, append([]string{"--dropped"}, args...)...) {
		xid := fmt.Sprint(event.XID)
		if _, twice := found[xid]; twice {
			t.Errorf("transaction %s is there twice", xid)
		}
		found[xid] = event
	}
	return found
}

// compareSearch holds what was found against what was done.
func compareSearch(t *testing.T, found map[string]foundEvent, done []*happening) {
	t.Helper()
	for _, h := range done {
		if len(h.want)+len(h.indexes) == 0 {
			if event, ok := found[h.xid]; ok {
				t.Errorf("%s: transaction %s dropped nothing, found is %+v", h.name, h.xid, event)
			}
			continue
		}
		event, ok := found[h.xid]
		if !ok {
			t.Errorf("%s: transaction %s isn't found", h.name, h.xid)
			continue
		}
		if got := event.Time.Format("2006-01-02T15:04:05.000000"); got != h.time {
			t.Errorf("%s: the time is %s, want %s", h.name, got, h.time)
		}
		var relations, indexes []string
		var collect func(list []foundRelation)
		collect = func(list []foundRelation) {
			for _, r := range list {
				name := r.Name
				if r.Schema != "" && r.Schema != "public" && r.Schema != "pg_toast" {
					name = r.Schema + "." + name
				}
				switch r.Kind {
				case "index":
					if !strings.HasPrefix(r.Name, "pg_toast_") {
						indexes = append(indexes, r.Change+" "+r.Name)
					}
				case "TOAST table":
				default:
					relations = append(relations, r.Change+" "+r.Kind+" "+name)
				}
				collect(r.Parts)
			}
		}
		collect(event.Relations)
		slices.Sort(relations)
		slices.Sort(indexes)
		if h.name == "vacuum full of pg_class" {
			relations = slices.Compact(relations) // its indexes too
		}
		if !slices.Equal(relations, h.want) {
			t.Errorf("%s: found is %q, want %q\n%+v", h.name, relations, h.want, event)
		}
		if h.indexes != nil && !slices.Equal(indexes, h.indexes) {
			t.Errorf("%s: indexes found are %q, want %q", h.name, indexes, h.indexes)
		}
		if (h.rows != "") != (event.Restore != nil) {
			t.Errorf("%s: restore flags are %q", h.name, event.Restore)
		}
		delete(found, h.xid)
		defer func() { found[h.xid] = event }()
	}
	for xid, event := range found {
		t.Errorf("transaction %s is found: %+v", xid, event)
	}
}

// checkSpans searches around one transaction only, and for all by themselves.
func (s *site) checkSpans(t *testing.T, found map[string]foundEvent, done []*happening) {
	t.Helper()
	for _, h := range done {
		event, ok := found[h.xid]
		if !ok || !slices.Contains([]string{"drop", "vacuum full", "prepared", "slow", "drop database"}, h.name) {
			continue
		}
		at := event.Time.Format(time.RFC3339Nano)
		for _, span := range [][]string{{"--from-time", at, "--to-time", at}, {"--from-lsn", event.LSN, "--to-lsn", event.LSN}, {"--xid", h.xid}} {
			one := s.dropped(t, span...)
			// A search that has read less WAL may not know the schema's name.
			schema := strings.NewReplacer("Schema:public", "Schema:", "Schema:pg_toast", "Schema:")
			if got, want := schema.Replace(fmt.Sprintf("%+v", one[h.xid])), schema.Replace(fmt.Sprintf("%+v", event)); len(one) != 1 || got != want {
				t.Errorf("%s: a search in %q finds %d, %s, want %s", h.name, span, len(one), got, want)
			}
		}
	}
	commits := map[string]bool{}
	previous := ""
	for _, event := range s.search(t) {
		if strings.HasPrefix(event.Kind, "commit") {
			commits[fmt.Sprint(event.XID)] = true
		}
		if lsn := paddedLSN(event.LSN); lsn <= previous {
			t.Errorf("%s comes after %s", event.LSN, previous)
		} else {
			previous = lsn
		}
	}
	for _, h := range done {
		if h.time != "" && !commits[h.xid] {
			t.Errorf("%s: the commit of %s isn't found", h.name, h.xid)
		}
	}
}

// checkControl finds the last checkpoint and the restore point.
func (s *site) checkControl(t *testing.T) {
	t.Helper()
	var found []string
	for _, event := range s.search(t, "--checkpoints") {
		found = append(found, event.LSN+"|"+event.Redo)
	}
	if last := s.cluster.SQL(t, "SELECT checkpoint_lsn, redo_lsn FROM pg_control_checkpoint()"); !slices.Contains(found, last) {
		t.Errorf("checkpoint %s isn't among %q", last, found)
	}
	if points := s.search(t, "--restore-points"); len(points) != 1 || points[0].Name != "at the end" {
		t.Errorf("restore points: %+v", points)
	}
}

// waldump takes the columns of a line of pg_waldump's that walship has too.
var waldump = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +(\d+)/ *(\d+), tx: +(\d+), lsn: (\S+), prev (\S+),`)

// checkRecords holds the records of a segment against pg_waldump's.
func (s *site) checkRecords(t *testing.T) {
	t.Helper()
	if !s.cluster.HasTool("pg_waldump") {
		return
	}
	const name = "000000010000000000000008"
	columns := func(text string) (lines []string) {
		for line := range strings.Lines(text) {
			if m := waldump.FindStringSubmatch(line); m != nil {
				m[5], m[6] = paddedLSN(m[5]), paddedLSN(m[6])
				lines = append(lines, strings.Join(m[1:], " ")+fmt.Sprint(strings.Count(line, "blkref"), strings.Count(line, "FPW")))
			}
		}
		return lines
	}
	file := filepath.Join(pgtest.MkdirNobody(t, s.dir, "waldump"), name)
	s.walship(t, "wal", "fetch", "--postgres-data-directory", s.cluster.DataDir, name, file)
	// It fails where the last record goes on in the next segment.
	want := columns(pgtest.Run(t, s.cluster.Tool(t.Context(), t, "pg_waldump", file)).Stdout)
	got := columns(s.walship(t, "wal", "show", "--records", name).Stdout)
	if len(got) < 100 || !slices.Equal(got, want) {
		t.Errorf("records of %s: %d, pg_waldump has %d\n%s", name, len(got), len(want), diff(t, strings.Join(want, "\n"), strings.Join(got, "\n")))
	}
}

// paddedLSN makes LSNs comparable as strings.
func paddedLSN(lsn string) string {
	high, low, _ := strings.Cut(lsn, "/")
	return fmt.Sprintf("%8s/%8s", strings.TrimLeft(high, "0"), strings.TrimLeft(low, "0"))
}

// goBack restores to right before it, by the flags that the search says.
func (s *site) goBack(t *testing.T, h *happening, found map[string]foundEvent) {
	t.Helper()
	target := filepath.Join(s.dir, "before-"+strings.ReplaceAll(h.name, " ", "-"))
	s.walship(t, append([]string{"restore", "run", "--target-directory", target, "--target-action", "promote"}, found[h.xid].Restore...)...)
	restored := pgtest.Open(t, s.cluster.Major, target, pgtest.Env(s.env...))
	restored.Start(t)
	restored.WaitPromoted(t)
	if h.name == "prepared" {
		restored.Exec(t, "ROLLBACK PREPARED 'promise'") // still pending, with its locks
	}
	if got := restored.SQL(t, h.rows); got != h.before {
		t.Errorf("%s: right before it there are %s, restored are %s", h.name, h.before, got)
	}
	if h.name == "drop database" {
		restored.SQLIn(t, "elsewhere", "SELECT count(*) FROM pg_class")
	}
	restored.Stop(t, pgtest.Immediate)
}

// checkUnknown takes the WAL away in which a slow transaction dropped its table:
// the search says that it dropped a file, and no more. It is the last check.
func (s *site) checkUnknown(t *testing.T, found map[string]foundEvent, done []*happening) {
	t.Helper()
	slow := done[slices.IndexFunc(done, func(h *happening) bool { return h.name == "slow" })].xid
	files, err := filepath.Glob(filepath.Join(s.dir, "repository", "*", "wal", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the repository has no WAL: %v", err)
	}
	for _, file := range files {
		if filepath.Base(file) < found[slow].Segment {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	event := s.dropped(t, "--xid", slow)[slow]
	if len(event.Relations) == 0 || fmt.Sprint(event.Restore) != fmt.Sprint(found[slow].Restore) {
		t.Errorf("without the WAL before it, it is %+v", event)
	}
	for _, r := range event.Relations {
		if r.Change != "unknown file dropped" || r.Name != "" || r.Kind != "" || r.File == "" {
			t.Errorf("without the WAL before it, it is said to have dropped %+v", r)
		}
	}
}
