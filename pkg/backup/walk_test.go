package backup

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestContent(t *testing.T) {
	s := newSite(t)
	outside := t.TempDir()
	writeTree(t, s.dir, map[string]string{
		// Unlogged: only the init fork. Temporary: nothing.
		"base/1/2000": "rows", "base/1/2000.1": "rows", "base/1/2000_fsm": "f", "base/1/2000_vm": "v", "base/1/2000_init": "",
		"base/1/INCREMENTAL.1259": "left there", "base/1/20001": "rows", "base/1/t3_3000": "temporary", "base/1/t3_3000_fsm": "temporary",
		"base/1/pg_internal.init": "cache", "base/pgsql_tmp/pgsql_tmp1.0": "sort", "base/1/pgsql_tmp2": "x",
		"postmaster.pid": "1", "postmaster.opts": "x", "backup_label": "old", "tablespace_map": "old", "backup_manifest": "old",
		"postgresql.auto.conf.tmp": "x", "pg_notify/0000": "n", "pg_subtrans/0000": "s", "pg_stat_tmp/x": "s", "pg_snapshots/x": "s",
		"pg_dynshmem/x": "s", "pg_serial/x": "s", "custom/with space \xff\n": "kept", "custom/empty/": "",
		"logs": "-> " + outside, "log/today": "-> monday", "conf.d/site.conf": "-> /etc/hostname", "pg_wal/000000010000000000000007": "wal", "pg_wal/archive_status/000000010000000000000007.done": "",
	})
	_, r := s.mustPush(t)
	want := []string{
		"PG_VERSION", "backup_label", "base/", "base/1/", "base/1/1259", "base/1/20001", "base/1/2000_init", "base/1/PG_VERSION",
		"conf.d/", "custom/", "custom/empty/", "custom/with space \xff\n", "global/", "global/1262", "global/pg_control", "global/pg_filenode.map", "log/",
		"pg_dynshmem/", "pg_hba.conf", "pg_ident.conf", "pg_notify/", "pg_replslot/", "pg_serial/", "pg_snapshots/", "pg_stat_tmp/",
		"pg_subtrans/", "pg_tblspc/", "pg_twophase/", "pg_wal/", "pg_wal/archive_status/", "pg_xact/", "pg_xact/0000",
		"postgresql.auto.conf", "postgresql.conf",
	}
	if got := slices.Sorted(maps.Keys(r.entries)); !slices.Equal(got, want) {
		t.Errorf("the backup has\n%q\nwant\n%q", got, want)
	}
}

// TestLeftOut: what is left out is said once, though the cluster is listed twice.
func TestLeftOut(t *testing.T) {
	s := newSite(t)
	s.archiveWAL(t, 6, 7)
	writeTree(t, s.dir, map[string]string{"log/today": "-> monday"})
	var log bytes.Buffer
	deps := Deps{Repository: s.repository, Server: s.server, Log: slog.New(slog.NewTextHandler(&log, nil)), Version: "test", Host: "db1"}
	if _, err := Push(t.Context(), deps, s.options); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), `"left out of the backup: a symbolic link" path=log/today`); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, log.String())
	}
}

// TestLongPath: a path that a manifest can't have is named before anything is copied.
func TestLongPath(t *testing.T) {
	s := newSite(t)
	long := strings.Repeat("custom/"+strings.Repeat("d", 200)+"/", 5) + "file"
	writeTree(t, s.dir, map[string]string{long: "x"})
	progressed := false
	s.options.Progress = func(p Progress) { progressed = progressed || p.Bytes > 0 }
	if _, err := s.push(t.Context()); err == nil || !strings.Contains(err.Error(), `"custom/ddd`) || progressed {
		t.Errorf("the error is %v; files were copied: %v", err, progressed)
	}
}

func TestLinkedWAL(t *testing.T) { // rule 7
	s := newSite(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	writeTree(t, s.dir, map[string]string{"pg_wal": "-> " + t.TempDir()})
	_, r := s.mustPush(t)
	for _, name := range []string{"pg_wal/", "pg_wal/archive_status/"} {
		if _, ok := r.entries[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestLinksRefused(t *testing.T) {
	for _, name := range []string{"base/5", "base/1/777", "global/777", "pg_multixact"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.archiveWAL(t, 6, 7)
			writeTree(t, s.dir, map[string]string{name: "-> " + t.TempDir()})
			if _, err := s.push(t.Context()); err == nil || !strings.Contains(err.Error(), name+" in the data directory is a symbolic link") {
				t.Errorf("got %v, want the link to be refused", err)
			}
			s.noBackup(t)
		})
	}
}

// What vanishes between being listed and being looked up is left out.
func TestWalkVanishing(t *testing.T) { // fault 33
	dir := t.TempDir()
	files := map[string]string{"base/2/12": ""}
	const first, more = 10_000, 100
	for n := range atOnce + more { // those behind the first so many are looked up later
		files[fmt.Sprintf("base/1/%d", first+n)] = ""
	}
	writeTree(t, dir, files)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var seen []string
	w := walker{major: 15, workers: 2, log: slog.New(slog.DiscardHandler), emit: func(e entry) error {
		seen = append(seen, e.name)
		switch e.name {
		case "base/1": // its parent has been looked up: base/2 follows, and what it has is gone
			return os.RemoveAll(filepath.Join(dir, "base/2"))
		case fmt.Sprintf("base/1/%d", first):
			for n := range more {
				if err := os.Remove(filepath.Join(dir, fmt.Sprintf("base/1/%d", first+atOnce+n))); err != nil {
					return err
				}
			}
		}
		return nil
	}}
	if err := w.data(context.Background(), &tree{root: root}); err != nil {
		t.Fatal(err)
	}
	want := []string{"base", "base/1"}
	for n := range atOnce {
		want = append(want, fmt.Sprintf("base/1/%d", first+n))
	}
	if want = append(want, "base/2"); !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}
