//go:build integration

package backup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/backup"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage/file"
	"github.com/walship/walship/test/pgtest"
)

// plant is a running server whose WAL goes into an encrypted repository.
type plant struct {
	work       string
	cluster    *pgtest.Cluster
	repository *repo.Repository
	dir        string // the repository's
	identity   string // file
	recipient  string
	segments   string // folder that archive_command copies to
}

func newPlant(t *testing.T, major pgtest.Major, options ...pgtest.Option) *plant {
	t.Helper()
	p := &plant{work: pgtest.WorkDir(t)}
	p.segments = pgtest.MkdirNobody(t, p.work, "segments")
	p.dir = pgtest.MkdirNobody(t, p.work, "repository")
	secret, recipient, err := crypto.NewIdentity(false)
	must(t, err)
	p.recipient = recipient
	p.identity = pgtest.WriteNobody(t, filepath.Join(p.work, "identity"), secret+"\n")
	must(t, os.Chown(p.identity, 0, 0))
	store, err := file.Open(p.dir)
	must(t, err)
	info, err := repo.Init(t.Context(), store, repo.InitOptions{Encrypted: true, Now: time.Now()})
	must(t, err)
	recipients, err := crypto.ParseRecipients([]string{recipient})
	must(t, err)
	p.repository, err = repo.New(store, info, repo.Keys{Recipients: recipients})
	must(t, err)
	p.cluster = pgtest.New(t, major, append([]pgtest.Option{
		pgtest.SegmentSize(1), pgtest.Checksums(true), pgtest.Set("archive_mode", "on"), pgtest.Set("max_prepared_transactions", "5"),
		pgtest.Set("archive_command", copyTo(p.segments)),
	}, options...)...)
	p.cluster.Start(t)
	return p
}

// copyTo is an archive_command that makes files appear whole in a folder.
func copyTo(dir string) string {
	return fmt.Sprintf("cp %%p %[1]s/%%f.tmp && mv %[1]s/%%f.tmp %[1]s/%%f", dir)
}

// archive pushes what archive_command copied until ctx ends.
func (p *plant) archive(ctx context.Context, t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		systemID, err := strconv.ParseUint(p.systemID(), 10, 64)
		pushed := make(map[string]bool)
		for err == nil && ctx.Err() == nil {
			entries, readErr := os.ReadDir(p.segments)
			err = readErr
			for _, entry := range entries {
				if name := entry.Name(); err == nil && !pushed[name] && !strings.HasSuffix(name, ".tmp") {
					_, err = archive.Push(ctx, p.repository, filepath.Join(p.segments, name), archive.PushOptions{SystemID: systemID, Log: slog.New(slog.DiscardHandler)})
					pushed[name] = true
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		if ctx.Err() != nil {
			err = nil
		}
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("archive: %v", err)
		}
	}
}

func (p *plant) systemID() string {
	root, err := os.OpenRoot(p.cluster.DataDir)
	if err != nil {
		return ""
	}
	defer root.Close()
	control, err := pgdata.ReadControlFile(root)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(control.SystemID, 10)
}

func (p *plant) push(t *testing.T, conninfo string, options backup.Options) (*repo.Backup, error) {
	t.Helper()
	server, err := postgres.Connect(t.Context(), conninfo)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	deps := backup.Deps{Repository: p.repository, Server: server, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test", Host: "db1"}
	return backup.Push(t.Context(), deps, options)
}

// unpack restores a backup with age, zstd and tar alone, its tablespaces
// below work.
func (p *plant) unpack(t *testing.T, b *repo.Backup, target string) {
	t.Helper()
	pgtest.MkdirNobody(t, target)
	for _, space := range b.Tablespaces {
		if !space.InPlace {
			location := pgtest.MkdirNobody(t, fmt.Sprintf("%s-%d", target, space.OID))
			must(t, os.MkdirAll(filepath.Join(target, "pg_tblspc"), 0o700))
			must(t, os.Symlink(location, filepath.Join(target, "pg_tblspc", strconv.FormatUint(uint64(space.OID), 10))))
		}
	}
	open := "set -o pipefail; age -d -i '" + p.identity + "' '" + p.dir + "'/%s | zstd -d -q | %s"
	for _, part := range b.Parts {
		shell(t, fmt.Sprintf(open, part.Key, "tar -x -C '"+target+"'"))
		if sum, _, _ := strings.Cut(shell(t, "sha256sum '"+p.dir+"/"+part.Key+"'"), " "); sum != part.StoredSHA256 {
			t.Errorf("%s: sha256sum says %s, the record %s", part.Key, sum, part.StoredSHA256)
		}
	}
	shell(t, fmt.Sprintf(open, b.Manifest.Key, "cat > '"+target+"/backup_manifest'"))
	if err := os.Remove(filepath.Join(target, "tablespace_map")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	shell(t, "chown -R 65534:65534 '"+target+"'*")
}

// write keeps the cluster busy until stop: relations grow, shrink, come and go.
func (p *plant) write(t *testing.T) (stop func()) {
	conn := p.cluster.Conn(t, "postgres")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 2; ctx.Err() == nil; i++ {
			for _, statement := range []string{
				fmt.Sprintf("CREATE TABLE busy_%d AS SELECT g, repeat('x', 500) AS x FROM generate_series(1, 2000) g", i),
				"INSERT INTO grows SELECT g, repeat('y', 500) FROM generate_series(1, 500) g",
				fmt.Sprintf("DELETE FROM shrinks WHERE id > %d", 20000-300*i), "VACUUM shrinks",
				fmt.Sprintf("DROP TABLE IF EXISTS busy_%d", i-2),
				"TRUNCATE emptied", "INSERT INTO emptied SELECT g FROM generate_series(1, 1000) g",
				fmt.Sprintf("BEGIN; INSERT INTO grows VALUES (-1, 'p'); PREPARE TRANSACTION 'p%d'", i), fmt.Sprintf("COMMIT PREPARED 'p%d'", i),
				"VACUUM FULL grows", "CHECKPOINT",
			} {
				if _, err := conn.Exec(context.Background(), statement); err != nil {
					done <- fmt.Errorf("%s: %w", statement, err)
					return
				}
			}
		}
		done <- nil
	}()
	return func() {
		cancel()
		must(t, <-done)
	}
}

func TestBackup(t *testing.T) { // faults 33, 36 and 40; rules 1, 7, 8 and 24
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			var options []pgtest.Option
			if major >= 15 {
				options = append(options, pgtest.Set("allow_in_place_tablespaces", "on"))
			}
			p := newPlant(t, major, options...)
			c := p.cluster
			location := pgtest.MkdirNobody(t, p.work, "space")
			c.Exec(t, "CREATE TABLESPACE space LOCATION '"+location+"'",
				"CREATE TABLE kept (id int PRIMARY KEY, t text) TABLESPACE space", "INSERT INTO kept SELECT g, md5(g::text) FROM generate_series(1, 20000) g",
				"CREATE UNLOGGED TABLE unlogged AS SELECT g FROM generate_series(1, 5000) g",
				"CREATE TABLE grows (id int, x text)", "CREATE TABLE emptied (id int)",
				"CREATE TABLE shrinks AS SELECT g AS id, repeat('z', 400) AS z FROM generate_series(1, 20000) g")
			if major >= 15 {
				c.Exec(t, "CREATE TABLESPACE inplace LOCATION ''", "CREATE TABLE in_place TABLESPACE inplace AS SELECT g FROM generate_series(1, 1000) g")
			}
			temporary := c.Conn(t, "postgres")
			_, err := temporary.Exec(t.Context(), "CREATE TEMP TABLE gone AS SELECT g FROM generate_series(1, 5000) g")
			must(t, err)
			unlogged := c.SQL(t, "SELECT pg_relation_filepath('unlogged')")

			stopArchive := p.archive(t.Context(), t)
			stopWriting := p.write(t)
			b, err := p.push(t, c.ConnString("postgres"), backup.Options{
				Label: "nightly 'quoted'", Fast: true, Checksums: pgdata.ChecksumSHA224, Concurrency: 4, PartSize: 2 << 20,
			})
			stopWriting()
			must(t, err)
			if len(b.Parts) < 5 {
				t.Errorf("%d parts, want several", len(b.Parts))
			}

			target := filepath.Join(p.work, "restored")
			p.unpack(t, b, target)
			if c.HasTool("pg_verifybackup") {
				pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_verifybackup", "-n", target))
			}
			if _, err := os.Stat(filepath.Join(target, unlogged)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the main fork of an unlogged table is in the backup (%v)", err)
			}
			if _, err := os.Stat(filepath.Join(target, unlogged+"_init")); err != nil {
				t.Errorf("the init fork of an unlogged table: %v", err)
			}
			if found := shell(t, "find '"+target+"' -name 't[0-9]*_[0-9]*'"); found != "" {
				t.Errorf("temporary relations are in the backup: %s", found)
			}

			oracle, end := c.Dump(t, "postgres"), c.SQL(t, "SELECT pg_current_wal_lsn()")
			c.Archive(t)
			stopArchive()
			c.Stop(t, pgtest.Fast)
			boot(t, p, pgtest.Open(t, major, target, options...), end, oracle)
		})
	}
}

// boot starts a restored directory as a standby, and promotes it.
func boot(t *testing.T, p *plant, r *pgtest.Cluster, end, oracle string) {
	t.Helper()
	pgtest.WriteNobody(t, filepath.Join(r.DataDir, "standby.signal"), "")
	r.AppendConf(t, "archive_command = 'false'\nrestore_command = 'cp "+p.segments+"/%f %p'\n")
	r.Start(t)
	// Promoting earlier may conflict with what VACUUM has removed.
	pgtest.WaitFor(t, "the end of the WAL", func() bool { return r.SQL(t, "SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t" })
	r.Promote(t)
	if got := r.Dump(t, "postgres"); got != oracle {
		t.Errorf("the restored cluster differs:\n%s\nwant\n%s", short(got), short(oracle))
	}
	if n := r.SQL(t, "SELECT count(*) FROM unlogged"); n != "0" {
		t.Errorf("the unlogged table has %s rows", n)
	}
	if r.HasTool("pg_amcheck") {
		r.Exec(t, "CREATE EXTENSION amcheck")
		pgtest.MustRun(t, r.Tool(t.Context(), t, "pg_amcheck", "--database=postgres", "--heapallindexed"))
	}
	// A backup on the new timeline needs the history file too.
	r.Configure(t, "archive_command", copyTo(p.segments))
	stop := p.archive(t.Context(), t)
	b, err := p.push(t, r.ConnString("postgres"), backup.Options{Label: "x", Fast: true, Checksums: pgdata.ChecksumNone})
	stop()
	if err != nil || b.Timeline != 2 {
		t.Errorf("a backup of the promoted cluster is of timeline %v (%v), want 2", b, err)
	}
	r.Stop(t, pgtest.Fast)
}

func TestKilledBackup(t *testing.T) { // faults 10 and 38
	p := newPlant(t, 15)
	walship := pgtest.BuildWalship(t)
	config := pgtest.WriteNobody(t, filepath.Join(p.work, "walship.toml"),
		"repository = 'file://"+p.dir+"'\nencryption.recipients = ['"+p.recipient+"']\n")
	shell(t, "chown -R 65534:65534 '"+p.dir+"'")
	command := func(args ...string) *exec.Cmd {
		return p.cluster.Command(t.Context(), t, walship, append([]string{"--config", config}, args...)...)
	}
	list := func() string { return pgtest.MustRun(t, command("backup", "list", "--json")) }
	sessions := func() string {
		return p.cluster.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walship'")
	}
	p.cluster.Exec(t, "CREATE TABLE big AS SELECT g, repeat('x', 1000) FROM generate_series(1, 10000) g")

	t.Run("killed", func(t *testing.T) {
		cmd := command("backup", "push", "--backup-max-rate", "1MB")
		must(t, cmd.Start())
		pgtest.WaitFor(t, "the first part", func() bool {
			found, _ := filepath.Glob(p.dir + "/*/parts/*/start.json")
			return len(found) == 1
		})
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil {
			t.Fatal("the backup ended before it was killed")
		}
		pgtest.WaitFor(t, "the end of the session", func() bool { return sessions() == "0" })
		if got := list(); strings.Contains(got, `"id"`) {
			t.Errorf("a killed backup is listed: %s", got)
		}
	})
	t.Run("terminated", func(t *testing.T) {
		temporary := func() string { return shell(t, "find '"+p.dir+"' -name '.walship-*'") }
		before := temporary() // of the killed one
		cmd := command("backup", "push", "--backup-max-rate", "1MB")
		stderr, err := os.Create(filepath.Join(p.work, "terminated.log"))
		must(t, err)
		defer stderr.Close()
		cmd.Stderr = stderr
		output := func() string {
			text, err := os.ReadFile(stderr.Name())
			must(t, err)
			return string(text)
		}
		must(t, cmd.Start())
		pgtest.WaitFor(t, "the start of the copy", func() bool { return strings.Contains(output(), "backup started") })
		must(t, cmd.Process.Signal(os.Interrupt))
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(output(), "aborted") || !strings.Contains(output(), "interrupt") {
			t.Errorf("a terminated backup ended with %v and said %s", err, output())
		}
		pgtest.WaitFor(t, "the end of the session", func() bool { return sessions() == "0" })
		if left := temporary(); left != before {
			t.Errorf("temporary files are left: %s", left)
		}
	})
	t.Run("session lost", func(t *testing.T) { // fault 37
		cmd := command("backup", "push", "--backup-max-rate", "1MB")
		var output strings.Builder
		cmd.Stderr = &output
		must(t, cmd.Start())
		pgtest.WaitFor(t, "the start of the copy", func() bool {
			found, _ := filepath.Glob(p.dir + "/*/parts/*/start.json")
			return len(found) == 3
		})
		p.cluster.SQL(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walship'")
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(output.String(), "the session that holds the backup is gone") {
			t.Errorf("a backup without its session ended with %v and said %s", err, output.String())
		}
	})
	t.Run("WAL never archived", func(t *testing.T) {
		result := pgtest.Run(t, command("backup", "push", "--wal-timeout", "2s"))
		if result.Code != 1 || !strings.Contains(result.Stderr, "which the backup needs, isn't archived") {
			t.Errorf("exit code %d: %s", result.Code, result.Stderr)
		}
		if got := list(); strings.Contains(got, `"id"`) {
			t.Errorf("a backup without its WAL is listed: %s", got)
		}
	})
	t.Run("whole", func(t *testing.T) {
		p.cluster.Configure(t, "archive_command", walship+" --config "+config+" wal push %p")
		result := pgtest.Run(t, command("backup", "push", "--label", "by hand", "--checkpoint=fast", "--manifest-checksums=sha512", "--progress=json"))
		if result.Code != 0 || !strings.Contains(result.Stderr, `{"event":"progress","what":"backup","id":"20`) {
			t.Errorf("exit code %d: %s", result.Code, result.Stderr)
		}
		if got := pgtest.MustRun(t, command("backup", "list")); !strings.Contains(got, "by hand") {
			t.Errorf("the list is %s", got)
		}
		id := strings.Fields(strings.Split(pgtest.MustRun(t, command("backup", "list")), "\n")[1])[0]
		if got := pgtest.MustRun(t, command("backup", "show", id)); !strings.Contains(got, "SHA512") || !strings.Contains(got, p.systemID()) {
			t.Errorf("the backup is %s", got)
		}
	})
}

func TestPrivileges(t *testing.T) {
	for _, major := range []pgtest.Major{14, 15} {
		t.Run(major.String(), func(t *testing.T) {
			p := newPlant(t, major)
			defer p.archive(t.Context(), t)()
			p.cluster.Exec(t, `CREATE ROLE "back up" LOGIN`)
			conninfo := p.cluster.ConnString("postgres") + " user='back up'"
			options := backup.Options{Label: "x", Fast: true, Checksums: pgdata.ChecksumNone}
			start, stop := "pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"
			if major < 15 {
				start, stop = "pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"
			}
			for _, grant := range []string{"pg_read_all_settings", "EXECUTE ON FUNCTION " + start, "EXECUTE ON FUNCTION " + stop} {
				want := "GRANT " + grant + ` TO "back up"`
				if _, err := p.push(t, conninfo, options); err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want an error that says %s", err, want)
				}
				p.cluster.Exec(t, want)
			}
			if _, err := p.push(t, conninfo, options); err != nil {
				t.Error(err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("bash", "-c", script).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s", script, err, exit.Stderr)
		}
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}

func short(text string) string {
	if len(text) > 2000 {
		return text[:2000] + "…"
	}
	return text
}
