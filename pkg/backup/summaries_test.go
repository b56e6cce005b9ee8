package backup

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// TestCovering: a stretch of WAL without a summary is noticed, wherever it is.
func TestCovering(t *testing.T) {
	sum := func(timeline wal.TimelineID, start, end wal.LSN) wal.ServerSummary {
		return wal.ServerSummary{Timeline: timeline, Start: start, End: end}
	}
	history := wal.History{Timeline: 3, Entries: []wal.HistoryEntry{{Timeline: 1, Switch: 100}, {Timeline: 2, Switch: 50}}}
	for _, test := range []struct {
		name     string
		history  wal.History
		from, to wal.LSN
		there    []wal.ServerSummary
		files    int // -1: not covered
		begun    bool
	}{
		{"all", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(1, 0, 10), sum(1, 10, 20), sum(1, 20, 30), sum(1, 30, 40)}, 2, true},
		{"larger ones", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(1, 0, 25), sum(1, 15, 50)}, 2, true},
		{"none", wal.History{Timeline: 1}, 10, 30, nil, -1, false},
		{"the beginning is missing", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(1, 20, 30)}, -1, false},
		{"the middle is missing", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(1, 10, 15), sum(1, 20, 30)}, -1, true},
		{"the end is missing", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(1, 10, 29)}, -1, true},
		{"another timeline's", wal.History{Timeline: 1}, 10, 30, []wal.ServerSummary{sum(2, 10, 30)}, -1, false},
		{"two timelines", history, 10, 130, []wal.ServerSummary{sum(1, 10, 100), sum(3, 100, 130)}, 2, true},
		{"the older timeline is missing", history, 10, 130, []wal.ServerSummary{sum(3, 10, 130)}, -1, false},
		{"the newer timeline is missing", history, 10, 130, []wal.ServerSummary{sum(1, 10, 130)}, -1, false},
	} {
		files, begun := covering(test.there, stretchesOf(test.history, test.from, test.to))
		if (files == nil) != (test.files < 0) || files != nil && len(files) != test.files || begun != test.begun {
			t.Errorf("%s: %v, begun %v", test.name, files, begun)
		}
	}
	if got := stretchesOf(history, 110, 130); len(got) != 1 || got[0] != sum(3, 110, 130) {
		t.Errorf("behind the fork: %v", got)
	}
}

// TestRemember: what is recalled is what was noted, of that backup and whole.
func TestRemember(t *testing.T) {
	dir := t.TempDir()
	state, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	var backups []*repo.Backup
	for n := range rememberedBackups + 2 {
		b := &repo.Backup{ID: fmt.Sprintf("20261120T14250%dZ", n), Manifest: repo.Object{PlainDigest: fmt.Sprintf("blake3:%d", n)}}
		m, err := newRemember(state, b.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"base/5/16384", "base/5/INCREMENTAL.16385.1", "base/5/16384_vm", "base/5/16384_init", "PG_VERSION", fmt.Sprintf("base/5/%d", 20000+n)} {
			m.add(name)
		}
		if err := m.save(b); err != nil {
			t.Fatal(err)
		}
		backups = append(backups, b)
	}
	for n, b := range backups {
		files := make(map[relationFile]struct{})
		err := recall(state, b, func(_ string, f relationFile) { files[f] = struct{}{} })
		if n < 2 {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an old backup is still remembered: %v", err)
			}
			continue
		}
		var names []string
		for file := range maps.Keys(files) {
			names = append(names, fmt.Sprintf("%s %d.%d", file.RelFile, file.fork, file.segment))
		}
		slices.Sort(names)
		if want := fmt.Sprintf("[1663/5/16384 0.0 1663/5/16384 2.0 1663/5/16385 0.1 1663/5/%d 0.0]", 20000+n); err != nil || fmt.Sprint(names) != want {
			t.Errorf("recalled %v (%v), want %s", names, err, want)
		}
	}
	b := backups[len(backups)-1]
	name := filepath.Join(dir, rememberedName(b.ID))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	ignore := func(string, relationFile) {}
	for _, n := range []int{0, 5, len(data) / 2, len(data) - 1} {
		if err := os.WriteFile(name, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := recall(state, b, ignore); err == nil {
			t.Errorf("cut at %d of %d it is taken for whole", n, len(data))
		}
	}
	for text, says := range map[string]string{
		"base/5/1\n":                            "another backup",
		"base/5/1\nmanifest blake3:0\n":         "another backup",
		"passwd\nmanifest blake3:5\n":           "it lists",
		"manifest blake3:5\nbase/5/1\n":         "behind its end",
		"base/5/1\nbase/5/1_init\nmanifest b\n": "it lists",
	} {
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w := gzip.NewWriter(file)
		_, err = io.WriteString(w, text)
		if err := errors.Join(err, w.Close(), file.Close()); err != nil {
			t.Fatal(err)
		}
		if err := recall(state, b, ignore); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want an error that says %q", text, err, says)
		}
	}
	var none *remember
	none.add(pgdata.VersionFileName)
	none.discard()
}
