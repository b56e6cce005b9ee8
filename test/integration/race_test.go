//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

// TestTwoPromoted is faults 25 and 26 and rule 15: two standbys are promoted at
// the same LSN, and both have a backlog for one repository. Their history files
// are the same. One of them gets all of its WAL in, the other nothing, and is
// told who was first and where they part: at which record, or between which ones
// if it can't read the other's.
func TestTwoPromoted(t *testing.T) {
	t.Parallel()
	choices := []bool{false}
	if full() {
		choices = append(choices, true)
	}
	for _, encrypted := range choices {
		t.Run(fmt.Sprintf("encrypted=%t", encrypted), func(t *testing.T) { twoPromoted(t, encrypted) })
	}
}

func twoPromoted(t *testing.T, encrypted bool) {
	site := newSite(t, 15, siteOptions{encrypted: encrypted, cluster: []pgtest.Option{
		pgtest.SegmentSize(1), pgtest.Set("checkpoint_timeout", "1h"), pgtest.Set("max_wal_size", "1GB"), pgtest.Set("wal_keep_size", "1GB")}})
	primary := site.cluster
	primary.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, primary)

	const settings = "archive_command = 'false'\nrecovery_target_name = 'fork'\nrecovery_target_action = 'promote'\n"
	var both [2]*pgtest.Cluster
	for i, name := range []string{"left", "right"} {
		both[i] = makeStandby(t, site, name, primary, settings)
	}
	primary.Exec(t, "INSERT INTO t (name) VALUES ('common')", "SELECT pg_create_restore_point('fork')")
	for _, c := range both {
		c.WaitPromoted(t)
	}
	primary.Kill(t)
	var histories [2][]byte
	for i, c := range both {
		var err error
		if histories[i], err = os.ReadFile(filepath.Join(c.DataDir, "pg_wal", "00000002.history")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(histories[0], histories[1]) {
		t.Fatalf("the history files differ:\n%s\n%s", histories[0], histories[1])
	}

	const most = 8
	var names [2][]string
	for i, name := range []string{"left", "right"} {
		names[i] = segments(t, both[i], name, most)
	}
	for _, c := range both {
		c.Configure(t, "archive_command", site.binary+" --config "+site.config+" wal push %p")
	}
	refused := func(c *pgtest.Cluster) bool { return strings.Contains(c.Log(t), "exit code 20") }
	pgtest.WaitFor(t, "one of the two to be refused", func() bool { return refused(both[0]) || refused(both[1]) })
	winner, loser := 0, 1
	if refused(both[0]) {
		winner, loser = 1, 0
	}
	for _, name := range names[winner] {
		both[winner].WaitArchived(t, name)
	}
	if refused(both[winner]) {
		t.Error("both are refused")
	}
	for _, name := range site.files(t) {
		if !strings.HasPrefix(name, "00000002") || !wholeSegment.MatchString(name) {
			continue
		}
		fetched := filepath.Join(site.dir, "fetched")
		site.walship(t, "wal", "fetch", "--postgres-data-directory", both[winner].DataDir, name, fetched)
		same(t, filepath.Join(both[winner].DataDir, "pg_wal", name), fetched)
	}
	if done, err := filepath.Glob(filepath.Join(both[loser].DataDir, "pg_wal", "archive_status", "00000002*.done")); err != nil ||
		slices.ContainsFunc(done, func(path string) bool { return !strings.HasSuffix(path, ".history.done") }) {
		t.Errorf("the loser takes for archived: %v (%v)", done, err)
	}
	loserSays(t, both, both[loser].Log(t))
	both[loser].Kill(t) // an orderly shutdown would ask again and again

	want := both[winner].SQL(t, rows)
	both[winner].Stop(t, pgtest.Fast)
	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != want {
		t.Errorf("rows %q, want those of the winner: %q", got, want)
	}
}

// loserSays checks what a conflict of two servers is said to be.
func loserSays(t *testing.T, both [2]*pgtest.Cluster, log string) {
	t.Helper()
	conflict := regexp.MustCompile(`object [^ ]*/(0000000200[0-9A-F]*)\.zst(?:\.age)? in the repository has other content ` +
		`\((?:the first record that differs is at ([0-9A-F/]+)|records between ([0-9A-F/]+) and ([0-9A-F/]+) differ)\): ` +
		`another server, on a host of this name \("[^"]+"\), archives timeline 2 `)
	said := conflict.FindStringSubmatch(log)
	if said == nil {
		t.Fatalf("the loser doesn't say who was first and where they part:\n%s", log)
	}
	want := parting(t, both, said[1])
	if said[2] != "" && parseLSN(t, said[2]) != want {
		t.Errorf("the loser says that they part at %s; pg_waldump says %s", said[2], want)
	}
	if said[2] == "" && (parseLSN(t, said[3]) > want || parseLSN(t, said[4]) <= want) {
		t.Errorf("the loser says that they part between %s and %s; pg_waldump says %s", said[3], said[4], want)
	}
}

func parseLSN(t *testing.T, text string) wal.LSN {
	t.Helper()
	lsn, err := wal.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// same holds a small file against another.
func same(t *testing.T, want, got string) {
	t.Helper()
	var contents [2][]byte
	for i, path := range []string{want, got} {
		var err error
		if contents[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(contents[0], contents[1]) {
		t.Errorf("%s isn't %s", got, want)
	}
}

// parting is where the record stands, by pg_waldump, that has the first byte in
// which two servers' copies of a segment differ.
func parting(t *testing.T, both [2]*pgtest.Cluster, segment string) wal.LSN {
	t.Helper()
	var contents [2][]byte
	for i, c := range both {
		var err error
		if contents[i], err = os.ReadFile(filepath.Join(c.DataDir, "pg_wal", segment)); err != nil {
			t.Fatal(err)
		}
	}
	name, err := wal.ParseFileName(segment)
	if err != nil {
		t.Fatal(err)
	}
	differ := name.Start(uint64(len(contents[0])))
	for i, b := range contents[0] {
		if contents[1][i] != b {
			differ += wal.LSN(i)
			break
		}
	}
	// It ends with an error where the segment's records do.
	text := pgtest.Run(t, both[0].Tool(t.Context(), t, "pg_waldump", filepath.Join(both[0].DataDir, "pg_wal", segment))).Stdout
	at := wal.LSN(0)
	for _, found := range regexp.MustCompile(`lsn: ([0-9A-F]+/[0-9A-F]+)`).FindAllStringSubmatch(text, -1) {
		if lsn := parseLSN(t, found[1]); lsn <= differ {
			at = lsn
		}
	}
	return at
}

// TestAlwaysArchivingStandby is rule 17: a standby with archive_mode = always
// that follows a promoted one hands over what it has of the old timeline's last
// segment, under a whole segment's name. That is kept as a partial one, and the
// name stays free; the new timeline's segments come from both, and are equal. The
// second time it is promoted itself before its archiver gets that far.
func TestAlwaysArchivingStandby(t *testing.T) {
	t.Parallel()
	for _, promoted := range []bool{false, true} {
		t.Run(fmt.Sprintf("promoted=%t", promoted), func(t *testing.T) { alwaysArchiving(t, promoted) })
	}
}

func alwaysArchiving(t *testing.T, promoted bool) {
	site := newSite(t, 15, siteOptions{encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	primary := site.cluster
	primary.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, primary)
	first := makeStandby(t, site, "first", primary, "")
	// A checkpoint removes what is archived, and its status file, which is waited for.
	settings := "archive_mode = always\nrecovery_target_timeline = 'latest'\nwal_keep_size = '1GB'\n"
	if promoted {
		settings += "archive_command = 'false'\n"
	}
	second := makeStandby(t, site, "second", first, settings)
	primary.Exec(t, "INSERT INTO t (name) VALUES ('before')")
	pgtest.WaitFor(t, "both standbys", func() bool { return first.SQL(t, rows) == "before" && second.SQL(t, rows) == "before" })
	primary.Kill(t)

	first.Promote(t)
	fork := forkSegment(t, first).String()
	names := segments(t, first, "behind", 3)
	want := first.SQL(t, rows)
	last := first
	if promoted {
		pgtest.WaitFor(t, "the second standby", func() bool { return second.SQL(t, rows) == want })
		first.Stop(t, pgtest.Fast)
		second.Promote(t)
		second.Configure(t, "archive_command", site.binary+" --config "+site.config+" wal push %p")
		last = second
		names = append(names, "00000003.history")
	}
	second.WaitLog(t, "it is archived as partial")
	for _, name := range append(names, fork) {
		pgtest.WaitFor(t, name+" to be archived", func() bool {
			_, err := os.Stat(filepath.Join(second.DataDir, "pg_wal", "archive_status", name+".done"))
			return err == nil
		})
	}
	for _, c := range []*pgtest.Cluster{first, second} {
		if strings.Contains(c.Log(t), "failed with exit code 20") {
			t.Error("an archive command met a conflict")
		}
	}
	files := site.files(t)
	if slices.Contains(files, fork) || !slices.Contains(files, fork+".partial") {
		t.Errorf("%s isn't there as a partial segment only: %v", fork, files)
	}
	last.Stop(t, pgtest.Fast)
	restored := site.restore(t, "restored")
	restored.Start(t)
	restored.WaitPromoted(t)
	if got := restored.SQL(t, rows); got != want {
		t.Errorf("rows %q, want %q", got, want)
	}
}
