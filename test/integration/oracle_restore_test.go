//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// oracleVariable names the environment variable with which TestRestoreOracle
// uses the archive that a failed run has kept in a directory, and
// oracleTargetVariable has it try only the target with a number there.
const (
	oracleVariable       = "WALSHIP_TEST_ORACLE"
	oracleTargetVariable = "WALSHIP_TEST_ORACLE_TARGET"
)

// TestRestoreOracle compares what restore plan promises with what PostgreSQL
// does, for random targets of every kind in archives of a random history, with
// forks two and three deep: whether recovery reaches the target, where it
// stops, which transactions are in, which are left prepared. For targets that
// name no timeline, it compares what is asked for with what the timelines have. A restore that
// walship refuses is run too, with the settings written by hand, and must end
// in an error.
func TestRestoreOracle(t *testing.T) { // faults 31 and 43
	t.Parallel()
	if kept := os.Getenv(oracleVariable); kept != "" {
		openOracleArchive(t, kept).consult(t, 300)
		return
	}
	seed := chooseSeed(t)
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			targets := 5
			if major == 15 {
				targets = 30
			}
			if full() {
				targets *= 10
			}
			a := makeOracleArchive(t, major, seed, major == 15 || full())
			a.consult(t, targets)
		})
	}
}

// consult tries random targets. It draws the same ones for an archive whenever
// it is called.
func (a *oracleArchive) consult(t *testing.T, targets int) {
	t.Helper()
	a.random = rand.New(rand.NewPCG(a.facts.Seed, uint64(a.facts.Major)+100))
	c := a.chooser(t)
	c.compareStatus(t)
	only := os.Getenv(oracleTargetVariable)
	reached := 0
	for i := range targets {
		target := c.target()
		oldest := c.random.IntN(2) == 0
		run := c.random.IntN(8) == 0
		free := target.namesRecord() && c.random.IntN(2) == 0 // of a timeline
		name := fmt.Sprintf("%03d", i)
		if only != "" && name != only {
			continue
		}
		t.Run(name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("restore plan %s: to try it again, set %s=%s and %s=%s", strings.Join(target.flags, " "),
						oracleVariable, a.keep(t), oracleTargetVariable, name)
				}
			}()
			try := func() bool { return c.try(t, target, oldest, run) }
			if free {
				try = func() bool { return c.tryBranches(t, target) }
			}
			if try() {
				reached++
			}
		})
	}
	if only == "" && (reached == 0 || reached == targets) && targets > 10 {
		t.Errorf("of %d targets %d were reached: the choice of targets isn't one", targets, reached)
	}
	t.Logf("PostgreSQL %d, %s=%d: %d targets, %d of them reached", a.facts.Major, seedVariable, a.facts.Seed, targets, reached)
}

// oraclePlan is what restore plan says.
type oraclePlan struct {
	Timeline   wal.TimelineID
	Backup     struct{ ID string }
	Settings   []pgdata.Setting
	SignalFile string `json:"signal_file"`
	Problems   []string

	Reachable bool
	Certified bool
	Stop      *struct {
		Kind   string
		Before bool
		Time   time.Time
		XID    uint32
		Name   string
		LSN    wal.LSN
	}
	LastIn   *oracleEnding `json:"last_in"`
	FirstOut *oracleEnding `json:"first_out"`
	Pending  []struct {
		XID uint32
		GID string
	} `json:"pending_prepared"`
	PendingKnown bool    `json:"pending_prepared_known"`
	EndsAt       wal.LSN `json:"ends_at_lsn"`
	Choices      []oracleChoice
}

type oracleEnding struct {
	Time     time.Time
	XID      uint32
	LSN      wal.LSN
	Timeline wal.TimelineID
}

// outcome is what PostgreSQL did.
type outcome struct {
	reached bool
	log     string
	rows    string // the keys, in their order
	pending string // prepared transactions, known of a promoted server only
	end     wal.LSN
}

// try compares one plan with PostgreSQL, and reports whether the target was
// reached.
func (c *chooser) try(t *testing.T, target oracleTarget, oldest, run bool) bool {
	t.Helper()
	plan, result := c.plan(t, target)
	switch {
	case result.Code == 0 && plan.Reachable:
		o := c.recover(t, target, plan, run)
		if !o.reached {
			t.Errorf("the plan promises the target, and PostgreSQL says:\n%s", lastLines(o.log))
			return false
		}
		c.compare(t, target, plan, o)
		return true
	case result.Code == 4:
		if o := c.force(t, target, plan, oldest); o.reached {
			t.Errorf("the plan refuses a target that PostgreSQL reaches:\n%s\n%s", result.Stderr, lastLines(o.log))
		}
	default:
		t.Errorf("restore plan: exit code %d, reachable %v\n%s", result.Code, plan.Reachable, result.Stderr)
	}
	return false
}

func (c *chooser) plan(t *testing.T, target oracleTarget) (*oraclePlan, pgtest.Result) {
	t.Helper()
	result := c.oracleArchive.try(t, append([]string{"restore", "plan", "--json"}, target.flags...)...)
	plan := new(oraclePlan)
	if result.Stdout != "" {
		if err := json.Unmarshal([]byte(result.Stdout), plan); err != nil {
			t.Fatalf("restore plan: %v\n%s", err, result.Stdout)
		}
	}
	return plan, result
}

// recover runs a restore as it was planned: with restore run, or with the
// plan's settings in a copy of a base backup.
func (c *chooser) recover(t *testing.T, target oracleTarget, plan *oraclePlan, run bool) outcome {
	t.Helper()
	if run {
		dir := filepath.Join(c.dir, "run")
		defer remove(t, dir, dir+".walship")
		c.drawn(t, target)
		c.walship(t, append([]string{"restore", "run", "--target-directory", dir}, target.flags...)...)
		return c.start(t, dir, target)
	}
	return c.copied(t, target, plan.Backup.ID, plan.Settings)
}

// drawn has the way of a restore drawn.
func (c *chooser) drawn(t *testing.T, target oracleTarget) {
	t.Helper()
	picture := filepath.Join(c.dir, "picture.svg")
	defer remove(t, picture)
	c.walship(t, append([]string{"restore", "plan", "--svg", picture}, target.flags...)...)
	if text, err := os.ReadFile(picture); err != nil || !strings.Contains(string(text), `class="way"`) {
		t.Errorf("restore plan --svg draws no way: %v\n%s", err, text)
	}
}

// force runs a restore that was refused, with settings as someone would write
// them by hand. Unless the backup was asked for, it is one that the plan has
// chosen, or the oldest.
func (c *chooser) force(t *testing.T, target oracleTarget, plan *oraclePlan, oldest bool) outcome {
	t.Helper()
	backup := plan.Backup.ID
	switch {
	case target.backup != "":
		backup = target.backup
	case backup == "" || oldest:
		backup = c.all[0].ID
	}
	var base oraclePlan
	text := c.walship(t, "restore", "plan", "--json", "--backup", backup, "--immediate", "--timeline", "current").Stdout
	if err := json.Unmarshal([]byte(text), &base); err != nil {
		t.Fatal(err)
	}
	settings := slices.DeleteFunc(base.Settings, func(s pgdata.Setting) bool { return strings.HasPrefix(s.Name, "recovery_target") })
	action, timeline := "pause", target.timeline
	if target.promotes {
		action = "promote"
	}
	if timeline == "current" && target.backup == "" { // which is the newest backup's then
		timeline = strconv.FormatUint(uint64(c.all[len(c.all)-1].Timeline), 10)
	}
	settings = append(settings, pgdata.Setting{Name: "recovery_target_timeline", Value: timeline},
		pgdata.Setting{Name: "recovery_target_inclusive", Value: strconv.FormatBool(target.inclusive)},
		pgdata.Setting{Name: "recovery_target_action", Value: action})
	if target.setting != "" {
		settings = append(settings, pgdata.Setting{Name: target.setting, Value: target.value})
	}
	return c.copied(t, target, backup, settings)
}

// copied recovers in a copy of what restore run makes of a backup.
func (c *chooser) copied(t *testing.T, target oracleTarget, backup string, settings []pgdata.Setting) outcome {
	t.Helper()
	base, made := c.bases[backup]
	if !made {
		base = filepath.Join(c.dir, "base-"+backup)
		c.walship(t, "restore", "run", "--backup", backup, "--immediate", "--timeline", "current", "--target-directory", base)
		c.bases[backup] = base
	}
	dir := filepath.Join(c.dir, "copy")
	defer remove(t, dir)
	if output, err := exec.Command("cp", "-a", "--reflink=auto", base, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", base, err, output)
	}
	var text strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&text, "%s = %s\n", s.Name, pgdata.QuoteSetting(s.Value))
	}
	write(t, filepath.Join(dir, pgdata.AutoConfFileName), text.String())
	return c.start(t, dir, target)
}

// start starts a server that recovers, and notes what comes of it.
func (c *chooser) start(t *testing.T, dir string, target oracleTarget) outcome {
	t.Helper()
	server := pgtest.Open(t, c.facts.Major, dir)
	o := outcome{reached: server.StartRecovery(t)}
	o.log = server.Log(t)
	if !o.reached {
		return o
	}
	o.rows = server.SQL(t, "SELECT id FROM ledger ORDER BY id")
	if server.SQL(t, "SELECT pg_is_in_recovery()") == "t" {
		o.end = c.lsnOf(t, server.SQL(t, "SELECT pg_last_wal_replay_lsn()"))
	} else {
		o.pending = server.SQL(t, "SELECT transaction, gid FROM pg_prepared_xacts ORDER BY gid")
		newest := server.SQL(t, "SELECT max(name) FROM pg_ls_waldir() WHERE name LIKE '%.history'")
		lines := strings.Split(strings.TrimSpace(server.SQL(t, "SELECT pg_read_file('pg_wal/' || $1)", newest)), "\n")
		o.end = c.lsnOf(t, strings.Fields(lines[len(lines)-1])[1])
	}
	server.Stop(t, pgtest.Immediate)
	return o
}

func (c *chooser) lsnOf(t *testing.T, text string) wal.LSN {
	t.Helper()
	lsn, err := wal.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// lastLines are the last ones of a log.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], "\n")
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	}
}
