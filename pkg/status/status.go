// Package status says what a repository has of a cluster: its timelines and
// where they forked, the archived WAL with its gaps, the backups, and which
// moments can be reached from them. It draws that, too, as text and as SVG.
//
// Nothing here needs an identity: what it knows comes from listings, from the
// backups' records, and from context headers that nobody has verified.
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// Cluster is what the repository has of one cluster. Its JSON form is stable.
type Cluster struct {
	SystemID    uint64     `json:"system_identifier,string"`
	SegmentSize uint64     `json:"wal_segment_size"` // bytes; 0 if no WAL is archived
	Timelines   []Timeline `json:"timelines"`        // a parent before its children
}

// Timeline is one timeline of a cluster: what follows its fork.
type Timeline struct {
	Timeline wal.TimelineID `json:"timeline"`
	Parent   wal.TimelineID `json:"parent,omitempty"` // 0: none, or not known
	Begin    wal.LSN        `json:"begin_lsn"`        // where it left its parent
	Reason   string         `json:"reason,omitempty"` // of that, as its history file says
	// HistoryMissing: it isn't known where the timeline comes from, and no
	// recovery can follow it.
	HistoryMissing bool `json:"history_missing"`

	Archived []Run `json:"archived"`
	Gaps     []Run `json:"gaps"` // between those, and before the first if the timeline has a parent
	// End is where the archived WAL of the timeline ends, LastTime the latest
	// end of a transaction in its last segments, as far as they aren't idle
	// for long: both as those segments' context headers say, not verified.
	// Unreadable is one of them whose header is corrupt.
	End        wal.LSN   `json:"end_lsn"`
	LastTime   time.Time `json:"last_time,omitzero"`
	Unreadable string    `json:"unreadable_segment,omitempty"`

	Backups   []Backup  `json:"backups"`   // taken on this timeline, the oldest first
	Reachable []Stretch `json:"reachable"` // what can be restored
}

// Run is a run of segments.
type Run struct {
	Start    wal.LSN `json:"start_lsn"` // of its first byte
	End      wal.LSN `json:"end_lsn"`   // behind its last byte
	Segments uint64  `json:"segments"`
}

// Stretch is a stretch of WAL in which every moment can be reached.
type Stretch struct {
	From   wal.LSN `json:"from_lsn"`
	To     wal.LSN `json:"to_lsn"`
	Backup string  `json:"backup"` // the first that leads there
}

// Backup is a base backup.
type Backup struct {
	ID        string    `json:"id"`
	Start     wal.LSN   `json:"start_lsn"`
	Stop      wal.LSN   `json:"stop_lsn"`
	StartTime time.Time `json:"start_time"`
	StopTime  time.Time `json:"stop_time"`
	// Parent is the id of the backup that an incremental one is based on; it
	// leads nowhere without that.
	Parent   string `json:"parent,omitempty"`
	Degraded bool   `json:"degraded"`
	// Unreadable says why the backup's record can't be read; such a backup
	// leads nowhere.
	Unreadable string `json:"unreadable,omitempty"`
	// Unusable says why it can't be restored although its record can be read:
	// an object of it, or what it is based on, is gone. It leads nowhere either.
	Unusable string `json:"unusable,omitempty"`
}

// leads tells whether the backup itself doesn't keep a restore from it.
func (b Backup) leads() bool { return b.Unreadable == "" && b.Unusable == "" }

// readOnce is how many objects are read at a time.
const readOnce = 16

// Of collects what a repository has of a cluster. It lists all of the
// cluster's WAL and, one by one, the folder of each backup, a request for each
// 1,000 objects in it; and reads the records of its backups, the history files, and
// the context headers of one segment of each run and of up to 16 at each timeline's end.
func Of(ctx context.Context, r *repo.Repository, systemID uint64) (*Cluster, error) {
	ranges, err := archive.Ranges(ctx, r, systemID, wal.FileName{})
	if err != nil {
		return nil, err
	}
	histories, err := readHistories(ctx, r, systemID)
	if err != nil {
		return nil, err
	}
	backups, err := readBackups(ctx, r, systemID)
	if err != nil {
		return nil, err
	}
	c := &Cluster{SystemID: systemID, Timelines: []Timeline{}}
	if len(ranges) > 0 {
		// After a change of the size, recovery starts with the later one.
		c.SegmentSize = ranges[len(ranges)-1].SegmentSize
		ranges = slices.DeleteFunc(ranges, func(r archive.Range) bool { return r.SegmentSize != c.SegmentSize })
	}
	for _, id := range timelinesOf(ranges, histories, backups) {
		c.Timelines = append(c.Timelines, c.timeline(id, ranges, histories, backups))
	}
	for i := range c.Timelines {
		if err := c.Timelines[i].readEnd(ctx, r, systemID, c.SegmentSize); err != nil {
			return nil, err
		}
	}
	c.arrange()
	return c, nil
}

// placed is a backup and the timeline that it was taken on.
type placed struct {
	Backup
	timeline wal.TimelineID
}

func readBackups(ctx context.Context, r *repo.Repository, systemID uint64) ([]placed, error) {
	refs, err := r.Backups(ctx, systemID)
	if err != nil {
		return nil, err
	}
	backups := make([]placed, len(refs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readOnce)
	for i, ref := range refs {
		group.Go(func() error {
			b := Backup{ID: ref.ID, Start: ref.StartLSN, Stop: ref.StopLSN}
			record, err := r.Backup(ctx, ref)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				b.Unreadable = err.Error()
			default:
				if record.Parent != nil {
					b.Parent = record.Parent.ID
				}
				b.StartTime, b.StopTime, b.Degraded = record.StartTime.UTC(), record.StopTime.UTC(), len(record.Degraded) > 0
				if b.Unusable, err = r.Lost(ctx, record); err != nil {
					return err
				}
			}
			backups[i] = placed{b, ref.Timeline}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	markOrphans(backups)
	return backups, nil
}

// markOrphans marks the backups that are based on what can't be restored. A
// parent ended before what is based on it began; by the ids, which follow the
// server's clock, it may stand behind that.
func markOrphans(backups []placed) {
	inOrder := make([]*Backup, len(backups))
	for i := range backups {
		inOrder[i] = &backups[i].Backup
	}
	slices.SortStableFunc(inOrder, func(a, b *Backup) int { return cmp.Compare(a.Stop, b.Stop) })
	lead := map[string]bool{}
	for _, b := range inOrder {
		if b.leads() && b.Parent != "" && !lead[b.Parent] {
			b.Unusable = fmt.Sprintf("backup %s, which it is based on, is gone or can't be restored", b.Parent)
		}
		lead[b.ID] = b.leads()
	}
}

func readHistories(ctx context.Context, r *repo.Repository, systemID uint64) (map[wal.TimelineID]wal.History, error) {
	ids, err := r.Histories(ctx, systemID)
	if err != nil {
		return nil, err
	}
	histories := map[wal.TimelineID]wal.History{1: {Timeline: 1}}
	for _, id := range ids {
		if histories[id], err = r.History(ctx, systemID, id); err != nil {
			return nil, err
		}
	}
	return histories, nil
}

// timelinesOf lists every timeline that there is anything of, ascending.
func timelinesOf(ranges []archive.Range, histories map[wal.TimelineID]wal.History, backups []placed) []wal.TimelineID {
	var ids []wal.TimelineID
	for _, r := range ranges {
		ids = append(ids, r.First.Timeline)
	}
	for _, b := range backups {
		ids = append(ids, b.timeline)
	}
	for id, history := range histories {
		if id > 1 {
			ids = append(ids, id)
		}
		for _, entry := range history.Entries {
			ids = append(ids, entry.Timeline)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// timeline puts together what is known of one.
func (c *Cluster) timeline(id wal.TimelineID, ranges []archive.Range, histories map[wal.TimelineID]wal.History, backups []placed) Timeline {
	t := Timeline{Timeline: id, Archived: []Run{}, Gaps: []Run{}, Backups: []Backup{}, Reachable: []Stretch{}}
	history, known := histories[id]
	t.HistoryMissing = !known
	if entry, forked := history.Parent(); forked {
		// An ancestor may have been left before it began: then it isn't one.
		t.Begin, t.Reason = entry.Switch, entry.Reason
		if entry.Switch > 0 {
			t.Parent = history.TimelineAt(entry.Switch - 1)
		}
	}
	for _, r := range ranges {
		if r.First.Timeline == id {
			t.Archived = append(t.Archived, Run{r.Start(), r.End(), r.Segments})
			t.End = r.End()
		}
	}
	t.Gaps = append(t.Gaps, c.gaps(&t)...)
	for _, b := range backups {
		if b.timeline == id {
			t.Backups = append(t.Backups, b.Backup)
		}
	}
	if known && c.SegmentSize != 0 {
		t.Reachable = append(t.Reachable, c.reachable(history, ranges, backups)...)
	}
	return t
}

// gaps lists what is missing of a timeline before its last segment.
func (c *Cluster) gaps(t *Timeline) []Run {
	var gaps []Run
	for i, run := range t.Archived {
		from := run.Start
		switch {
		case i > 0:
			from = t.Archived[i-1].End
		case t.Parent != 0:
			from = t.Begin - t.Begin%wal.LSN(c.SegmentSize)
		}
		if from < run.Start {
			gaps = append(gaps, Run{from, run.Start, uint64(run.Start-from) / c.SegmentSize})
		}
	}
	return gaps
}

// idleSegments is how many segments at a timeline's end are looked into for a
// transaction: a quiet server that has archive_timeout set archives idle ones.
const idleSegments = 16

// readEnd reads the context headers of a timeline's last segments.
func (t *Timeline) readEnd(ctx context.Context, r *repo.Repository, systemID, size uint64) error {
	if len(t.Archived) == 0 {
		return nil
	}
	last := wal.SegmentNumber(t.End-1, size)
	for n := last; n+idleSegments > last && wal.LSN(n*size) >= t.Archived[len(t.Archived)-1].Start && t.LastTime.IsZero(); n-- {
		name := wal.SegmentName(t.Timeline, n, size)
		header, err := archive.ReadHeader(ctx, r, r.FileKey(systemID, name))
		switch {
		case errors.Is(err, storage.ErrNotExist):
			return nil // it was removed since it was listed
		case errors.Is(err, object.ErrCorrupt):
			t.Unreadable = name.String()
			return nil
		case err != nil:
			return err
		}
		summary, err := wal.ParseSummary(header.Fields)
		if err != nil || summary.Ending == 0 {
			return nil //nolint:nilerr // an older writer's segment has none
		}
		if n == last {
			t.End = min(t.End, summary.End)
		}
		if summary.Stops > 0 {
			t.LastTime = summary.MaxTime.Time()
		}
		if n == 0 {
			break
		}
	}
	return nil
}

// arrange orders the timelines as a tree: each before its children, and of
// those the one first that left last. So no line from a timeline down to a
// child crosses another.
func (c *Cluster) arrange() {
	all := c.Timelines
	ordered := make([]Timeline, 0, len(all))
	var add func(parent wal.TimelineID)
	add = func(parent wal.TimelineID) {
		var children []Timeline
		for _, t := range all {
			if t.Parent == parent {
				children = append(children, t)
			}
		}
		slices.SortStableFunc(children, func(a, b Timeline) int {
			if a.Begin != b.Begin {
				return -compareLSN(a.Begin, b.Begin)
			}
			return int(a.Timeline) - int(b.Timeline)
		})
		for _, t := range children {
			ordered = append(ordered, t)
			add(t.Timeline)
		}
	}
	add(0)
	c.Timelines = ordered
}

func compareLSN(a, b wal.LSN) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Name is how the texts name a timeline.
func (t *Timeline) name() string { return fmt.Sprintf("timeline %d", uint32(t.Timeline)) }
