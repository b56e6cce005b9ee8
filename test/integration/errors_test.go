//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// codes are the exit codes of one mistake, by what is run.
type codes struct{ push, fetch, other int }

// What a mistake in the settings ends with: it has to be mended, or may pass.
var (
	usage   = codes{30, 255, 2}
	refused = codes{30, 255, 1}
	passing = codes{10, 255, 1}
)

// TestMistakes makes the mistakes that people make, and checks what each is
// told, and that nothing comes of it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	site := newSite(t, 15, siteOptions{encrypted: true, cluster: []pgtest.Option{
		pgtest.SegmentSize(1), pgtest.Set("wal_keep_size", "64MB")}})
	site.cluster.Exec(t, "CREATE TABLE t (id serial, name text)")
	site.backup(t, site.cluster)
	site.cluster.SQL(t, "INSERT INTO t (name) VALUES ('one')")
	segment := site.cluster.Archive(t) // which stays in pg_wal, too
	checkPatience := patience(t, site)
	t.Run("settings", func(t *testing.T) { wrongSettings(t, site, segment) })
	t.Run("keys", func(t *testing.T) { wrongKeys(t, site, segment) })
	t.Run("files", func(t *testing.T) { wrongFiles(t, site, segment) })
	t.Run("restores", func(t *testing.T) { wrongRestores(t, site) })
	checkPatience()
}

// wrongSettings runs every kind of command with settings that are wrong in one
// way each. Fetch never answers 1 then, which would mean "not there".
func wrongSettings(t *testing.T, site *site, segment string) {
	recipient := strings.TrimSpace(site.walship(t, "key", "show", filepath.Join(site.dir, "identity.txt")).Stdout)
	directory := func(name string) string { return "file://" + filepath.Join(site.dir, name) }
	pgtest.MkdirNobody(t, site.dir, "empty")
	if err := os.Mkdir(filepath.Join(site.dir, "forbidden"), 0o700); err != nil { // root's
		t.Fatal(err)
	}
	pgtest.MustRun(t, site.cluster.Command(t.Context(), t, site.binary, "--repository", directory("plain"), "init", "--no-encryption"))

	type mistake struct {
		name, settings string
		env            []string
		want           codes
		message        string
	}
	repository := func(url string) string { return fmt.Sprintf("repository = %q\n", url) }
	encrypted := fmt.Sprintf("encryption.recipients = [%q]\n", recipient)
	mistakes := []mistake{
		{"unknown setting", repository(directory("repository")) + "wal.concurency = 3\n", nil, usage, "line 2: unknown setting wal.concurency"},
		{"malformed setting", repository(directory("repository")) + "wal.push_deadline = \"soon\"\n", nil, usage, "wal.push_deadline"},
		{"malformed file", "repository = \n", nil, usage, "line 1"},
		{"no repository", "", nil, usage, "no repository is set"},
		{"scheme", repository("ftp://host/x"), nil, usage, "file:// or s3://"},
		{"parameter", repository("s3://bucket/x?regoin=here"), nil, usage, "regoin"},
		{"missing directory", repository(directory("missing")), nil, refused, "missing"},
		{"forbidden directory", repository(directory("forbidden")), nil, refused, "permission denied"},
		{"not initialised", repository(directory("empty")) + encrypted, nil, refused, "repository isn't initialised"},
		{"malformed recipient", repository(directory("repository")) + "encryption.recipients = [\"age1x\"]\n", nil, usage, "encryption.recipients"},
		{"unexpected recipient", repository(directory("plain")) + encrypted, nil, refused, "was initialised without encryption"},
		{"storage down", repository("s3://bucket/x?region=here&path_style=true&endpoint=http://"+closedAddress(t)) + encrypted,
			[]string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=hunter2"}, passing, "connection refused"},
	}
	for _, make := range s3test.Makes() {
		server := s3test.Start(t, make)
		add := func(name, url string, env []string, want codes, message string) {
			mistakes = append(mistakes, mistake{fmt.Sprintf("%s, %s", name, make), repository(url) + encrypted, env, want, message})
		}
		add("missing bucket", server.BucketURL("missing", "x"), server.Env(), refused, "create the bucket")
		add("not initialised", server.URL("x"), server.Env(), refused, "repository isn't initialised")
		add("wrong secret", server.URL("x"), []string{"AWS_ACCESS_KEY_ID=" + server.AccessKey, "AWS_SECRET_ACCESS_KEY=hunter2hunter2"}, refused, "check the credentials")
		add("unknown key", server.URL("x"), []string{"AWS_ACCESS_KEY_ID=nobody", "AWS_SECRET_ACCESS_KEY=hunter2hunter2"}, refused, "check the credentials")
		add("no credentials", server.URL("x"), nil, refused, "AWS_ACCESS_KEY_ID")
	}
	dest := filepath.Join(site.cluster.DataDir, "pg_wal", "RECOVERYXLOG")
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			config := pgtest.WriteNobody(t, filepath.Join(site.dir, "mistake.toml"), m.settings)
			for _, run := range []struct {
				args []string
				want int
			}{
				{[]string{"wal", "push", "--wal-push-deadline=1s", "pg_wal/" + segment}, m.want.push},
				{[]string{"wal", "fetch", "--wal-fetch-deadline=1s", segment, "pg_wal/RECOVERYXLOG"}, m.want.fetch},
				{[]string{"wal", "fetch", "--wal-fetch-deadline=1s", "00000002.history", "pg_wal/RECOVERYXLOG"}, m.want.fetch},
				{[]string{"backup", "list"}, m.want.other},
				{[]string{"restore", "plan"}, m.want.other},
			} {
				t.Run(strings.Join(run.args[:2], " "), func(t *testing.T) {
					t.Parallel() // some wait for their deadline
					cmd := site.cluster.Command(t.Context(), t, site.binary, append([]string{"--config", config}, run.args...)...)
					cmd.Dir = site.cluster.DataDir
					cmd.Env = append(cmd.Env, "AWS_EC2_METADATA_DISABLED=true")
					cmd.Env = append(cmd.Env, m.env...)
					start := time.Now()
					expect(t, pgtest.Run(t, cmd), run.args, run.want, m.message)
					if took := time.Since(start); took > 30*time.Second {
						t.Errorf("walship %s took %v", strings.Join(run.args, " "), took)
					}
					if _, err := os.Lstat(dest); err == nil {
						t.Errorf("walship %s left a file", strings.Join(run.args, " "))
					}
				})
			}
		})
	}
}

// closedAddress is one of this machine on which nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// expect checks how a command that was to fail has ended, and that it said so
// in one line, with at most a hint behind it, and no secret.
func expect(t *testing.T, result pgtest.Result, args []string, code int, messages ...string) {
	t.Helper()
	line := strings.Join(args, " ")
	if result.Code != code {
		t.Errorf("walship %s: exit code %d, want %d\n%s", line, result.Code, code, result.Stderr)
	}
	said, hints := 0, 0
	var text strings.Builder
	for l := range strings.Lines(result.Stderr) {
		switch {
		case strings.HasPrefix(l, "walship: hint: "):
			hints++
		case strings.HasPrefix(l, "walship: "):
			said++
		case strings.HasPrefix(l, "time="): // a log line
			continue
		default:
			t.Errorf("walship %s printed this: %s", line, l)
		}
		text.WriteString(l)
	}
	if said != 1 || hints > 1 {
		t.Errorf("walship %s printed %d errors and %d hints:\n%s", line, said, hints, result.Stderr)
	}
	for _, message := range messages {
		if !strings.Contains(text.String(), message) {
			t.Errorf("walship %s didn't say %q:\n%s", line, message, result.Stderr)
		}
	}
	for _, secret := range []string{"hunter2", "AGE-SECRET-KEY-1"} {
		if strings.Contains(result.Stdout+result.Stderr, secret) {
			t.Errorf("walship %s printed a secret", line)
		}
	}
}

// wrongKeys is faults 46, 53 and 56: what is needed to write and to read
// is missing, wrong, or open to others.
func wrongKeys(t *testing.T, site *site, segment string) {
	identity := filepath.Join(site.dir, "identity.txt")
	other := filepath.Join(site.dir, "other.txt")
	site.keyNew(t, other)
	fingerprint := func(file string) string {
		var key struct {
			Recipients []struct{ Fingerprint string }
		}
		text := site.walship(t, "key", "show", "--json", file).Stdout
		if err := json.Unmarshal([]byte(text), &key); err != nil || len(key.Recipients) != 1 {
			t.Fatalf("key show: %v\n%s", err, text)
		}
		return key.Recipients[0].Fingerprint
	}
	loose := filepath.Join(site.dir, "loose.txt")
	secret, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	write(t, loose, string(secret))
	if err := os.Chmod(loose, 0o640); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("repository = \"file://%s/repository\"\n", site.dir)
	with := func(file string) string { return base + fmt.Sprintf("encryption.identity_files = [%q]\n", file) }

	push := []string{"wal", "push", "pg_wal/" + segment}
	fetch := []string{"wal", "fetch", segment, "pg_wal/RECOVERYXLOG"}
	unread := filepath.Join(site.dir, "unread")
	restore := []string{"restore", "run", "--target-directory", unread}
	for _, c := range []struct {
		name, settings string
		args           []string
		code           int
		messages       []string
	}{
		{"push without a recipient", base, push, 30, []string{"no recipient is configured", "encryption.recipients"}},
		{"fetch without an identity", base, fetch, 255, []string{"encryption.identity_files is empty"}},
		{"restore without an identity", base, restore, 2, []string{"encryption.identity_files is empty"}},
		{"fetch with another's", with(other), fetch, 255, []string{"encrypted to " + fingerprint(identity), fingerprint(other)}},
		{"restore with another's", with(other), restore, 1, []string{"encrypted to " + fingerprint(identity), fingerprint(other)}},
		{"fetch with a loose one", with(loose), fetch, 255, []string{"chmod 600 " + loose}},
		{"restore with a loose one", with(loose), restore, 2, []string{"chmod 600 " + loose}},
		{"fetch with a missing one", with(unread), fetch, 255, []string{unread}},
		{"fetch with a recipient", with(site.config), fetch, 255, []string{"identity of age"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := pgtest.WriteNobody(t, filepath.Join(site.dir, "mistake.toml"), c.settings)
			cmd := site.cluster.Command(t.Context(), t, site.binary, append([]string{"--config", config}, c.args...)...)
			cmd.Dir = site.cluster.DataDir
			expect(t, pgtest.Run(t, cmd), c.args, c.code, c.messages...)
			if _, err := os.Lstat(filepath.Join(site.cluster.DataDir, "pg_wal", "RECOVERYXLOG")); err == nil {
				t.Error("a file was left")
			}
			if _, err := os.Lstat(filepath.Join(unread, "global", "pg_control")); err == nil {
				t.Error("a cluster was restored")
			}
		})
	}
	// The right identity doesn't need the recipient to read.
	config := pgtest.WriteNobody(t, filepath.Join(site.dir, "right.toml"), with(identity))
	cmd := site.cluster.Command(t.Context(), t, site.binary, append([]string{"--config", config}, fetch...)...)
	cmd.Dir = site.cluster.DataDir
	pgtest.MustRun(t, cmd)
}

// wrongFiles is faults 27 and 29: what isn't the file that it is said to
// be isn't archived.
func wrongFiles(t *testing.T, site *site, segment string) {
	wal := filepath.Join(site.cluster.DataDir, "pg_wal")
	data, err := os.ReadFile(filepath.Join(wal, segment))
	if err != nil {
		t.Fatal(err)
	}
	next := site.cluster.SQL(t, "SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 16 * 1024 * 1024)")
	stranger := pgtest.New(t, 15, pgtest.SegmentSize(1))
	theirs, err := filepath.Glob(filepath.Join(stranger.DataDir, "pg_wal", "00000001*"))
	if err != nil || len(theirs) == 0 {
		t.Fatalf("find the WAL of another cluster: %v, %v", theirs, err)
	}
	there := site.files(t)

	folder := pgtest.MkdirNobody(t, site.dir, "files")
	put := func(name, content string) string {
		path := filepath.Join(folder, name)
		write(t, path, content)
		return path
	}
	unreadable := filepath.Join(folder, "000000010000000000000042")
	if err := os.WriteFile(unreadable, data, 0o600); err != nil { // root's
		t.Fatal(err)
	}
	torn := []byte(string(data))
	torn[0] ^= 1
	for _, c := range []struct {
		name    string
		path    string
		flags   []string
		message string
	}{
		{"another name", put(next, string(data)), nil, "its name to"},
		{"another timeline's", put("00000001"+next[8:16]+"FFFFFFFF", string(data)), nil, "FFFFFFFF"},
		{"another cluster's", theirs[0], []string{"--system-id", site.cluster.SQL(t, "SELECT system_identifier FROM pg_control_system()")}, "another cluster"},
		{"cut", put("000000010000000000000043", string(data[:len(data)/2])), nil, "000000010000000000000043"},
		{"no WAL", put("000000010000000000000044", string(torn)), nil, "000000010000000000000044"},
		{"empty", put("000000010000000000000045", ""), nil, "0 bytes"},
		{"unreadable", unreadable, nil, "permission denied"},
		{"missing", filepath.Join(folder, "000000010000000000000046"), nil, "no such file"},
		{"a folder", pgtest.MkdirNobody(t, folder, "000000010000000000000047"), nil, "not a regular file"},
		{"a history without lines", put("00000003.history", "what?\n"), nil, "00000003.history"},
		{"no name of WAL", put("postgresql.conf", ""), nil, "postgresql.conf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := slices.Concat([]string{"wal", "push", "--postgres-data-directory", site.cluster.DataDir}, c.flags, []string{c.path})
			cmd := site.command(t, args...)
			cmd.Dir = site.dir
			expect(t, pgtest.Run(t, cmd), args, 30, c.message)
		})
	}
	if got := site.files(t); !slices.Equal(got, there) {
		t.Errorf("the repository has %v, had %v", got, there)
	}
}

// wrongRestores is faults 42, 43 and 44: what can't be restored is refused
// before anything is touched.
func wrongRestores(t *testing.T, site *site) {
	taken := pgtest.MkdirNobody(t, site.dir, "taken")
	write(t, filepath.Join(taken, "precious"), "")
	never := filepath.Join(site.dir, "never")
	live := site.cluster.DataDir
	for _, c := range []struct {
		name      string
		args      []string
		env       string
		code      int
		messages  []string
		directory string // "": never
	}{
		{"not empty", nil, "", 4, []string{taken, "isn't empty", "precious"}, taken},
		{"of a server", nil, "", 4, []string{"server runs in " + live}, live},
		{"no parent", nil, "", 4, []string{"make it first"}, filepath.Join(never, "deep")},
		{"zoneless", []string{"--to-time", "2026-07-01 14:25:00"}, "TZ=Europe/Berlin", 2,
			[]string{"has no zone", `"2026-07-01 14:25:00+00"`, `"2026-07-01 12:25:00+00"`, "CEST, +02:00"}, ""},
		{"zoneless in winter", []string{"--to-time", "2026-01-01T14:25"}, "TZ=Europe/Berlin", 2,
			[]string{"has no zone", `"2026-01-01 14:25:00+00"`, `"2026-01-01 13:25:00+00"`, "CET, +01:00"}, ""},
		{"zoneless far away", []string{"--to-time", "2026-11-20 14:25:00.5"}, "TZ=Asia/Kolkata", 2,
			[]string{"has no zone", `"2026-11-20 14:25:00.5+00"`, `"2026-11-20 08:55:00.5+00"`, "+05:30"}, ""},
		{"zoneless in UTC", []string{"--to-time", "2026-11-20 14:25:00"}, "TZ=UTC", 2, []string{"has no zone", `"2026-11-20 14:25:00+00"`}, ""},
		{"no time", []string{"--to-time", "yesterday"}, "", 2, []string{"is not a time"}, ""},
		{"zone of that name", []string{"--to-time", "2026-11-20 14:25:00 CET"}, "", 2, []string{"write it as an offset"}, ""},
		{"no LSN", []string{"--to-lsn", "0-3"}, "", 2, []string{"--to-lsn"}, ""},
		{"two targets", []string{"--immediate", "--to-xid", "777"}, "", 2, []string{"one target"}, ""},
		{"exclusive name", []string{"--to-name", "x", "--exclusive"}, "", 2, []string{"exclusive"}, ""},
		{"flag behind an argument", []string{"elsewhere", "--immediate"}, "", 2, []string{"flag --immediate stands behind an argument"}, ""},
		{"unknown backup", []string{"--backup", "20200101T000000Z"}, "", 4, []string{"no backup 20200101T000000Z"}, ""},
		{"unknown cluster", []string{"--system-id", "42"}, "", 4, []string{"nothing of cluster 42: it has ["}, ""},
		{"before the first backup", []string{"--to-time", "2020-01-01T00:00:00Z"}, "", 4, []string{"can be restored to times behind that"}, ""},
		{"LSN before it", []string{"--to-lsn", "0/100028"}, "", 4, []string{"can be restored to LSNs from there on"}, ""},
		{"behind the archive", []string{"--to-lsn", "FF/0"}, "", 4, []string{"can't be reached"}, ""},
		{"the future", []string{"--to-time", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}, "", 4, []string{"in the future", "can be reached; --to-latest restores all of that"}, ""},
		{"an action without a target", []string{"--target-action", "shutdown"}, "", 2, []string{"--target-action shutdown is for a target"}, ""},
		{"a standby's action", []string{"--standby", "--target-action", "promote"}, "", 2, []string{"a standby has none"}, ""},
		{"no form of progress", []string{"--progress", "never"}, "", 2, []string{"it is auto, json or none"}, ""},
		{"unknown timeline", []string{"--timeline", "7"}, "", 4, []string{"timeline 7 has no history file"}, ""},
		{"no tablespace", []string{"--tablespace-map", "/old=/new"}, "", 2, []string{"no tablespace /old"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			directory := c.directory
			if directory == "" {
				directory = never
			}
			before := fmt.Sprint(directoryNames(directory))
			args := slices.Concat([]string{"restore", "run", "--target-directory", directory}, c.args)
			cmd := site.command(t, args...)
			cmd.Env = append(cmd.Env, c.env)
			expect(t, pgtest.Run(t, cmd), args, c.code, c.messages...)
			if after := fmt.Sprint(directoryNames(directory)); after != before && directory != live {
				t.Errorf("%s has changed from %s to %s", directory, before, after)
			}
			if _, err := os.Lstat(directory + ".walship"); err == nil {
				t.Errorf("%s.walship was made", directory)
			}
		})
	}
	if got := site.cluster.SQL(t, rows); got != "one" {
		t.Errorf("the live cluster has rows %q", got)
	}
}

// directoryNames lists a directory; nil when it isn't there.
func directoryNames(path string) []string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
