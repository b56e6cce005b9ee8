//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// TestIncrementalWithoutIdentity takes a chain on a host that holds recipients
// only: it remembers which files its backups have, and knows what has changed
// from the server's WAL summaries (17 and later) or from the WAL that the server
// still has.
func TestIncrementalWithoutIdentity(t *testing.T) {
	t.Parallel()
	for _, major := range daily([]pgtest.Major{15}, 18) {
		t.Run(major.String(), func(t *testing.T) {
			options := []pgtest.Option{pgtest.Checksums(true), pgtest.Set("autovacuum", "off"), pgtest.Set("max_prepared_transactions", "10")}
			known := "reading the WAL since the parent"
			if major >= 17 {
				options = append(options, pgtest.Set("summarize_wal", "on"))
				known = "the server's WAL summaries"
			} else {
				options = append(options, pgtest.Set("wal_keep_size", "1GB"))
			}
			site := newSite(t, major, siteOptions{encrypted: true, cluster: options})
			c := site.cluster
			host := site.withoutIdentity(t)
			c.Exec(t, schema...)
			begin(t, c)
			last := host.push(t, "", "")
			for round := range 3 {
				change(t, c, round)
				last = host.push(t, last, known)
			}
			full := site.backup(t, c)
			space := "--tablespace-map=" + c.Dir + "/space=" + site.dir
			chain := site.restore(t, "chain", "--backup", last, space+"/space")
			whole := site.restore(t, "whole", "--backup", full, space+"/space-whole")
			equalFiles(t, whole.DataDir, chain.DataDir)

			// What the host remembers isn't taken for another backup's.
			remembered, err := filepath.Glob(filepath.Join(site.dir, "state", "*", "backup-*.files.gz"))
			if err != nil || len(remembered) != 4 {
				t.Fatalf("%d backups are remembered (%v), want 4", len(remembered), err)
			}
			other, err := os.ReadFile(remembered[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range remembered[1:] {
				if err := os.WriteFile(name, other, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			result := host.try(t, "backup", "push", "--incremental", "--parent", last)
			if result.Code != 0 || !strings.HasPrefix(result.Stdout, "full backup") ||
				!strings.Contains(result.Stderr, "it is of another backup") || !strings.Contains(result.Stderr, "no identity opens it") {
				t.Errorf("with another backup's list: exit code %d\n%s%s", result.Code, result.Stdout, result.Stderr)
			}
		})
	}
}

// withoutIdentity is the site as its database host should be.
func (s *site) withoutIdentity(t *testing.T) *site {
	t.Helper()
	settings, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(settings)) {
		if !strings.HasPrefix(line, "identity_files") {
			kept = append(kept, line)
		}
	}
	host := *s
	host.config = filepath.Join(s.dir, "host.toml")
	write(t, host.config, strings.Join(kept, ""))
	return &host
}

// push takes a backup: a full one without a parent, else an incremental one
// whose log says how it knew.
func (s *site) push(t *testing.T, parent, says string) string {
	t.Helper()
	args := []string{"backup", "push", "--json"}
	if parent != "" {
		args = append(args, "--incremental")
	}
	result := s.walship(t, args...)
	var record struct {
		ID     string
		Parent struct{ Backup string }
	}
	if err := json.Unmarshal([]byte(result.Stdout), &record); err != nil || record.Parent.Backup != parent || !strings.Contains(result.Stderr, says) {
		t.Fatalf("the backup is based on %q, want %q (%v)\n%s", record.Parent.Backup, parent, err, result.Stderr)
	}
	return record.ID
}
