//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// site is a running cluster that archives into a repository of its own, and
// the settings file with which walship is called there.
type site struct {
	cluster *pgtest.Cluster
	dir     string // private, owned by the server's user
	binary  string
	config  string
	env     []string // credentials
}

type siteOptions struct {
	server    *s3test.Server // nil: a directory
	encrypted bool
	cluster   []pgtest.Option
	settings  string // further lines of the settings file
}

// newSite makes a repository, with walship's own commands, and starts a
// cluster that archives into it.
func newSite(t *testing.T, major pgtest.Major, o siteOptions) *site {
	t.Helper()
	s := &site{dir: pgtest.WorkDir(t), binary: pgtest.BuildWalship(t)}
	s.config = filepath.Join(s.dir, "walship.toml")
	repository := "file://" + filepath.Join(s.dir, "repository")
	if o.server != nil {
		repository = o.server.URL(filepath.Base(s.dir))
		s.env = o.server.Env()
	}
	s.cluster = pgtest.New(t, major, append([]pgtest.Option{
		pgtest.Env(s.env...),
		pgtest.Set("archive_mode", "on"),
		pgtest.Set("archive_command", s.binary+" --config "+s.config+" wal push %p"),
	}, o.cluster...)...)

	settings := []string{
		fmt.Sprintf("repository = %q", repository),
		fmt.Sprintf("state_directory = %q", filepath.Join(s.dir, "state")),
		o.settings,
	}
	initialise := []string{"init"}
	if o.encrypted {
		identity := filepath.Join(s.dir, "identity.txt")
		recipient := s.keyNew(t, identity)
		settings = append(settings, "[encryption]",
			fmt.Sprintf("recipients = [%q]", recipient), fmt.Sprintf("identity_files = [%q]", identity))
	} else {
		initialise = append(initialise, "--no-encryption")
	}
	write(t, s.config, strings.Join(settings, "\n")+"\n")
	s.walship(t, initialise...)
	s.cluster.Start(t)
	return s
}

// keyNew makes an identity file and returns its recipient.
func (s *site) keyNew(t *testing.T, path string) string {
	t.Helper()
	pgtest.MustRun(t, s.cluster.Command(t.Context(), t, s.binary, "key", "new", "--output", path))
	return strings.TrimSpace(pgtest.MustRun(t, s.cluster.Command(t.Context(), t, s.binary, "key", "show", path)))
}

// command prepares a call of walship with the site's settings.
func (s *site) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return s.commandOn(t, s.cluster, args...)
}

// commandOn is command for a cluster that the site's was copied to. It runs in
// that one's data directory, as PostgreSQL runs its commands.
func (s *site) commandOn(t *testing.T, c *pgtest.Cluster, args ...string) *exec.Cmd {
	t.Helper()
	cmd := c.Command(t.Context(), t, s.binary, append([]string{"--config", s.config}, args...)...)
	cmd.Dir = c.DataDir
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// backup takes a backup of a cluster and returns its id.
func (s *site) backup(t *testing.T, c *pgtest.Cluster) string {
	t.Helper()
	return backupID(t, pgtest.MustRun(t, s.commandOn(t, c, "backup", "push", "--json")))
}

// backupID reads the id that a push printed as JSON.
func backupID(t *testing.T, text string) string {
	t.Helper()
	var record struct{ ID string }
	if err := json.Unmarshal([]byte(text), &record); err != nil || record.ID == "" {
		t.Fatalf("backup push: %v\n%s", err, text)
	}
	return record.ID
}

// restore restores into a new directory, has it verified, and doesn't start
// it yet.
func (s *site) restore(t *testing.T, name string, args ...string) *pgtest.Cluster {
	t.Helper()
	target := filepath.Join(s.dir, name)
	s.walship(t, append([]string{"restore", "run", "--target-directory", target}, args...)...)
	s.verify(t, target)
	return pgtest.Open(t, s.cluster.Major, target, pgtest.Env(s.env...))
}

// files lists the names of the archived WAL.
func (s *site) files(t *testing.T) []string {
	t.Helper()
	var list struct {
		Clusters []struct{ Files []struct{ Name string } }
	}
	text := s.walship(t, "wal", "list", "--files", "--json").Stdout
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("wal list: %v\n%s", err, text)
	}
	var names []string
	for _, cluster := range list.Clusters {
		for _, file := range cluster.Files {
			names = append(names, file.Name)
		}
	}
	return names
}

// walship calls walship and fails the test unless it succeeds.
func (s *site) walship(t *testing.T, args ...string) pgtest.Result {
	t.Helper()
	result := s.try(t, args...)
	if result.Code != 0 {
		t.Fatalf("walship %s: exit code %d\n%s%s", strings.Join(args, " "), result.Code, result.Stdout, result.Stderr)
	}
	return result
}

// try calls walship, whatever its exit code.
func (s *site) try(t *testing.T, args ...string) pgtest.Result {
	t.Helper()
	return pgtest.Run(t, s.command(t, args...))
}

// verify runs the major's own pg_verifybackup on a restored directory that
// wasn't started yet. WAL comes through walship, as recovery will get it.
func (s *site) verify(t *testing.T, target string) {
	t.Helper()
	if !s.cluster.HasTool("pg_verifybackup") {
		return
	}
	segments := filepath.Join(s.dir, "verify-wal")
	if _, err := os.Lstat(segments); err != nil {
		pgtest.MkdirNobody(t, segments)
	}
	for _, name := range s.files(t) {
		path := filepath.Join(segments, name)
		if len(name) != len("000000010000000000000001") { // not a whole segment
			continue
		}
		if _, err := os.Lstat(path); err != nil {
			s.walship(t, "wal", "fetch", "--postgres-data-directory", s.cluster.DataDir, name, path)
		}
	}
	pgtest.MustRun(t, s.cluster.Tool(t.Context(), t, "pg_verifybackup", "--wal-directory", segments, target))
}

// amcheck runs the major's own pg_amcheck on a running server.
func (s *site) amcheck(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	if !c.HasTool("pg_amcheck") {
		return
	}
	pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_amcheck", "--install-missing", "--heapallindexed", "--all"))
}

// write makes a file that the server's user owns.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
}

// diff shows where two texts differ.
func diff(t *testing.T, want, got string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"want": want, "got": got} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output, _ := exec.Command("diff", "-u", filepath.Join(dir, "want"), filepath.Join(dir, "got")).Output() // 1: they differ
	const most = 4000
	if len(output) > most {
		output = output[:most]
	}
	return string(output)
}
