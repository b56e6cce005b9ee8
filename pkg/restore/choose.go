package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// chooseBackup settles on the backup, which ends before an LSN, the timeline
// and the path between them.
func (p *Plan) chooseBackup(ctx context.Context, c Catalogue, r Request, before wal.LSN) error {
	pinned, err := parseTimeline(r.Timeline)
	if err != nil {
		return err
	}
	refs, err := c.Backups(ctx, p.SystemID)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	if len(refs) == 0 {
		return p.refuseCluster(ctx, c)
	}
	named := refs
	if r.Backup != "" {
		named = slices.DeleteFunc(slices.Clone(refs), func(ref repo.BackupRef) bool { return ref.ID != r.Backup })
		if len(named) == 0 {
			return refusef("the repository has no backup %s of cluster %d; it has %s", r.Backup, p.SystemID, idsOf(refs))
		}
	}
	p.Timeline, err = p.chooseTimeline(ctx, c, named, r.Timeline, pinned)
	if err != nil {
		return err
	}
	p.history, err = c.History(ctx, p.SystemID, p.Timeline)
	if errors.Is(err, storage.ErrNotExist) {
		return p.refuseTimeline(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	if p.target.Kind == TargetName {
		if err := p.findPoint(ctx, c, named); err != nil {
			return err
		}
	}
	p.onPath = slices.DeleteFunc(slices.Clone(refs), func(ref repo.BackupRef) bool {
		return offPath(p.history, ref.Timeline, ref.StartLSN, ref.StopLSN) != ""
	})
	named = slices.DeleteFunc(slices.Clone(named), func(ref repo.BackupRef) bool { return ref.StopLSN >= before })
	return p.newestBefore(ctx, c, named, r.Backup != "")
}

// newestBefore chooses, among the backups on the path, the one that ended
// last and provably before the target.
func (p *Plan) newestBefore(ctx context.Context, c Catalogue, refs []repo.BackupRef, named bool) error {
	refs = slices.Clone(refs)
	sort.SliceStable(refs, func(i, j int) bool { return refs[i].StopLSN > refs[j].StopLSN })
	late := 0
	if !named && p.target.Kind == TargetXID && len(p.onPath) > 0 {
		refs = slices.DeleteFunc(refs, func(ref repo.BackupRef) bool { return !slices.Contains(p.onPath, ref) })
		var err error
		if late, err = p.countLate(ctx, c, refs); err != nil {
			return err
		}
		if late > 0 {
			p.newer = &refs[late-1]
		}
	}
	var refusals []string
	for _, ref := range refs[late:] {
		why, err := p.take(ctx, c, ref, named)
		if err != nil || why == "" {
			return err
		}
		refusals = append(refusals, fmt.Sprintf("backup %s %s", ref.ID, why))
	}
	if late > 0 {
		why, err := p.take(ctx, c, refs[0], named)
		if err != nil {
			return err
		}
		refusals = append([]string{fmt.Sprintf("backup %s %s", refs[0].ID, why)}, refusals...)
		if late == len(refs) && late > 1 {
			if why, err = p.take(ctx, c, refs[late-1], named); err != nil {
				return err
			}
			refusals = append(refusals, fmt.Sprintf("backup %s %s", refs[late-1].ID, why))
		}
	}
	if len(refusals) == 0 {
		return refusef("no older backup leads to %s on timeline %d", p.target, p.Timeline)
	}
	nearest := ""
	if len(p.onPath) > 0 && (p.target.Kind == TargetTime || p.target.Kind == TargetLSN) {
		nearest = p.firstReachable(ctx, c, refs[len(refs)-1])
	}
	if named || len(refusals) == 1 {
		return refusef("no backup leads to %s on timeline %d: %s%s", p.target, p.Timeline, refusals[0], nearest)
	}
	// The refusals go from the newest to the oldest; the two ends say what
	// can be reached.
	return refusef("no backup leads to %s on timeline %d, of %d: the newest, %s; the oldest, %s%s",
		p.target, p.Timeline, len(refs), refusals[0], refusals[len(refusals)-1], nearest)
}

// take makes a backup the plan's, unless it says why it doesn't lead to the
// target.
func (p *Plan) take(ctx context.Context, c Catalogue, ref repo.BackupRef, named bool) (why string, err error) {
	if why := offPath(p.history, ref.Timeline, ref.StartLSN, ref.StopLSN); why != "" {
		return why, nil
	}
	if p.target.Kind == TargetTime && ref.Started().After(p.target.Time) {
		return fmt.Sprintf("was begun at %s, so it can be restored to times behind that", FormatTime(ref.Started())), nil
	}
	if why := p.endsTooLate(ref.StopLSN); why != "" {
		return why, nil // its key says so
	}
	b, err := c.Backup(ctx, ref)
	if err != nil && !named {
		return "", fmt.Errorf("plan restore: %w; --backup chooses another", err)
	}
	if err != nil {
		return "", fmt.Errorf("plan restore: %w", err)
	}
	if why := offPath(p.history, b.Timeline, b.Checkpoint, b.StopLSN); why != "" {
		return why, nil
	}
	if why := p.notBefore(b); why != "" {
		return why, nil
	}
	if p.chain, why, err = p.readChain(ctx, c, b); err != nil {
		return "", err
	}
	if why != "" {
		if !named {
			p.Warnings = append(p.Warnings, fmt.Sprintf("backup %s %s: an older one is used", ref.ID, why))
		}
		return why, nil
	}
	p.record = b
	p.Path = pathFrom(p.history, b.StartLSN)
	return "", nil
}

// countLate returns how many of the backups, the newest first, ended when the
// target transaction had ended. It bisects: ids grow, and so do the snapshots.
func (p *Plan) countLate(ctx context.Context, c Catalogue, refs []repo.BackupRef) (int, error) {
	var failure error
	late := sort.Search(len(refs), func(i int) bool {
		if failure != nil {
			return true
		}
		b, err := c.Backup(ctx, refs[i])
		if err != nil {
			failure = fmt.Errorf("plan restore: %w; --backup chooses another", err)
			return true
		}
		return endedBefore(b.StopSnapshot, p.target.XID) == ""
	})
	return late, failure
}

// offPath says why a backup isn't on the way to a timeline, or "". Both its
// checkpoint and its end have to be: a backup whose end lies behind a fork
// would never become consistent. The rule is PostgreSQL's own, in
// InitWalRecovery of src/backend/access/transam/xlogrecovery.c.
func offPath(h wal.History, timeline wal.TimelineID, checkpoint, stop wal.LSN) string {
	if h.TimelineAt(checkpoint) == timeline && h.TimelineAt(stop-1) == timeline {
		return ""
	}
	for _, s := range spans(h) {
		if s.timeline == timeline {
			return fmt.Sprintf("ended at %s on timeline %d, which the way to timeline %d leaves at %s", stop, timeline, h.Timeline, s.end)
		}
	}
	return fmt.Sprintf("is of timeline %d, which isn't on the way to timeline %d: choose its own with --timeline %d", timeline, h.Timeline, timeline)
}

// lastRecord is how many bytes the record can have that ends a backup
// (XLOG_BACKUP_END), with a page header in the middle.
const lastRecord = 80

// notBefore says why it isn't proved that a backup ended before the target,
// or "".
func (p *Plan) notBefore(b *repo.Backup) string {
	t := p.target
	switch t.Kind {
	case TargetTime:
		if b.StopTime.Before(t.Time) || b.StopTime.Equal(t.Time) && !t.Exclusive {
			return ""
		}
		return fmt.Sprintf("ended at %s, so it can be restored to times from then on", FormatTime(b.StopTime))
	case TargetXID:
		return endedBefore(b.StopSnapshot, t.XID)
	}
	return p.endsTooLate(b.StopLSN)
}

// endsTooLate says why a backup that ends at an LSN is too late for a target of
// which the LSN is known, or "".
func (p *Plan) endsTooLate(stop wal.LSN) string {
	t := p.target
	// A target in the backup's last record may be reached with it.
	if t.Kind == TargetLSN && stop > t.LSN+lastRecord {
		return fmt.Sprintf("ended at LSN %s, so it can be restored to LSNs from there on", stop)
	}
	if t.Kind == TargetName && p.point != 0 && stop > p.point {
		return fmt.Sprintf("ended at LSN %s, behind the last restore point of that name at %s", stop, p.point)
	}
	return ""
}

// endedBefore says why a snapshot, taken after a backup's end, doesn't prove
// that a transaction ended later than that, or "".
func endedBefore(snapshot string, xid uint64) string {
	fields := strings.Split(snapshot, ":")
	if len(fields) != 3 {
		return "has no snapshot of its end in its record, so it can't be told from which transactions on it can be restored"
	}
	xmax, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return "has a malformed snapshot of its end in its record"
	}
	if !precedes(xid, xmax) {
		return ""
	}
	for running := range strings.SplitSeq(fields[2], ",") {
		if id, err := strconv.ParseUint(running, 10, 64); err == nil && !precedes(xid, id) && !precedes(id, xid) {
			return ""
		}
	}
	return fmt.Sprintf("ended when that transaction had ended already; it can be restored to transactions from %d on", xmax)
}

// precedes compares transaction ids. An id of 32 bits has no epoch: as in
// PostgreSQL (TransactionIdPrecedes of src/backend/access/transam/transam.c),
// the shorter way around the circle counts.
func precedes(a, b uint64) bool {
	if a > 1<<32-1 && b > 1<<32-1 {
		return a < b
	}
	return int32(uint32(a)-uint32(b)) < 0
}

// chooseTimeline settles on a number. The latest one is found as PostgreSQL
// finds it (findNewestTimeLine of src/backend/access/transam/timeline.c): it
// counts up from a backup's timeline and stops at the first that has no
// history file.
func (p *Plan) chooseTimeline(ctx context.Context, c Catalogue, refs []repo.BackupRef, word string, pinned wal.TimelineID) (wal.TimelineID, error) {
	if pinned != 0 {
		return pinned, nil
	}
	if word == TimelineCurrent {
		// The backups are in the order in which they were taken.
		return refs[len(refs)-1].Timeline, nil
	}
	newest := wal.TimelineID(0)
	for _, ref := range refs {
		newest = max(newest, ref.Timeline)
	}
	timelines, err := c.Histories(ctx, p.SystemID)
	if err != nil {
		return 0, fmt.Errorf("plan restore: %w", err)
	}
	for slices.Contains(timelines, newest+1) {
		newest++
	}
	if n := len(timelines); n > 0 && timelines[n-1] > newest {
		p.Warnings = append(p.Warnings, fmt.Sprintf(
			"timeline %d has no history file in the repository but timeline %d has: as PostgreSQL does, the plan takes %d for the latest; choose another with --timeline",
			newest+1, timelines[n-1], newest))
	}
	return newest, nil
}

// refuseTimeline says which timelines can be followed instead of the plan's.
func (p *Plan) refuseTimeline(ctx context.Context, c Catalogue) error {
	known, err := c.Histories(ctx, p.SystemID)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	can := []string{"--timeline 1"}
	for _, timeline := range known[max(0, len(known)-10):] {
		if timeline != 1 {
			can = append(can, strconv.FormatUint(uint64(timeline), 10))
		}
	}
	return refusef("timeline %d has no history file in the repository: PostgreSQL can't follow it without; it can follow %s", p.Timeline, strings.Join(can, ", "))
}

// refuseCluster says that there is no backup of the cluster.
func (p *Plan) refuseCluster(ctx context.Context, c Catalogue) error {
	ids, err := c.Clusters(ctx)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	if !slices.Contains(ids, p.SystemID) && len(ids) > 0 {
		return refusef("the repository has nothing of cluster %d: it has %v", p.SystemID, ids)
	}
	return refusef("the repository has no backup of cluster %d: a restore needs one; walship backup push takes it", p.SystemID)
}

func idsOf(refs []repo.BackupRef) string {
	const most = 10
	ids := make([]string, 0, most+1)
	for i, ref := range slices.Backward(refs) {
		if len(ids) == most {
			ids = append(ids, fmt.Sprintf("and %d older ones", i+1))
			break
		}
		ids = append(ids, ref.ID)
	}
	return strings.Join(ids, ", ")
}
