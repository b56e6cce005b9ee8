//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// pgbench keeps a cluster of any major busy with the pgbench of one that has
// it, until stop.
func pgbench(t *testing.T, c *pgtest.Cluster, args ...string) (stop func()) {
	t.Helper()
	const has = pgtest.Major(15)
	prepare := func(ctx context.Context, args ...string) func() error {
		cmd := pgtest.Command(ctx, t, has, "pgbench", args...)
		cmd.Dir = c.Dir
		cmd.Env = append(cmd.Env, "PGHOST="+c.SocketDir, "PGPORT="+strconv.Itoa(c.Port), "PGUSER=postgres", "PGDATABASE=postgres")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd.Wait
	}
	if err := prepare(t.Context(), "--initialize", "--quiet", "--scale=2")(); err != nil {
		t.Fatalf("pgbench --initialize: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait := prepare(ctx, append([]string{"--no-vacuum", "--client=4", "--time=600"}, args...)...)
	return func() {
		cancel()
		_ = wait() // it was killed
	}
}

// TestBadPages has pages of a server damaged on disk. A backup finds these, and
// no others, while pgbench and checkpoints write pages. Whether one of those is
// torn when it is read is chance: pkg/backup.TestPageReadAgain shows what comes of
// a page that is.
func TestBadPages(t *testing.T) { // fault 35
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, major, siteOptions{cluster: []pgtest.Option{
				pgtest.Checksums(true), pgtest.Set("autovacuum", "off"), pgtest.Set("full_page_writes", "on"),
			}})
			c := s.cluster
			c.Exec(t, "CREATE TABLE damaged AS SELECT g AS id, repeat('x', 500) AS x FROM generate_series(1, 5000) g", "VACUUM damaged", "CHECKPOINT")
			file := c.SQL(t, "SELECT pg_relation_filepath('damaged')")
			flip(t, filepath.Join(c.DataDir, file), 17*8192+4321)
			flip(t, filepath.Join(c.DataDir, file+"_vm"), 77)
			want := []string{
				"wrong page checksum: " + file + ", main fork, block 17",
				"wrong page checksum: " + file + "_vm, vm fork, block 0",
			}

			stop := pgbench(t, c)
			writes := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { // pages are written all the time, and not only evicted
				defer close(writes)
				conn := c.Conn(t, "postgres")
				for ctx.Err() == nil {
					if _, err := conn.Exec(context.WithoutCancel(ctx), "CHECKPOINT"); err != nil {
						t.Errorf("checkpoint: %v", err)
						return
					}
				}
			}()
			result := s.try(t, "backup", "push", "--json")
			cancel()
			<-writes
			stop()

			var record struct {
				ID           string
				Degraded     []string
				PagesBad     int64 `json:"pages_bad"`
				PagesChecked int64 `json:"pages_checked"`
			}
			if err := json.Unmarshal([]byte(result.Stdout), &record); err != nil || result.Code != 3 {
				t.Fatalf("backup push: exit code %d, want 3 (%v)\n%s%s", result.Code, err, result.Stdout, result.Stderr)
			}
			if !slices.Equal(record.Degraded, want) || record.PagesBad != 2 || record.PagesChecked < 5000/16 {
				t.Errorf("%d of %d pages are bad: %q, want %q", record.PagesBad, record.PagesChecked, record.Degraded, want)
			}
			if !strings.Contains(result.Stderr, want[0]) {
				t.Errorf("standard error doesn't name the page: %s", result.Stderr)
			}
			for _, look := range [][]string{{"backup", "show", record.ID}, {"backup", "list"}} {
				if out := s.walship(t, look...).Stdout; !strings.Contains(out, "degraded") {
					t.Errorf("walship %s says nothing of the damage:\n%s", strings.Join(look, " "), out)
				}
			}
			s.walship(t, "backup", "push", "--no-verify-checksums")
			agree(t, s, want)
		})
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var one [1]byte
	if _, err := file.ReadAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 0x40
	if _, err := file.WriteAt(one[:], at); err != nil {
		t.Fatal(err)
	}
}

var badBlock = regexp.MustCompile(`checksum verification failed in file "[^"]*/((?:base|global)/[^"]*)", block ([0-9]+)`)

// agree has PostgreSQL's own program look for bad pages.
func agree(t *testing.T, s *site, want []string) {
	t.Helper()
	if !s.cluster.HasTool("pg_checksums") {
		return
	}
	s.cluster.Stop(t, pgtest.Fast)
	result := pgtest.Run(t, s.cluster.Tool(t.Context(), t, "pg_checksums", "--check", "-D", s.cluster.DataDir))
	var found []string
	for _, match := range badBlock.FindAllStringSubmatch(result.Stderr, -1) {
		fork := "main"
		if _, suffix, ok := strings.Cut(match[1], "_"); ok {
			fork = suffix
		}
		found = append(found, fmt.Sprintf("wrong page checksum: %s, %s fork, block %s", match[1], fork, match[2]))
	}
	slices.Sort(found)
	if !slices.Equal(found, want) {
		t.Errorf("pg_checksums finds %q, want %q\n%s", found, want, result.Stderr)
	}
}
