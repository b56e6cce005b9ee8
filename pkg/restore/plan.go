// Package restore plans and runs the restore of a cluster from a base backup
// and archived WAL.
//
// Plan only reads: it chooses the backup, follows the timelines, and says
// which WAL the target needs, which of it is missing, and which settings
// would be written. Run executes exactly that plan: it verifies every object
// against the backup's record and every file against the manifest, and puts
// pg_control in place last, so that an interrupted restore can't be started
// as a database.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Catalogue is what the planner reads of a repository: see Of. Where it isn't
// said, none of it needs an identity.
type Catalogue interface {
	Clusters(ctx context.Context) ([]uint64, error)
	Backups(ctx context.Context, systemID uint64) ([]repo.BackupRef, error)
	Backup(ctx context.Context, ref repo.BackupRef) (*repo.Backup, error)
	// Lost says which object of a backup isn't there as its record says, or "".
	Lost(ctx context.Context, b *repo.Backup) (string, error)
	Histories(ctx context.Context, systemID uint64) ([]wal.TimelineID, error)
	History(ctx context.Context, systemID uint64, timeline wal.TimelineID) (wal.History, error)
	ListWAL(ctx context.Context, systemID uint64, from wal.FileName) iter.Seq2[repo.WALFile, error]
	// Summary is what a segment's context header says of its records. The
	// zero Summary is one that isn't known.
	Summary(ctx context.Context, systemID uint64, name wal.FileName) (wal.Summary, error)
	// ReadRollup reads the summaries of a roll-up, of which the rest is given.
	ReadRollup(ctx context.Context, x *repo.Rollup) error
	// Segment opens a segment of a size in bytes. Only what was read to its
	// end, without an error, is genuine. The error wraps crypto.ErrNoIdentity
	// if there is no identity that opens it.
	Segment(ctx context.Context, systemID uint64, name wal.FileName, size uint64) (io.ReadCloser, error)
	// Prepared lists the transactions that were prepared before a backup
	// began, and that it has. It needs an identity as Segment does.
	Prepared(ctx context.Context, b *repo.Backup) ([]uint32, error)
	Now(ctx context.Context) (time.Time, error)
}

// Action is what PostgreSQL does when it has reached the target.
type Action string

// The values of recovery_target_action.
const (
	ActionPause    Action = "pause"
	ActionPromote  Action = "promote"
	ActionShutdown Action = "shutdown"
)

// Timelines that a request may name instead of a number. The plan always
// settles on a number, so that what is restored doesn't depend on when the
// server starts.
const (
	TimelineLatest  = "latest"
	TimelineCurrent = "current"
)

// Request says what to restore, and how the restored cluster is to be set up.
type Request struct {
	SystemID uint64 // 0: the only cluster of the repository
	Backup   string // a backup's id; "": the newest one that lies before the target
	Target   Target
	// AcceptGap lets a restore to the latest end before a gap in the WAL, though
	// later WAL is archived. A standby, which streams, always may.
	AcceptGap bool
	// Timeline is TimelineLatest, TimelineCurrent (the backup's), or a number;
	// "" is the latest, unless the target lies on several, or on another only.
	Timeline string
	Action   Action // "": pause
	// Replace keeps the archiving settings of the backup, for a cluster that
	// takes the place of the original. Without it the restored cluster is a
	// clone: it doesn't archive, and its subscriptions get nothing.
	Replace bool
	// Standby makes a standby of the original: it follows the newest timeline,
	// from the archive and from the primary that the backup's settings name. It
	// has no target but the latest.
	Standby bool
	// Directory is the data directory to be made, WALDirectory where its
	// pg_wal is to lie instead of in it; both absolute. Tablespaces maps
	// where tablespaces lay (or their OIDs) to where they are restored.
	Directory    string
	WALDirectory string
	Tablespaces  map[string]string
	// Export tells that the plan is for Export: the server replays the WAL of
	// the backup and no more, and has no target.
	Export bool
	// Deep reads all WAL that the restore needs, and verifies it, which takes
	// an identity.
	Deep bool
	// RestoreCommand is the restored cluster's restore_command.
	RestoreCommand string
	// OwnSettings tells that the restored cluster gets a settings file of
	// walship's own: see Options.Settings.
	OwnSettings bool
}

// Plan is what a restore does, in full. Its JSON form is stable.
type Plan struct {
	SystemID uint64         `json:"system_identifier,string"`
	Target   PlannedTarget  `json:"target"`
	Backup   PlannedBackup  `json:"backup"`
	Timeline wal.TimelineID `json:"timeline"`
	Path     []Step         `json:"path"` // from the backup's timeline to Timeline
	WAL      PlannedWAL     `json:"wal"`
	Promise

	Directory    string       `json:"directory,omitempty"`
	WALDirectory string       `json:"wal_directory,omitempty"`
	Tablespaces  []Tablespace `json:"tablespaces"`
	Files        int64        `json:"files"`         // regular files
	DataSize     int64        `json:"data_size"`     // bytes of those, without those of tablespaces
	DownloadSize int64        `json:"download_size"` // bytes of the backup's objects and of the WAL needed, as stored

	Settings   []Setting `json:"settings"` // what is written to postgresql.auto.conf, in order
	SignalFile string    `json:"signal_file"`
	Writes     []Written `json:"writes"` // besides the backup's own files, in order
	Estimate   *Estimate `json:"estimate"`
	Clone      bool      `json:"clone"` // it doesn't archive, and its subscriptions get nothing

	// Problems are why the target can't be reached; Run refuses a plan that
	// has any. Warnings want a decision, Notes are good to know.
	Problems []string `json:"problems"`
	Warnings []string `json:"warnings"`
	Notes    []string `json:"notes"`

	target  Target
	record  *repo.Backup
	chain   []*repo.Backup // what record is put together from, itself last
	history wal.History
	onPath  []repo.BackupRef // all backups on the path
	newer   *repo.BackupRef  // the oldest backup on it that is too late for the target
	export  bool             // no target is set for the server
	// acceptGap: the end of the WAL may be before a gap.
	acceptGap bool
	deep      bool // the WAL is to be read whole
	// noHotStandby: the way can't be replayed with hot_standby on.
	noHotStandby bool

	guessed uint64  // the segment where recovery seems to stop; 0: not known
	broken  bool    // a segment of the way doesn't continue the one before it
	early   bool    // recovery would stop before the backup is consistent
	point   wal.LSN // of the target's restore point; 0: not known
	// What the headers say of that point, for a plan that isn't certified.
	pointNote, pointWarning string

	demands wal.Demands

	created         []string // directories of tablespaces that the recovery makes
	createdUnlisted bool     // there are more, whose directories aren't known
}

// PlannedTarget is the target as it is written to the settings.
type PlannedTarget struct {
	Kind      TargetKind `json:"kind"`
	Value     string     `json:"value"`
	Inclusive bool       `json:"inclusive"`
	Action    Action     `json:"action"`
}

// PlannedBackup is the backup that the restore starts from.
type PlannedBackup struct {
	ID            string         `json:"id"`
	Label         string         `json:"label"`
	Host          string         `json:"host"`
	ServerVersion int            `json:"server_version"`
	Timeline      wal.TimelineID `json:"timeline"`
	StartLSN      string         `json:"start_lsn"`
	StopLSN       string         `json:"stop_lsn"`
	StartTime     time.Time      `json:"start_time"`
	StopTime      time.Time      `json:"stop_time"`
	Objects       int            `json:"objects"`
	StoredSize    int64          `json:"stored_size"` // bytes
	// BasedOn are the backups that an incremental one is put together with, the
	// full one first. Their objects come in addition.
	BasedOn []Link `json:"based_on"`
}

// Step is one timeline of the path. The way goes over to the next one at End,
// which is empty for the last.
type Step struct {
	Timeline wal.TimelineID `json:"timeline"`
	Start    string         `json:"start_lsn"`
	End      string         `json:"end_lsn,omitempty"`
	Reason   string         `json:"reason,omitempty"` // of the switch, as the history file says
}

// PlannedWAL is the archived WAL that the restore reads.
type PlannedWAL struct {
	SegmentSize uint64 `json:"segment_size"` // bytes
	First       string `json:"first"`
	Last        string `json:"last"`   // the last one that is needed, or that can be used
	Needed      int    `json:"needed"` // segments from First to Last
	// Missing are needed but not in the repository; Partial are the partial
	// segments there that could stand in for one, which is never done unasked.
	Missing    []string `json:"missing"`
	Partial    []string `json:"partial"`
	StoredSize int64    `json:"stored_size"` // bytes of those present, as stored
	Verified   int      `json:"verified"`    // segments that were read whole, all of those needed; 0 unless that was asked for
	ReplaySize int64    `json:"replay_size"` // bytes of WAL from the backup's redo point on that are replayed, at most
	// Until is where the usable WAL ends: recovery replays no record behind it.
	Until string `json:"until_lsn"`
}

// Tablespace says where a tablespace is restored.
type Tablespace struct {
	OID       uint32 `json:"oid"`
	Location  string `json:"location"`   // where it lay
	RestoreTo string `json:"restore_to"` // where it is going to lie
	InPlace   bool   `json:"in_place"`   // a directory in the data directory
	Size      int64  `json:"size"`       // bytes of its files
}

// Setting is one line of postgresql.auto.conf.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// RefusedError is returned when what was asked for can't be done, or not
// without harm. Nothing was touched.
type RefusedError struct{ why string }

func (e *RefusedError) Error() string { return e.why }

func refusef(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// Err returns a RefusedError that names the plan's problems, or nil.
func (p *Plan) Err() error {
	switch len(p.Problems) {
	case 0:
		return nil
	case 1:
		return refusef("the target can't be reached: %s", p.Problems[0])
	}
	return refusef("the target can't be reached: %s (and %d more: see walship restore plan)", p.Problems[0], len(p.Problems)-1)
}

// MakePlan plans a restore. It returns a UsageError for a request that makes
// no sense and a RefusedError when no backup fits; a plan that it returns may
// still have Problems.
func MakePlan(ctx context.Context, c Catalogue, r Request) (*Plan, error) {
	if r.Action == "" {
		r.Action = ActionPause
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	systemID, err := chooseCluster(ctx, c, r.SystemID)
	if err != nil {
		return nil, err
	}
	p, err := planFrom(ctx, c, r, systemID)
	if err == nil {
		err = p.settleBranch(ctx, c, r)
	}
	if err == nil {
		err = p.judgeClock(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	if err := p.mapTablespaces(r.Tablespaces); err != nil {
		return nil, err
	}
	if r.Standby {
		p.SignalFile, p.Clone = pgdata.StandbySignalFileName, false
	}
	p.describe()
	p.Reachable = len(p.Problems) == 0
	p.Settings = recoverySettings(p, r)
	p.expect(r.OwnSettings)
	return p, nil
}

// planFrom chooses the backup, and finds out what a restore of it ends with.
// Where a backup turns out to be too late for the target, and wasn't asked for,
// an older one is tried.
func planFrom(ctx context.Context, c Catalogue, r Request, systemID uint64) (*Plan, error) {
	var late *Plan // of the newest backup, if that is too late
	before := ^wal.LSN(0)
	for {
		p := &Plan{
			SystemID: systemID, target: r.Target, Directory: r.Directory, WALDirectory: r.WALDirectory,
			Target:     PlannedTarget{r.Target.Kind, r.Target.Value(), !r.Target.Exclusive, r.Action},
			SignalFile: pgdata.RecoverySignalFileName, Clone: !r.Replace,
			Problems: []string{}, Warnings: []string{}, Notes: []string{},
			Promise: Promise{PendingPrepared: []Prepared{}}, export: r.Export, deep: r.Deep,
			acceptGap: r.AcceptGap || r.Standby,
		}
		err := p.chooseBackup(ctx, c, r, before)
		if _, refused := errors.AsType[*RefusedError](err); refused && late != nil {
			return late, nil
		}
		if err == nil {
			err = p.findWAL(ctx, c)
		}
		if err != nil || !p.early || r.Backup != "" {
			return p, err
		}
		if late == nil {
			late = p
		}
		before = p.record.StopLSN
	}
}

func (r Request) validate() error {
	if r.Standby && r.Target.Kind != TargetLatest {
		return usagef("a standby has no target: it follows its primary")
	}
	if err := r.Target.Validate(); err != nil {
		return err
	}
	if !slices.Contains([]Action{ActionPause, ActionPromote, ActionShutdown}, r.Action) {
		return usagef("the target action %q is not one of pause, promote and shutdown", r.Action)
	}
	return nil
}

// clockSlack is how far the clocks of the server and of the storage, which
// tells the time in whole seconds, may be apart.
const clockSlack = time.Minute

// judgeClock says of a target time that the storage's clock hasn't reached it. It
// is the servers' clock that counts.
func (p *Plan) judgeClock(ctx context.Context, c Catalogue) error {
	if p.target.Kind != TargetTime {
		return nil
	}
	now, err := c.Now(ctx)
	if err != nil {
		return fmt.Errorf("plan restore: %w", err)
	}
	if !p.target.Time.After(now.Add(clockSlack)) {
		return nil
	}
	text := fmt.Sprintf("the target time is in the future: by the clock of the storage it is %s", FormatTime(now))
	switch {
	case len(p.Problems) > 0:
		p.Problems[0] = text + "; " + p.Problems[0]
	case p.Certified: // a transaction was seen that ended behind it
		p.Warnings = append(p.Warnings, text+", and the server's is ahead of it")
	default:
		p.Problems = append(p.Problems, text)
	}
	return nil
}

// parseTimeline returns the number in a request's timeline; 0 for the words.
func parseTimeline(s string) (wal.TimelineID, error) {
	if s == "" || s == TimelineLatest || s == TimelineCurrent {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("%q is not a timeline: give %s, %s, or a number in decimal", s, TimelineLatest, TimelineCurrent)
	}
	return wal.TimelineID(n), nil
}

func chooseCluster(ctx context.Context, c Catalogue, systemID uint64) (uint64, error) {
	if systemID != 0 {
		return systemID, nil
	}
	ids, err := c.Clusters(ctx)
	if err != nil {
		return 0, fmt.Errorf("plan restore: %w", err)
	}
	switch len(ids) {
	case 0:
		return 0, refusef("the repository has nothing of any cluster: nothing was archived or backed up yet")
	case 1:
		return ids[0], nil
	}
	return 0, usagef("the repository has %d clusters, %v: choose one with --system-id", len(ids), ids)
}

// describe fills in what follows from the backup's record.
func (p *Plan) describe() {
	b := p.record
	p.Backup = PlannedBackup{
		ID: b.ID, Label: b.Label, Host: b.Host, ServerVersion: b.ServerVersion, Timeline: b.Timeline,
		StartLSN: b.StartLSN.String(), StopLSN: b.StopLSN.String(), StartTime: b.StartTime, StopTime: b.StopTime,
		Objects: len(b.Parts) + 1, StoredSize: b.StoredSize,
	}
	if b.Configuration != nil {
		p.Backup.Objects++
	}
	p.Files = b.Files
	p.DataSize = b.RestoredSize()
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			p.DataSize -= t.Size
		}
	}
	p.DownloadSize = b.StoredSize + p.WAL.StoredSize
	p.describeChain()
	for _, why := range b.Degraded {
		p.Warnings = append(p.Warnings, "the backup is degraded: "+why)
	}
	p.explain()
}
