//go:build integration

package wal_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestOracle reads the WAL of real servers record for record and holds it
// against pg_waldump (15, 17, 18), pg_walinspect (16), and against the
// server's own commit times (14, and all others).
func TestOracle(t *testing.T) {
	for _, test := range []struct {
		major       pgtest.Major
		segment     int // MiB
		compression string
		atLeast     int // segments
	}{
		{14, 1, "on", 16},
		{15, 1, "lz4", 16},
		{16, 1, "pglz", 16},
		{17, 2, "zstd", 8},
		{18, 1, "off", 16},
	} {
		t.Run(test.major.String(), func(t *testing.T) {
			s := newSite(t, test.major, test.segment, test.compression)
			inspected := s.live(t)
			files := s.path(t)
			if len(files) < test.atLeast {
				t.Fatalf("%d segments, want at least %d", len(files), test.atLeast)
			}
			whole := s.checkSummaries(t, files)
			got := s.read(t, files)
			checkRollUp(t, whole, got)
			t.Logf("%d records in %d segments", len(got), len(files))
			s.checkContent(t, got)
			for _, lines := range inspected {
				compare(t, got, lines)
			}
			if test.major.HasTool("pg_waldump") {
				compare(t, got, s.waldump(t, files))
			}
		})
	}
}

// site is a cluster that archives, and has a life.
type site struct {
	*pgtest.Cluster
	archive     string
	segmentSize uint64
	commits     map[string]string // xid → time, as the server knows it
}

func newSite(t *testing.T, major pgtest.Major, segment int, compression string) *site {
	dir := pgtest.WorkDir(t)
	archive := pgtest.MkdirNobody(t, dir, "archive")
	c := pgtest.New(t, major,
		pgtest.SegmentSize(segment),
		pgtest.Set("wal_level", "logical"),
		pgtest.Set("archive_mode", "on"),
		pgtest.Set("archive_command", "cp %p "+archive+"/%f"),
		pgtest.Set("restore_command", "cp "+archive+"/%f %p"),
		pgtest.Set("wal_compression", compression),
		pgtest.Set("max_prepared_transactions", "10"),
		pgtest.Set("track_commit_timestamp", "on"),
		pgtest.Set("wal_keep_size", "2GB"))
	return &site{Cluster: c, archive: archive, segmentSize: uint64(segment) << 20}
}

// live makes WAL: work, a crash, more work, a promotion, more work. It returns
// what pg_walinspect says of it, a timeline at a time, on 16; and leaves the
// server stopped and everything archived.
func (s *site) live(t *testing.T) (inspected [][]string) {
	s.Start(t)
	s.work(t, "one")
	s.Exec(t, "CREATE TABLE torn AS SELECT g, repeat('x', 500) FROM generate_series(1, 500) g")
	s.Kill(t)
	s.Start(t)
	s.work(t, "two")
	if s.Major == 16 {
		s.Exec(t, "CREATE EXTENSION pg_walinspect")
		inspected = append(inspected, s.inspect(t))
	}
	s.Stop(t, pgtest.Fast)

	pgtest.WriteNobody(t, filepath.Join(s.DataDir, "standby.signal"), "")
	s.AppendConf(t, "max_connections = 110\n") // WAL has a record of such a change
	s.Start(t)
	if s.SQL(t, "SELECT pg_promote()") != "t" {
		t.Fatalf("the server isn't promoted:\n%s", s.Log(t))
	}
	s.work(t, "three")
	s.commits = map[string]string{}
	rows := s.SQL(t, `SELECT x.xid, to_char(x.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')
		FROM generate_series(3, txid_current() - 1) g, LATERAL (SELECT g AS xid, pg_xact_commit_timestamp(g::text::xid) AS timestamp) x
		WHERE x.timestamp IS NOT NULL`)
	for line := range strings.Lines(rows) {
		xid, at, _ := strings.Cut(strings.TrimSpace(line), "|")
		s.commits[xid] = at
	}
	if s.Major == 16 {
		inspected = append(inspected, s.inspect(t))
	}
	s.Stop(t, pgtest.Fast)
	return inspected
}

// work runs every kind of statement whose records differ.
func (s *site) work(t *testing.T, name string) {
	create := "CREATE DATABASE " + name + "_log"
	if s.Major >= 15 {
		create += " STRATEGY wal_log"
		s.Exec(t, "CREATE DATABASE "+name+"_copy STRATEGY file_copy")
	}
	tablespace := pgtest.MkdirNobody(t, s.Dir, "tablespace_"+name)
	sql := func(text string) string { return strings.ReplaceAll(text, "NAME", name) }
	s.Exec(t, create,
		sql("CREATE TABLE NAME (id int PRIMARY KEY, a int, b text, c tsvector, d point)"),
		sql("CREATE INDEX ON NAME USING hash (a)"),
		sql("CREATE INDEX ON NAME USING gin (c)"),
		sql("CREATE INDEX ON NAME USING brin (id)"),
		sql("CREATE INDEX ON NAME USING gist (d)"),
		sql("CREATE INDEX ON NAME USING spgist (d)"),
		sql(`INSERT INTO NAME SELECT g, g % 100, md5(g::text), to_tsvector('simple', md5(g::text)), point(g, -g)
			FROM generate_series(1, 4000) g`),
		sql("CREATE SEQUENCE seq_NAME"),
		sql("SELECT sum(nextval('seq_NAME')) FROM generate_series(1, 500)"),
		sql("INSERT INTO NAME SELECT g, 0, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3000)) FROM generate_series(10001, 10010) g"),
		sql("UPDATE NAME SET a = a + 1 WHERE id % 3 = 0"),
		sql("DELETE FROM NAME WHERE id % 5 = 0"),
		sql("VACUUM NAME"),
		"CHECKPOINT",
		sql("SELECT pg_create_restore_point('NAME''s \"point\"')"),
		sql("SELECT pg_logical_emit_message(true, 'NAME', repeat('m', 30000))"),
		sql("SELECT pg_logical_emit_message(false, 'NAME', 'now')"),
		sql("BEGIN; INSERT INTO NAME VALUES (-1); SAVEPOINT a; INSERT INTO NAME VALUES (-2); PREPARE TRANSACTION 'NAME 1'"),
		sql("COMMIT PREPARED 'NAME 1'"),
		sql("BEGIN; CREATE TABLE never_NAME (x int); DELETE FROM NAME WHERE id = -1; PREPARE TRANSACTION 'NAME 2'"),
		sql("ROLLBACK PREPARED 'NAME 2'"),
		sql("BEGIN; INSERT INTO NAME VALUES (-3); SAVEPOINT a; INSERT INTO NAME VALUES (-4); ROLLBACK TO a; INSERT INTO NAME VALUES (-5); COMMIT"),
		sql("BEGIN; CREATE TABLE gone_NAME (x int); ROLLBACK"),
		sql("CREATE TABLE doomed_NAME AS SELECT * FROM NAME"),
		sql("TRUNCATE doomed_NAME"),
		sql("DROP TABLE doomed_NAME"),
		sql("DELETE FROM NAME WHERE id > 2000"),
		sql("VACUUM (TRUNCATE) NAME"),
		sql("CREATE UNLOGGED TABLE unlogged_NAME (x int PRIMARY KEY)"),
		sql("CREATE TABLESPACE ts_NAME LOCATION '"+tablespace+"'"),
		sql("CREATE TABLE in_ts_NAME (x int) TABLESPACE ts_NAME"),
		sql("DROP TABLE in_ts_NAME"),
		sql("DROP TABLESPACE ts_NAME"),
		sql("CLUSTER NAME USING NAME_pkey"),
		sql("DROP DATABASE NAME_log"),
		"SELECT pg_switch_wal()",
	)
	for range 200 {
		s.Exec(t, sql("UPDATE NAME SET a = a + 1 WHERE id = 1"))
	}
	if s.HasTool("pgbench") {
		database := name + "_bench"
		s.Exec(t, "CREATE DATABASE "+database)
		pgtest.MustRun(t, s.Tool(t.Context(), t, "pgbench", "--initialize", "--quiet", database))
		pgtest.MustRun(t, s.Tool(t.Context(), t, "pgbench", "--no-vacuum", "--client=4", "--jobs=2", "--transactions=250", database))
	}
}

// path names the segments that recovery along the newest timeline reads, from
// the first one to the last one archived.
func (s *site) path(t *testing.T) []wal.FileName {
	names, err := os.ReadDir(s.archive)
	if err != nil {
		t.Fatal(err)
	}
	there := map[wal.FileName]bool{}
	history := wal.History{Timeline: 1}
	last, first := uint64(0), uint64(1<<63)
	for _, entry := range names {
		name, err := wal.ParseFileName(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		there[name] = true
		switch name.Kind {
		case wal.KindSegment:
			last = max(last, name.SegmentNumber(s.segmentSize))
			first = min(first, name.SegmentNumber(s.segmentSize))
		case wal.KindTimelineHistory:
			data, err := os.ReadFile(filepath.Join(s.archive, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if history, err = wal.ParseHistory(name.Timeline, data); err != nil {
				t.Fatal(err)
			}
			if got := history.Format(); !bytes.Equal(got, data) {
				t.Errorf("history written again: %q, was %q", got, data)
			}
		}
	}
	if history.Timeline != 2 {
		t.Fatalf("the history is that of timeline %d", history.Timeline)
	}
	var files []wal.FileName
	for segno := first; segno <= last; segno++ {
		name := wal.SegmentName(history.SegmentTimeline(segno, s.segmentSize), segno, s.segmentSize)
		if !there[name] {
			t.Fatalf("%s isn't in the archive", name)
		}
		files = append(files, name)
	}
	return files
}

// checkSummaries holds that each file is complete and follows the one before,
// and returns their roll-up.
func (s *site) checkSummaries(t *testing.T, files []wal.FileName) wal.Summary {
	var whole wal.Summary
	for i, name := range files {
		data := s.load(t, name)
		header, err := wal.ReadLongHeader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if major, _ := wal.MajorVersion(header.Magic); major != int(s.Major) {
			t.Fatalf("%s is of major %d", name, major)
		}
		summary, err := wal.Check(bytes.NewReader(data), name, int64(s.segmentSize), header.SystemID)
		if err != nil {
			t.Fatal(err)
		}
		if !summary.Ending.Complete() {
			t.Errorf("%s ends %s: %s", name, summary.Ending, summary.Problem)
		}
		if i == 0 {
			whole = summary
			continue
		}
		if whole, err = whole.Append(summary); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return whole
}

// checkRollUp holds the roll-up of all segments against their records.
func checkRollUp(t *testing.T, whole wal.Summary, lines []string) {
	var commits, stops, points uint64
	least, most := "9", ""
	end := regexp.MustCompile(`\| (COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED) \d+ at (\d+-\d+-\d+ \d+:\d+:\d+\.\d+)`)
	for _, line := range lines {
		if m := end.FindStringSubmatch(line); m != nil {
			stops++
			if strings.HasPrefix(m[1], "COMMIT") {
				commits++
			}
			least, most = min(least, m[2]), max(most, m[2])
		}
		if strings.Contains(line, "| RESTORE_POINT ") {
			points++
		}
	}
	if whole.Records != uint64(len(lines)) || whole.Commits != commits || whole.Stops != stops || whole.RestorePointCount != points {
		t.Errorf("the roll-up has %d records, %d commits, %d stops and %d restore points, read were %d, %d, %d and %d",
			whole.Records, whole.Commits, whole.Stops, whole.RestorePointCount, len(lines), commits, stops, points)
	}
	if got := whole.MinTime.Time().Format(timeLayout); got != least {
		t.Errorf("the roll-up's times start at %s, the records' at %s", got, least)
	}
	if got := whole.MaxTime.Time().Format(timeLayout); got != most {
		t.Errorf("the roll-up's times end at %s, the records' at %s", got, most)
	}
}

func (s *site) load(t *testing.T, name wal.FileName) []byte {
	data, err := os.ReadFile(filepath.Join(s.archive, name.String()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// read reads all records of the files, one line each.
func (s *site) read(t *testing.T, files []wal.FileName) []string {
	var sources []io.Reader
	for _, name := range files {
		sources = append(sources, bytes.NewReader(s.load(t, name)))
	}
	r, err := wal.NewReader(io.MultiReader(sources...))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	var contents wal.Contents
	for {
		record, err := r.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatalf("after %d records: %v", len(lines), err)
		}
		if err := record.Decode(&contents); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, describe(t, record, &contents))
	}
}

// describe writes a record as the oracles' lines are normalized to.
func describe(t *testing.T, r *wal.Record, c *wal.Contents) string {
	images := 0
	blocks := ""
	for _, b := range c.Blocks {
		images += len(b.Image)
		blocks += fmt.Sprintf(" #%d %s %s %d", b.ID, b.Relation, b.Fork, b.Number)
		if b.HasImage {
			blocks += " FPW"
		}
	}
	return fmt.Sprintf("%s %s prev %s xid %d len %d/%d%s | %s", r.LSN, r.Resource, r.Prev, r.XID,
		len(r.Data)-images, len(r.Data), blocks, facts(t, r, c))
}

// facts writes what a record says, and "" of records that say nothing that
// matters.
func facts(t *testing.T, r *wal.Record, c *wal.Contents) string {
	text, err := r.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	// What pg_waldump doesn't say.
	if kind, _ := r.ControlKind(); kind == wal.ControlRestorePoint {
		text, _, _ = strings.Cut(text, " at ")
	}
	if action, _ := r.TransactionAction(); action == wal.ActionCommitPrepared || action == wal.ActionAbortPrepared {
		text = gid.ReplaceAllString(text, "")
	}
	return text
}

var gid = regexp.MustCompile(`; gid "[^"]*"`)

const timeLayout = "2006-01-02 15:04:05.000000"

// waldump has pg_waldump print the files' records, a timeline at a time.
func (s *site) waldump(t *testing.T, files []wal.FileName) []string {
	fork := slices.IndexFunc(files, func(n wal.FileName) bool { return n.Timeline == 2 })
	if fork <= 0 {
		t.Fatal("there is no fork on the path")
	}
	var lines []string
	for _, part := range [][]wal.FileName{files[:fork], files[fork:]} {
		out := pgtest.MustRun(t, s.Tool(t.Context(), t, "pg_waldump", "-p", s.archive, part[0].String(), part[len(part)-1].String()))
		scanner := bufio.NewScanner(strings.NewReader(out))
		scanner.Buffer(nil, 64<<20)
		for scanner.Scan() {
			if line, ok := normalize(t, scanner.Text()); ok {
				lines = append(lines, line)
			}
		}
		if err := scanner.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return lines
}

// inspect asks pg_walinspect for the records of the running server's timeline,
// as far back as it has them, and writes them as pg_waldump does.
func (s *site) inspect(t *testing.T) []string {
	name, err := wal.ParseFileName(s.SQL(t, `SELECT min(name) FROM pg_ls_waldir()
		WHERE name ~ '^[0-9A-F]{24}$' AND left(name, 8) = left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)`))
	if err != nil {
		t.Fatal(err)
	}
	rows := s.SQL(t, `WITH span AS (SELECT $1::text::pg_lsn AS a, pg_current_wal_flush_lsn() AS b),
		blocks AS (
			SELECT start_lsn, string_agg(format(', blkref #%s: rel %s/%s/%s fork %s blk %s%s', block_id, reltablespace, reldatabase,
				relfilenode, (ARRAY['main', 'fsm', 'vm', 'init'])[relforknumber + 1], relblocknumber,
				CASE WHEN block_fpi_length > 0 THEN ' FPW' END), '' ORDER BY block_id) AS refs
			FROM span, pg_get_wal_block_info(a, b, false) GROUP BY start_lsn)
		SELECT format('rmgr: %s len (rec/tot): %s/ %s, tx: %s, lsn: %s, prev %s, desc: %s %s%s',
			resource_manager, record_length - fpi_length, record_length, xid, start_lsn, prev_lsn, record_type,
			replace(description, E'\n', ' '), refs)
		FROM span, pg_get_wal_records_info(a, b) LEFT JOIN blocks USING (start_lsn) ORDER BY start_lsn`,
		name.Start(s.segmentSize).String())
	var lines []string
	for line := range strings.Lines(rows) {
		if normal, ok := normalize(t, strings.TrimSuffix(line, "\n")); ok {
			lines = append(lines, normal)
		}
	}
	return lines
}

var (
	oracleLine  = regexp.MustCompile(`^rmgr: (\S+)\s+len \(rec/tot\):\s+(\d+)/\s*(\d+), tx:\s+(\d+), lsn: (\S+), prev (\S+), desc: (.*)$`)
	oracleBlock = regexp.MustCompile(`, blkref #(\d+): rel (\S+)(?: fork (\S+))? blk (\d+)( FPW)?`)
	oracleEnd   = regexp.MustCompile(`^(COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED|PREPARE)(?: gid (.*?):| (\d+):)? (\d+-\d+-\d+ \d+:\d+:\d+\.?\d*)(?: UTC|\+00)`)
	oracleFile  = regexp.MustCompile(`(?:base|global|pg_tblspc/(\d+)/PG_\d+_\d+)/(?:(\d+)/)?(\d+)(?:_(fsm|vm|init))?`)
	oracleEOR   = regexp.MustCompile(`^END_OF_RECOVERY tli (\d+); prev tli (\d+); time (\S+ \S+?)(?: UTC|\+00)`)
)

// normalize writes a line of pg_waldump as describe does.
func normalize(t *testing.T, line string) (string, bool) {
	m := oracleLine.FindStringSubmatch(line)
	if m == nil {
		if strings.HasPrefix(line, "rmgr: ") {
			t.Fatalf("unknown line %q", line)
		}
		return "", false
	}
	lsn, err1 := wal.ParseLSN(m[5])
	prev, err2 := wal.ParseLSN(m[6])
	if err1 != nil || err2 != nil {
		t.Fatalf("unknown line %q", line)
	}
	blocks := ""
	for _, b := range oracleBlock.FindAllStringSubmatch(m[7], -1) {
		fork := b[3]
		if fork == "" {
			fork = "main"
		}
		blocks += fmt.Sprintf(" #%s %s %s %s%s", b[1], b[2], fork, b[4], b[5])
	}
	desc := m[7]
	if i := strings.Index(desc, ", blkref #"); i >= 0 {
		desc = desc[:i]
	}
	return fmt.Sprintf("%s %s prev %s xid %s len %s/%s%s | %s", lsn, m[1], prev, m[4], m[2], m[3], blocks,
		oracleFacts(t, m[1], m[4], desc)), true
}

// oracleFacts writes a description of pg_waldump's as Record.Describe does.
func oracleFacts(t *testing.T, resource, xid, desc string) string {
	desc = strings.TrimSpace(desc)
	word, rest, _ := strings.Cut(desc, " ")
	part := func(pattern, format string) string {
		m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("unknown description %q", desc)
		}
		values := make([]any, len(m)-1)
		for i := range values {
			values[i] = m[i+1]
		}
		return fmt.Sprintf(format, values...)
	}
	switch resource + " " + word {
	case "Transaction COMMIT", "Transaction ABORT", "Transaction PREPARE",
		"Transaction COMMIT_PREPARED", "Transaction ABORT_PREPARED":
		return oracleTransaction(t, xid, desc)
	case "Storage CREATE":
		file, fork := oracleRelation(t, rest)
		return fmt.Sprintf("CREATE %s %s", file, fork)
	case "Storage TRUNCATE":
		file, _ := oracleRelation(t, rest)
		return "TRUNCATE " + file + " " + part(`\S+ to (\d+) blocks flags (\d+)`, "to %s blocks, parts %s")
	case "Database CREATE_WAL_LOG":
		return part(`create dir (\d+)/(\d+)`, "CREATE DATABASE %[2]s in tablespace %[1]s")
	case "Database CREATE_FILE_COPY":
		return part(`copy dir (\d+)/(\d+) to (\d+)/(\d+)`, "CREATE DATABASE %[4]s in tablespace %[3]s from %[2]s in tablespace %[1]s")
	case "Database DROP":
		return part(`dir (\d+)/(\d+)`, "DROP DATABASE %[2]s; tablespaces %[1]s")
	case "Tablespace CREATE":
		return part(`(\d+) (".*")`, "CREATE TABLESPACE %s %s")
	case "Tablespace DROP":
		return "DROP TABLESPACE " + rest
	case "XLOG RESTORE_POINT":
		return fmt.Sprintf("RESTORE_POINT %q", rest)
	case "XLOG SWITCH":
		return word
	case "XLOG CHECKPOINT_ONLINE", "XLOG CHECKPOINT_SHUTDOWN":
		text := part(`redo (\S+); tli (\d+); prev tli (\d+);.*`, "%s; timeline %s; previous timeline %s")
		redo, rest, _ := strings.Cut(text, ";")
		lsn, err := wal.ParseLSN(redo)
		if err != nil {
			t.Fatal(err)
		}
		return word + " redo " + lsn.String() + ";" + rest
	case "XLOG END_OF_RECOVERY":
		m := oracleEOR.FindStringSubmatch(desc)
		if m == nil {
			t.Fatalf("unknown description %q", desc)
		}
		return fmt.Sprintf("END_OF_RECOVERY timeline %s; previous timeline %s; %s", m[1], m[2], microseconds(t, m[3]))
	case "XLOG PARAMETER_CHANGE":
		text := strings.NewReplacer("max_prepared_xacts", "max_prepared_transactions", "max_locks_per_xact", "max_locks_per_transaction",
			"=on", "=true", "=off", "=false").Replace(desc)
		return text
	}
	return ""
}

func oracleTransaction(t *testing.T, xid, desc string) string {
	m := oracleEnd.FindStringSubmatch(desc)
	if m == nil {
		t.Fatalf("unknown description %q", desc)
	}
	if m[3] != "" {
		xid = m[3]
	}
	text := fmt.Sprintf("%s %s at %s", m[1], xid, microseconds(t, m[4]))
	if m[1] == "PREPARE" {
		text += fmt.Sprintf("; gid %q", m[2])
	}
	lists := map[string]string{}
	for _, part := range strings.Split(desc, "; ") {
		key, list, _ := strings.Cut(part, ": ")
		lists[key] = list
	}
	files := func(title, key string) {
		if lists[key] == "" {
			return
		}
		text += "; " + title
		for _, path := range strings.Fields(lists[key]) {
			file, _ := oracleRelation(t, path)
			text += " " + file
		}
	}
	files("removes", "rels")
	files("removes", "rels(commit)")
	files("removes on abort", "rels(abort)")
	if list := lists["subxacts"]; list != "" {
		text += "; subtransactions " + strings.Join(strings.Fields(list), " ")
	}
	return text
}

// oracleRelation takes a relation's path apart.
func oracleRelation(t *testing.T, path string) (file, fork string) {
	m := oracleFile.FindStringSubmatch(path)
	if m == nil {
		t.Fatalf("unknown path %q", path)
	}
	if fork = m[4]; fork == "" {
		fork = "main"
	}
	switch {
	case m[1] != "":
		return m[1] + "/" + m[2] + "/" + m[3], fork
	case m[2] != "":
		return "1663/" + m[2] + "/" + m[3], fork
	}
	return "1664/0/" + m[3], fork
}

// microseconds writes out the digits that a time may leave out at its end.
func microseconds(t *testing.T, text string) string {
	at, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return at.Format(timeLayout) + "Z"
}

// compare holds what was read against the oracle, which may start later and
// end earlier.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	if len(want) < 1000 {
		t.Fatalf("the oracle has %d records only", len(want))
	}
	start := slices.Index(got, want[0])
	if start < 0 {
		t.Fatalf("the oracle's first record wasn't read: %s", want[0])
	}
	got = got[start:]
	if len(got) < len(want) {
		t.Fatalf("%d records read, the oracle has %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("record %d of %d is\n%s\nwant\n%s", i, len(want), got[i], want[i])
		}
	}
	t.Logf("%d records agree with the oracle", len(want))
}

// checkContent holds that the WAL has what the work was made for, and that
// commit times are those that the server knows.
func (s *site) checkContent(t *testing.T, lines []string) {
	commit := regexp.MustCompile(`\| COMMIT(?:_PREPARED)? (\d+) at (\d+-\d+-\d+ \d+:\d+:\d+\.\d+)`)
	compared := 0
	for _, line := range lines {
		m := commit.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if at, ok := s.commits[m[1]]; ok {
			compared++
			if at != m[2] {
				t.Errorf("transaction %s committed at %s, WAL says %s", m[1], at, m[2])
			}
		}
	}
	if compared < 600 {
		t.Errorf("only %d commit times were compared", compared)
	}
	all := strings.Join(lines, "\n")
	want := []string{
		" Hash ", " Gin ", " Gist ", " SPGist ", " BRIN ", " Sequence ", " LogicalMessage ", " Btree ", " Heap2 ",
		" FPW", " vm ", "| ABORT ", "| ABORT_PREPARED ", "| COMMIT_PREPARED ", `gid "one 2"`,
		`| RESTORE_POINT "three's \"point\""`, "| CHECKPOINT_ONLINE ", "| SWITCH", "| TRUNCATE ", "| PARAMETER_CHANGE ",
		"| END_OF_RECOVERY timeline 2; previous timeline 1", " from 1 in tablespace 1663", "| DROP DATABASE ",
		"| CREATE TABLESPACE ", "| DROP TABLESPACE ", "; removes 1663/", "; removes on abort ", "; subtransactions ", " init",
	}
	if s.Major >= 15 {
		want = append(want, " in tablespace 1663\n", " fsm ")
	}
	for _, text := range want {
		if !strings.Contains(all, text) {
			t.Errorf("no record has %q", text)
		}
	}
}
