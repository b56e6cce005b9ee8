// Package search finds out from archived WAL what happened when: which
// transactions ended in a span of time or WAL, which of them dropped or
// truncated tables, which restore points and checkpoints there are.
//
// It reads the summaries in the segments' headers first, or the roll-ups of
// them, and then downloads only segments that can matter, a few at a time. It
// says what WAL says and nothing beyond: where the name of a dropped table
// can't be told from the catalogue's own changes, it isn't told.
package search

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// Facts says what to look for.
type Facts uint8

// What can be looked for.
const (
	Transactions  Facts = iota + 1 // how they end
	Dropped                        // those that removed files of relations, or a database
	RestorePoints                  // named ones
	Checkpoints
)

// Query says what to look for, and where.
type Query struct {
	SystemID uint64
	History  wal.History // the path to follow
	Facts    Facts

	FromTime, ToTime time.Time // both inclusive; zero for no bound
	FromLSN, ToLSN   wal.LSN   // of a record's first byte, both inclusive; 0 for no bound
	XID              uint32    // 0 for any; a subtransaction's finds the transaction that it committed with
}

// timed tells whether the query is bounded in time.
func (q *Query) timed() bool { return !q.FromTime.IsZero() || !q.ToTime.IsZero() }

// holds tells whether a moment lies within the query's bounds.
func (q *Query) holds(at wal.Timestamp) bool { return q.intersects(at, at) }

// intersects tells whether a span of time does.
func (q *Query) intersects(least, most wal.Timestamp) bool {
	return (q.FromTime.IsZero() || most >= wal.TimestampOf(q.FromTime)) &&
		(q.ToTime.IsZero() || least <= wal.TimestampOf(q.ToTime))
}

// covers tells whether a position lies within the query's bounds.
func (q *Query) covers(lsn wal.LSN) bool {
	return lsn >= q.FromLSN && (q.ToLSN == 0 || lsn <= q.ToLSN)
}

// Options bound what a search costs.
type Options struct {
	Concurrency int // segments that are downloaded at once; 0 for DefaultConcurrency
	Log         *slog.Logger
}

// DefaultConcurrency is how many segments are downloaded at once. Of each, at
// most 16 MiB are held in memory.
const DefaultConcurrency = 4

// maxLookBack bounds how much WAL before a transaction is read for the names
// of what it dropped, in bytes.
const maxLookBack = 64 << 30

// Report says what a search cost, and what it could not see.
type Report struct {
	Segments   int      `json:"segments"`         // in the span, archived
	Headers    int      `json:"headers_read"`     // of segments, one by one
	Rollups    int      `json:"rollups_read"`     // in place of headers
	Written    int      `json:"rollups_written"`  // for the next search
	Matching   int      `json:"segments_matched"` // that the summaries didn't exclude
	Downloaded int      `json:"segments_downloaded"`
	Warnings   []string `json:"warnings"` // WAL that is missing or can't be read
}

// Path returns the history of a timeline of a cluster; 0 stands for the
// newest. As PostgreSQL does, it finds that by counting up to the first
// timeline without a history file, starting at the oldest that is archived.
func Path(ctx context.Context, r *repo.Repository, systemID uint64, timeline wal.TimelineID) (wal.History, error) {
	if timeline == 0 {
		var err error
		if timeline, err = newest(ctx, r, systemID); err != nil {
			return wal.History{}, err
		}
	}
	history, err := r.History(ctx, systemID, timeline)
	if errors.Is(err, storage.ErrNotExist) {
		return wal.History{}, fmt.Errorf("timeline %d has no history file in the repository: %w", timeline, archive.ErrAbsent)
	}
	return history, err
}

func newest(ctx context.Context, r *repo.Repository, systemID uint64) (wal.TimelineID, error) {
	newest := wal.TimelineID(0)
	for file, err := range r.ListWAL(ctx, systemID, wal.FileName{}) {
		if err != nil {
			return 0, err
		}
		newest = file.Name.Timeline
		break
	}
	if newest == 0 {
		return 0, fmt.Errorf("search WAL of cluster %d: there is none: %w", systemID, archive.ErrAbsent)
	}
	timelines, err := r.Histories(ctx, systemID)
	if err != nil {
		return 0, err
	}
	for _, timeline := range timelines {
		if timeline == newest+1 {
			newest = timeline
		}
	}
	return newest, nil
}

// Run looks for what the query asks and yields it in the order of WAL. An
// error of yield ends the search and is returned.
func Run(ctx context.Context, r *repo.Repository, q Query, o Options, yield func(Event) error) (*Report, error) {
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	s := &searcher{repository: r, query: q, options: o, yield: yield, report: &Report{Warnings: []string{}}}
	if err := s.run(ctx); err != nil {
		return s.report, fmt.Errorf("search WAL of cluster %d: %w", q.SystemID, err)
	}
	return s.report, nil
}

// searcher is one search under way.
type searcher struct {
	repository *repo.Repository
	query      Query
	options    Options
	yield      func(Event) error
	report     *Report

	segmentSize uint64
	archived    map[uint64]bool // by number, along the path
	plan        []planned
}

// planned is a segment that the summaries don't exclude.
type planned struct {
	number uint64
	whole  bool // its last record ends in it
}

func (s *searcher) run(ctx context.Context) error {
	numbers, err := s.list(ctx)
	if err != nil {
		return err
	}
	if err := s.narrow(ctx, numbers); err != nil {
		return err
	}
	s.report.Matching = len(s.plan)
	if s.query.Facts == Dropped {
		return s.findDropped(ctx)
	}
	return s.scan(ctx, func(record *wal.Record, contents *wal.Contents) error {
		event, found, err := s.event(record, contents)
		if err != nil || !found {
			return err
		}
		return s.yield(event)
	})
}

// scan reads the planned segments, and passes on each record that starts in
// one of them.
func (s *searcher) scan(ctx context.Context, each func(*wal.Record, *wal.Contents) error) error {
	numbers := make([]uint64, 0, len(s.plan))
	for _, p := range s.plan {
		numbers = append(numbers, p.number)
	}
	d := s.download(ctx, numbers)
	defer d.close()
	contents := new(wal.Contents)
	for start := 0; start < len(s.plan); {
		end := start + 1
		for end < len(s.plan) && s.plan[end].number == s.plan[end-1].number+1 {
			end++
		}
		run := run{first: s.plan[start].number, last: s.plan[end-1].number, whole: s.plan[end-1].whole}
		if err := s.read(d, run, nil, func(r *wal.Record) error { return each(r, contents) }); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// warn notes what the search could not see.
func (s *searcher) warn(format string, args ...any) {
	const most = 1000
	if len(s.report.Warnings) < most {
		s.report.Warnings = append(s.report.Warnings, fmt.Sprintf(format, args...))
	}
}

// name names a segment as the path archives it.
func (s *searcher) name(number uint64) wal.FileName {
	return wal.SegmentName(s.query.History.SegmentTimeline(number, s.segmentSize), number, s.segmentSize)
}
