package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

const (
	// summaryWait is how long the server may take to summarize WAL without
	// finishing another file, once the backup has started.
	summaryWait  = 5 * time.Second
	summaryPause = 50 * time.Millisecond
)

// errNotSummarized: the server's summaries don't cover the WAL since the parent.
var errNotSummarized = errors.New("the server has no WAL summaries of all of it")

// readSummaries reads what has changed since the parent from the summaries that
// PostgreSQL 17 and later make with summarize_wal: no WAL has to be read.
func (r *run) readSummaries(ctx context.Context) (*wal.Changes, error) {
	if r.major < 17 {
		return nil, errNotSummarized
	}
	dir := filepath.Join(r.record.DataDirectory, pgdata.WALDir, "summaries")
	wanted := stretchesOf(r.history, r.base.parent.StartLSN, r.record.StartLSN)
	files, err := waitForSummaries(ctx, dir, wanted)
	if err != nil {
		return nil, err
	}
	changes := wal.NewChanges()
	for _, name := range files {
		file, err := os.Open(filepath.Join(dir, name.String()))
		if err != nil {
			return nil, err
		}
		err = changes.AddServerSummary(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return changes, nil
}

// waitForSummaries returns the summaries that cover the wanted stretches. The
// server ends one where the backup's redo begins, and needs a moment for it.
func waitForSummaries(ctx context.Context, dir string, wanted []wal.ServerSummary) ([]wal.ServerSummary, error) {
	known, progressed := -1, time.Now()
	for {
		there, err := listSummaries(dir)
		if err != nil {
			return nil, err
		}
		files, begun := covering(there, wanted)
		switch {
		case files != nil:
			return files, nil
		case !begun:
			return nil, errNotSummarized
		case len(there) != known:
			known, progressed = len(there), time.Now()
		case time.Since(progressed) > summaryWait:
			return nil, errNotSummarized
		}
		if err := sleep(ctx, summaryPause); err != nil {
			return nil, err
		}
	}
}

func listSummaries(dir string) ([]wal.ServerSummary, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []wal.ServerSummary
	for _, entry := range entries {
		if s, ok := wal.ParseServerSummary(entry.Name()); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b wal.ServerSummary) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.Start, b.Start))
	})
	return all, nil
}

// covering picks the summaries that touch the wanted stretches; nil if they
// leave something out. begun tells whether all is there but for the end.
func covering(there, wanted []wal.ServerSummary) (files []wal.ServerSummary, begun bool) {
	for i, w := range wanted {
		at := w.Start
		for _, s := range there {
			if s.Timeline == w.Timeline && s.End > w.Start && s.Start < w.End && s.Start <= at {
				files = append(files, s)
				at = max(at, s.End)
			}
		}
		if at < w.End {
			return nil, i == len(wanted)-1 && at > w.Start
		}
	}
	return files, true
}

// stretchesOf cuts the WAL from one LSN up to another by the timelines that own
// it.
func stretchesOf(h wal.History, from, to wal.LSN) []wal.ServerSummary {
	var all []wal.ServerSummary
	at := from
	for _, e := range h.Entries {
		if end := min(e.Switch, to); end > at {
			all = append(all, wal.ServerSummary{Timeline: e.Timeline, Start: at, End: end})
			at = end
		}
	}
	if at < to {
		all = append(all, wal.ServerSummary{Timeline: h.Timeline, Start: at, End: to})
	}
	return all
}
