//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// compare holds a plan's promise against what PostgreSQL did.
func (c *chooser) compare(t *testing.T, target oracleTarget, plan *oraclePlan, o outcome) {
	t.Helper()
	if !plan.Certified {
		t.Errorf("the plan isn't certified, though all of the WAL can be read")
	}
	if o.end != plan.EndsAt {
		t.Errorf("recovery ended at %s, the plan says %s", o.end, plan.EndsAt)
	}
	c.compareStop(t, plan, o)
	path := slices.DeleteFunc(slices.Clone(c.paths[plan.Timeline]), func(r oracleRecord) bool { return !r.commits() })
	var cut wal.LSN // no commit at or behind it is in
	var next int
	if plan.LastIn != nil {
		next = 1 + slices.IndexFunc(path, func(r oracleRecord) bool {
			return r.LSN == plan.LastIn.LSN && r.XID == plan.LastIn.XID && r.Time.Time().Equal(plan.LastIn.Time) && r.Timeline == plan.LastIn.Timeline
		})
		if next == 0 {
			t.Fatalf("the plan says that %+v is the last transaction in: the way has no such commit", *plan.LastIn)
		}
		cut = plan.LastIn.LSN + 1
	} else {
		cut = c.redo(plan.Backup.ID)
		next, _ = slices.BinarySearchFunc(path, cut, func(r oracleRecord, lsn wal.LSN) int { return int(int64(r.LSN) - int64(lsn)) })
	}
	switch {
	case next == len(path) && plan.FirstOut != nil:
		t.Errorf("the plan says that %+v is the first transaction out: no commit follows the last one in", *plan.FirstOut)
	case next < len(path) && (plan.FirstOut == nil || plan.FirstOut.XID != path[next].XID || plan.FirstOut.LSN != path[next].LSN):
		t.Errorf("the plan says that the first transaction out is %+v, want %+v", plan.FirstOut, path[next])
	}
	if want := c.rowsUntil(plan.Timeline, cut); o.rows != want {
		t.Errorf("the plan (last in %+v) promises other rows than there are:\n%s", plan.LastIn, diff(t, want, o.rows))
	}
	if target.promotes || target.setting == "" {
		c.comparePrepared(t, plan, o)
	}
}

// comparePrepared holds what is left prepared against the plan, which doesn't
// know the names of those that were prepared before the backup began.
func (c *chooser) comparePrepared(t *testing.T, plan *oraclePlan, o outcome) {
	t.Helper()
	if !plan.PendingKnown {
		return
	}
	var want, got []string
	for _, p := range plan.Pending {
		want = append(want, fmt.Sprintf("%d|%s", p.XID, p.GID))
	}
	for line := range strings.Lines(o.pending) {
		xid, _, _ := strings.Cut(line, "|")
		if line = strings.TrimSpace(line); slices.Contains(want, xid+"|") {
			line = xid + "|"
		}
		got = append(got, line)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the plan lists %q as prepared, and these are: %q", want, got)
	}
}

func (c *chooser) redo(backup string) wal.LSN {
	i := slices.IndexFunc(c.all, func(b oracleBackup) bool { return b.ID == backup })
	return c.all[i].StartLSN
}

// rowsUntil lists the rows that transactions on the way to a timeline wrote
// whose commit lies before an LSN.
func (c *chooser) rowsUntil(timeline wal.TimelineID, before wal.LSN) string {
	type transaction struct {
		timeline wal.TimelineID
		xid      uint32
	}
	in := map[transaction]bool{}
	for number, path := range c.paths {
		for _, r := range path {
			if r.commits() && (number == timeline && r.LSN < before) {
				in[transaction{r.Timeline, r.XID}] = true
			} else if r.commits() && !in[transaction{r.Timeline, r.XID}] {
				in[transaction{r.Timeline, r.XID}] = false
			}
		}
	}
	var ids []string
	for _, row := range c.facts.Rows {
		// What committed before the oldest backup is in none of the paths.
		if is, listed := in[transaction{row.Timeline, row.XID}]; is || !listed {
			ids = append(ids, row.ID)
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, "\n")
}

// stopLine is how PostgreSQL says where it stops (xlogrecovery.c, xlog.c until
// 14).
var stopLine = regexp.MustCompile(`recovery stopping (before|after|at) (.*)`)

// compareStop holds the line in which PostgreSQL says where it stops against
// the plan.
func (c *chooser) compareStop(t *testing.T, plan *oraclePlan, o outcome) {
	t.Helper()
	match := stopLine.FindStringSubmatch(o.log)
	s := plan.Stop
	switch {
	case match == nil && s == nil:
		return
	case match == nil:
		t.Errorf("the plan says that recovery stops at %+v, and it doesn't", *s)
		return
	case s == nil:
		t.Errorf("the plan knows of no stop, and PostgreSQL says: %s", match[0])
		return
	}
	before := match[1] == "before"
	var want string
	switch {
	case strings.HasPrefix(match[2], "WAL location"):
		want = fmt.Sprintf(`WAL location (LSN) "%s"`, s.LSN)
	case strings.HasPrefix(match[2], "restore point"):
		want = fmt.Sprintf(`restore point "%s"`, s.Name)
	case strings.HasPrefix(match[2], "reaching consistency"):
		want, before = "reaching consistency", s.Before // it says "after", whatever comes next
	default:
		want = fmt.Sprintf("%s of transaction %d, time %s", strings.TrimSuffix(s.Kind, " prepared"), s.XID, s.Time.UTC().Format("2006-01-02 15:04:05.999999+00"))
	}
	if before != s.Before || !strings.HasPrefix(match[2], want) {
		t.Errorf("PostgreSQL says: %s\nthe plan says: %+v", match[0], *s)
	}
}

// compareStatus holds what status says of the timelines against their WAL.
func (c *chooser) compareStatus(t *testing.T) {
	t.Helper()
	var output struct {
		Clusters []struct {
			Timelines []struct {
				Timeline, Parent wal.TimelineID
				Gaps, Backups    []any
				End              wal.LSN                      `json:"end_lsn"`
				Reachable        []struct{ From, To wal.LSN } `json:"reachable"`
			}
		}
	}
	if err := json.Unmarshal([]byte(c.walship(t, "status", "--json").Stdout), &output); err != nil || len(output.Clusters) != 1 {
		t.Fatalf("status: %v, %d clusters", err, len(output.Clusters))
	}
	backups := 0
	for _, timeline := range output.Clusters[0].Timelines {
		path := c.paths[timeline.Timeline]
		backups += len(timeline.Backups)
		if end := path[len(path)-1].End; timeline.End != end || len(timeline.Gaps) > 0 || len(timeline.Reachable) != 1 || (timeline.Parent == 0) != (timeline.Timeline == 1) {
			t.Errorf("status says %+v: its WAL ends at %s, without a gap, and a backup leads there", timeline, end)
		}
	}
	if got := wal.TimelineID(len(output.Clusters[0].Timelines)); got != c.facts.Timelines || backups != len(c.all) {
		t.Errorf("status knows %d timelines and %d backups, want %d and %d", got, backups, c.facts.Timelines, len(c.all))
	}
}
