//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// oracleArchive is a repository with the WAL and the backups of a cluster that
// was forked several times, and what is known of its transactions.
type oracleArchive struct {
	*site
	random *rand.Rand
	facts  oracleFacts
	bases  map[string]string // restored data directories that no server ran in yet, by the backup's id

	mu       sync.Mutex // of what follows, and of facts.Rows
	ids      int
	prepared map[string][]string // rows of prepared transactions by their name, on whichever branch
}

// oracleFacts are kept with an archive, so that it can be used again.
type oracleFacts struct {
	Seed  uint64
	Major pgtest.Major
	// Rows were written by committed transactions.
	Rows      []oracleRow
	Timelines wal.TimelineID // 1 to this one
}

// oracleRow is a row of the table ledger. A fork gives the same transaction ids
// again, so one is known by the timeline on which it committed, too.
type oracleRow struct {
	Timeline wal.TimelineID
	XID      uint32
	ID       string
}

const oracleFactsName = "facts.json"

// makeOracleArchive makes an archive of a random history. A deep one has forks
// three deep, and more backups.
func makeOracleArchive(t *testing.T, major pgtest.Major, seed uint64, deep bool) *oracleArchive {
	t.Helper()
	a := &oracleArchive{
		random: rand.New(rand.NewPCG(seed, uint64(major))), facts: oracleFacts{Seed: seed, Major: major, Timelines: 1},
		bases: map[string]string{}, prepared: map[string][]string{},
	}
	a.site = newSite(t, major, siteOptions{encrypted: a.random.IntN(2) == 0, cluster: []pgtest.Option{
		pgtest.SegmentSize(1), pgtest.Set("max_prepared_transactions", "20"), pgtest.Set("wal_keep_size", "64MB"),
		pgtest.Set("checkpoint_timeout", "1h"), pgtest.Set("autovacuum", "off"),
	}})
	// What was archived is kept once more, as PostgreSQL wrote it.
	kept := pgtest.MkdirNobody(t, a.dir, "wal")
	command := fmt.Sprintf("{ test -f %[1]s/%%f || cp %%p %[1]s/%%f; } && %s --config %s wal push %%p", kept, a.binary, a.config)
	a.cluster.AppendConf(t, "archive_command = '"+command+"'\n")
	a.cluster.Exec(t, "SELECT pg_reload_conf()", "CREATE TABLE ledger (id text, xid bigint, at timestamptz DEFAULT clock_timestamp())",
		"CREATE TABLE ballast (n int, filler text)")

	first := a.branch(t, a.cluster)
	first.work(t, 5)
	a.backup(t, a.cluster)
	first.marks = nil
	first.work(t, 8)
	a.backup(t, a.cluster)
	first.work(t, 6)

	second := first.fork(t, a.random.IntN(2) == 0)
	second.work(t, 6)
	a.backup(t, second.cluster)
	second.work(t, 6)
	first.work(t, 4)
	if deep {
		a.backup(t, a.cluster)
		first.work(t, 4)
	}
	third := second.fork(t, false)
	third.work(t, 6)
	second.work(t, 3)
	if deep {
		a.backup(t, third.cluster)
		third.work(t, 4)
		fourth := third.fork(t, false)
		fourth.work(t, 5)
		fourth.end(t)
		fifth := first.fork(t, false)
		fifth.work(t, 4)
		fifth.end(t)
	}
	for _, b := range []*branch{first, second, third} {
		b.end(t)
	}
	a.keepFacts(t)
	return a
}

// branch is a server that writes one timeline.
type branch struct {
	*oracleArchive
	cluster    *pgtest.Cluster
	timeline   wal.TimelineID
	one, other *pgx.Conn
	pending    []string // names of transactions that are prepared
	marks      []uint32 // transactions that committed since there is a backup, in their order
}

func (a *oracleArchive) branch(t *testing.T, c *pgtest.Cluster) *branch {
	t.Helper()
	b := &branch{oracleArchive: a, cluster: c, one: c.Conn(t, "postgres"), other: c.Conn(t, "postgres")}
	name, err := wal.ParseFileName(b.ask(t, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))
	if err != nil {
		t.Fatal(err)
	}
	b.timeline = name.Timeline
	a.facts.Timelines = max(a.facts.Timelines, b.timeline)
	if pending := b.ask(t, "SELECT coalesce(string_agg(gid, ',' ORDER BY gid), '') FROM pg_prepared_xacts"); pending != "" {
		b.pending = strings.Split(pending, ",")
	}
	return b
}

// fork makes a branch of this one: from a copy that is recovered to one of the
// transactions, or by the promotion of a standby.
func (b *branch) fork(t *testing.T, promoted bool) *branch {
	t.Helper()
	b.cluster.Archive(t)
	var c *pgtest.Cluster
	if promoted {
		c = makeStandby(t, b.site, "standby", b.cluster, "")
		b.burst(t, b.one, 1) // behind the switch, where nothing would be replayed yet
		end := b.ask(t, "SELECT pg_current_wal_flush_lsn()")
		pgtest.WaitFor(t, "the standby to follow", func() bool {
			return c.SQL(t, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", end) == "t"
		})
		c.Promote(t)
	} else {
		half := len(b.marks) / 2
		mark := b.marks[half+b.random.IntN(len(b.marks)-half)]
		target := filepath.Join(b.dir, fmt.Sprintf("fork-%d", b.facts.Timelines+1))
		b.walship(t, "restore", "run", "--target-directory", target, "--replace", "--target-action", "promote",
			"--timeline", strconv.FormatUint(uint64(b.timeline), 10), "--to-xid", strconv.FormatUint(uint64(mark), 10))
		c = pgtest.Open(t, b.facts.Major, target)
		c.Start(t)
		c.WaitPromoted(t)
	}
	child := b.oracleArchive.branch(t, c)
	c.WaitArchived(t, wal.HistoryName(child.timeline).String())
	return child
}

// end completes the branch's WAL and stops the server.
func (b *branch) end(t *testing.T) {
	t.Helper()
	b.cluster.Archive(t)
	b.cluster.Stop(t, pgtest.Fast)
}

// work does a number of random things.
func (b *branch) work(t *testing.T, steps int) {
	t.Helper()
	b.burst(t, b.one, 3)
	for range steps {
		b.step(t)
	}
	b.burst(t, b.one, 2)
}

func (b *branch) step(t *testing.T) {
	t.Helper()
	switch b.random.IntN(14) {
	case 0, 1, 2:
		b.burst(t, b.one, 2+b.random.IntN(15))
	case 3:
		var both sync.WaitGroup
		for _, conn := range []*pgx.Conn{b.one, b.other} {
			both.Go(func() { b.burst(t, conn, 15) })
		}
		both.Wait()
	case 4:
		b.subtransactions(t)
	case 5:
		b.run(t, "BEGIN", b.row("astray"), "ROLLBACK")
	case 6:
		b.prepare(t)
	case 7:
		b.prepare(t)
		b.finish(t)
	case 8:
		b.finish(t)
	case 9:
		b.run(t, fmt.Sprintf("SELECT pg_create_restore_point('point %c')", 'a'+b.random.IntN(4)))
	case 10:
		b.run(t, "SELECT pg_switch_wal()")
	case 11:
		b.run(t, "CHECKPOINT")
	case 12:
		b.commit(t, "CREATE TABLE made (id int)", "CREATE INDEX ON made (id)", "DROP TABLE made",
			fmt.Sprintf("INSERT INTO ballast SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, %d) g", 10+b.random.IntN(3000)))
	case 13:
		b.run(t, fmt.Sprintf("SELECT pg_sleep(%f)", 0.05+0.15*b.random.Float64())) // the server is idle
	}
}

// newID makes the key of a row.
func (b *branch) newID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids++
	return fmt.Sprintf("%05d-%d", b.ids, b.timeline)
}

// row is the statement that writes one.
func (b *branch) row(id string) string {
	return fmt.Sprintf("INSERT INTO ledger (id, xid) VALUES ('%s', pg_current_xact_id()::text::bigint) RETURNING xid", id)
}

// burst commits transactions as quickly as it can.
func (b *branch) burst(t *testing.T, conn *pgx.Conn, n int) {
	for range n {
		id, xid := b.newID(), uint32(0)
		if err := conn.QueryRow(context.Background(), b.row(id)).Scan(&xid); err != nil {
			t.Errorf("write a row: %v", err)
			return
		}
		b.committed(xid, id)
	}
}

func (b *branch) committed(xid uint32, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		b.facts.Rows = append(b.facts.Rows, oracleRow{b.timeline, xid, id})
	}
	b.marks = append(b.marks, xid)
}

// commit writes a row and more in one transaction.
func (b *branch) commit(t *testing.T, statements ...string) {
	t.Helper()
	id := b.newID()
	b.run(t, "BEGIN")
	xid := b.askXID(t, b.row(id))
	b.run(t, append(statements, "COMMIT")...)
	b.committed(xid, id)
}

// subtransactions writes two rows, one of them in a subtransaction, and a
// third in one that is rolled back.
func (b *branch) subtransactions(t *testing.T) {
	t.Helper()
	one, two := b.newID(), b.newID()
	b.run(t, "BEGIN")
	xid := b.askXID(t, b.row(one))
	b.run(t, "SAVEPOINT a", b.row(two), "RELEASE a", "SAVEPOINT b", b.row("astray"), "ROLLBACK TO b", "COMMIT")
	b.committed(xid, one, two)
}

// prepare leaves a prepared transaction behind.
func (b *branch) prepare(t *testing.T) {
	t.Helper()
	id := b.newID()
	b.run(t, "BEGIN", b.row(id), "PREPARE TRANSACTION 'gid "+id+"'")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prepared["gid "+id] = []string{id}
	b.pending = append(b.pending, "gid "+id)
}

// finish ends one of the prepared transactions, perhaps one that an ancestor
// has left behind.
func (b *branch) finish(t *testing.T) {
	t.Helper()
	if len(b.pending) == 0 {
		return
	}
	i := b.random.IntN(len(b.pending))
	gid := b.pending[i]
	b.pending = slices.Delete(b.pending, i, i+1)
	if b.random.IntN(3) == 0 {
		b.run(t, "ROLLBACK PREPARED '"+gid+"'")
		return
	}
	xid := b.askXID(t, "SELECT transaction FROM pg_prepared_xacts WHERE gid = '"+gid+"'")
	b.run(t, "COMMIT PREPARED '"+gid+"'")
	b.committed(xid, b.prepared[gid]...)
}

func (b *branch) run(t *testing.T, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := b.one.Exec(t.Context(), statement); err != nil {
			t.Fatalf("execute %s on timeline %d: %v", statement, b.timeline, err)
		}
	}
}

func (b *branch) ask(t *testing.T, query string) (answer string) {
	t.Helper()
	if err := b.one.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	return answer
}

func (b *branch) askXID(t *testing.T, query string) (xid uint32) {
	t.Helper()
	if err := b.one.QueryRow(t.Context(), query).Scan(&xid); err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	return xid
}

func (a *oracleArchive) keepFacts(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(a.facts)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.dir, oracleFactsName), string(text))
}

// keep copies the archive to a place that outlives the test.
func (a *oracleArchive) keep(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(filepath.Dir(a.dir), fmt.Sprintf("oracle-%d-%d", a.facts.Major, a.facts.Seed))
	if _, err := os.Lstat(dir); err == nil {
		return dir
	}
	pgtest.MkdirNobody(t, dir)
	for _, name := range []string{"repository", "wal", "walship.toml", "identity.txt", oracleFactsName} {
		if _, err := os.Lstat(filepath.Join(a.dir, name)); errors.Is(err, os.ErrNotExist) {
			continue // without encryption
		}
		if output, err := exec.Command("cp", "-a", filepath.Join(a.dir, name), dir).CombinedOutput(); err != nil {
			t.Fatalf("keep the archive: %v\n%s", err, output)
		}
	}
	return dir
}

// openOracleArchive takes up an archive that was kept.
func openOracleArchive(t *testing.T, dir string) *oracleArchive {
	t.Helper()
	a := &oracleArchive{bases: map[string]string{}, site: &site{dir: pgtest.WorkDir(t), binary: pgtest.BuildWalship(t)}}
	text, err := os.ReadFile(filepath.Join(dir, oracleFactsName))
	if err == nil {
		err = json.Unmarshal(text, &a.facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	settings, err := os.ReadFile(filepath.Join(dir, "walship.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// The settings name the directory in which the archive was made.
	old := strings.TrimSuffix(strings.TrimPrefix(strings.Split(string(settings), `"`)[1], "file://"), "/repository")
	for _, name := range []string{"repository", "wal", "identity.txt"} {
		if output, err := exec.Command("cp", "-a", filepath.Join(dir, name), a.dir).CombinedOutput(); err != nil && name != "identity.txt" {
			t.Fatalf("take up the archive: %v\n%s", err, output)
		}
	}
	a.config = filepath.Join(a.dir, "walship.toml")
	write(t, a.config, strings.ReplaceAll(string(settings), old, a.dir))
	a.random = rand.New(rand.NewPCG(a.facts.Seed, uint64(a.facts.Major)+100))
	a.cluster = pgtest.Open(t, a.facts.Major, a.dir)
	return a
}
