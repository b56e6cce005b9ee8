// Package backup takes base backups of a running cluster through
// pg_backup_start and pg_backup_stop. It promises that a backup which is
// listed is whole: its record is written last, when every object of it and
// every segment from its start to its end is in the repository. Whatever ends
// a backup before that leaves nothing that a listing or a restore would see.
package backup

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// Server is the cluster's running server; *postgres.Conn is one. The backup
// belongs to its session: when that ends, the server aborts the backup.
type Server interface {
	Facts(ctx context.Context) (postgres.Facts, error)
	Tablespaces(ctx context.Context) ([]postgres.Tablespace, error)
	StartBackup(ctx context.Context, label string, fast bool) (postgres.BackupStart, error)
	StopBackup(ctx context.Context) (postgres.BackupStop, error)
	Ping(ctx context.Context) error
}

// Deps are what Push works with.
type Deps struct {
	Repository *repo.Repository
	Server     Server // for Push
	// Replication opens a session of the replication protocol, for PushRemote
	// and for Options.WithWAL.
	Replication func(context.Context) (*postgres.Replication, error)
	// Primary, if it isn't nil, is the server that a standby follows.
	Primary Primary
	Log     *slog.Logger
	Version string // of walship
	Host    string // name of this machine
	// State opens a private folder of a cluster's on this host, to remember in
	// what its latest backups have; nil where there is no need of it.
	State func(systemID uint64, dataDirectory string) (*os.Root, error)
}

// Options say how a backup is taken.
type Options struct {
	DataDirectory string // "": the one that the server names
	Label         string
	// Fast asks for an immediate checkpoint, otherwise it is spread.
	Fast bool
	// Incremental asks for a backup that has only what changed since its
	// parent: the backup of that id, or, without one, the newest that can be
	// it. Where none can be, or where what changed can't be known, the backup
	// is a full one and says so in the log.
	Incremental bool
	Parent      string
	// Checksums is the algorithm of the manifest's checksums per file.
	Checksums pgdata.ChecksumAlgorithm
	// IgnorePageChecksums leaves the checksums of pages alone, where the
	// cluster has them.
	IgnorePageChecksums bool
	// Concurrency is how many parts are written at once, at least 1.
	Concurrency int
	// MaxRate bounds the bytes read from the cluster's files per second; 0
	// is without a bound.
	MaxRate int64
	// PartSize is the size in bytes at which a part is closed, before
	// compression; 0 means DefaultPartSize. A file is never split, so a
	// part may be larger by one file.
	PartSize int64
	// WithWAL streams the backup's WAL into the repository, for a server that
	// doesn't archive. What is received lies in WorkDirectory until it is
	// stored: one segment.
	WithWAL       bool
	WorkDirectory string
	// WALTimeout is how long to wait for the archiver without a single
	// needed segment arriving; 0 means DefaultWALTimeout.
	WALTimeout time.Duration
	// Progress is called when files begin to be copied, every second, and at
	// the end of that, by one goroutine; nil: not.
	Progress func(Progress)
}

const (
	// DefaultPartSize is large enough to make the cost of a request small,
	// and small enough for parts to be restored in parallel.
	DefaultPartSize = 256 << 20
	// DefaultWALTimeout is the time in which a server that waits a minute
	// after three failures tries its archive command a dozen times.
	DefaultWALTimeout = 5 * time.Minute
)

// Push takes a base backup and returns its record, which is then in the
// repository; Degraded in it says what is wrong with pages of the cluster. An error means that there is no backup; the caller then ends the
// server's session, which ends the backup there.
func Push(ctx context.Context, d Deps, o Options) (*repo.Backup, error) {
	facts, err := d.Server.Facts(ctx)
	if err != nil {
		return nil, err
	}
	r, err := prepare(d, o, facts)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.checkPrimary(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	if err := r.start(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	if err := r.finish(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	return &r.record, nil
}

// start begins the backup on the server and opens its folder in the
// repository.
func (r *run) start(ctx context.Context) error {
	before, err := listTablespaces(r.data.root)
	if err != nil {
		return err
	}
	if err := r.reserveWAL(ctx); err != nil {
		return err
	}
	r.log.Info("starting the backup: waiting for a checkpoint", "label", r.options.Label, "fast", r.options.Fast)
	started, err := r.server.StartBackup(ctx, r.options.Label, r.options.Fast)
	if err != nil {
		return err
	}
	control, err := pgdata.ReadControlFile(r.data.root)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", r.record.DataDirectory, err)
	}
	// The checkpoint that starts a backup is in the server's control file
	// by now: a copy of the cluster in another directory doesn't have it.
	if control.SystemID != r.record.SystemID || control.Redo < started.LSN {
		return fmt.Errorf("data directory %s isn't the one of the server that walship is connected to: its last checkpoint %s is older than the start of the backup, %s",
			r.record.DataDirectory, control.Redo, started.LSN)
	}
	// A standby follows its primary's checkpoints, so the state tells the two
	// apart.
	if want := runningState(r.record.Standby); control.State != want {
		return fmt.Errorf("data directory %s isn't the one of the server that walship is connected to, which is %s: it is %s",
			r.record.DataDirectory, want, control.State)
	}
	if err := r.openTablespaces(ctx, before); err != nil {
		return err
	}
	if control.DataChecksumVersion != 0 && !r.options.IgnorePageChecksums {
		r.pages = newPageCheck(control, started.LSN)
	}
	b := &r.record
	b.Timeline, b.StartLSN, b.StartTime = control.Timeline, started.LSN, started.Time
	r.control = control
	if err := r.chooseParent(ctx); err != nil {
		return err
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	if r.manifest, err = r.beginManifest(ctx); err != nil {
		return err
	}
	r.beginRemembering()
	return nil
}

// open opens the backup's folder in the repository.
func (r *run) open(ctx context.Context) error {
	b := &r.record
	opened, err := r.repository.CreateBackup(ctx, repo.Start{
		SystemID: b.SystemID, Host: b.Host, DataDirectory: b.DataDirectory, Label: b.Label, Walship: b.Walship,
		ServerVersion: b.ServerVersion, Timeline: b.Timeline, StartLSN: b.StartLSN, StartTime: b.StartTime,
	})
	if err != nil {
		return err
	}
	b.ID = opened.ID
	if err := r.repository.NoteCluster(ctx, repo.Cluster{
		SystemID: b.SystemID, Major: r.major, SegmentSize: b.SegmentSize, Seen: b.StartTime,
	}); err != nil {
		return err
	}
	r.log.Info("backup started", "id", b.ID, "start", b.StartLSN, "timeline", uint32(b.Timeline))
	return nil
}

// finish copies the cluster, ends the backup on the server, and commits it.
func (r *run) finish(ctx context.Context) error {
	held, release := holdSession(r.streamWAL(ctx), r.server, pingInterval)
	defer release()
	control, stopped, err := r.copyCluster(held)
	if err != nil {
		return causeOf(held, err)
	}
	release()
	if err := r.describe(stopped); err != nil {
		return err
	}
	if err := r.describeTablespaces(stopped.TablespaceMap); err != nil {
		return err
	}
	if err := r.settleLocalEnd(control); err != nil {
		return err
	}
	if parent := r.record.Parent; parent != nil {
		stopped.Label = pgdata.AppendIncremental(stopped.Label, parent.StartLSN, parent.Timeline)
	}
	if err := r.putLastPart(ctx, stopped, control); err != nil {
		return err
	}
	if err := r.putManifest(); err != nil {
		return err
	}
	return r.commit(ctx)
}

// commit makes the backup exist, when all its WAL is in the repository.
func (r *run) commit(ctx context.Context) error {
	if err := r.switchWAL(ctx); err != nil {
		return err
	}
	if r.stream != nil {
		if err := r.stream.finish(ctx, r.record.StopLSN); err != nil {
			return err
		}
	}
	if err := r.proveWAL(ctx); err != nil {
		return err
	}
	if err := r.repository.CommitBackup(ctx, &r.record); err != nil {
		return err
	}
	r.saveRemembered()
	r.log.Info("backup committed", "id", r.record.ID, "files", r.record.Files, "bytes", r.record.PlainSize,
		"stored", r.record.StoredSize, "stop", r.record.StopLSN)
	r.writeRollups(ctx)
	r.sweepLeftovers(ctx)
	return nil
}

// sweepTime bounds how long the end of a backup is put off by that.
const sweepTime = time.Minute

// sweepLeftovers removes what killed writes of this cluster left in the
// repository long ago. The backup is there without it: a role that may not do it
// is no problem.
func (r *run) sweepLeftovers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	swept, err := r.repository.SweepLeftovers(ctx, r.record.SystemID)
	if err != nil {
		r.log.Debug("what killed writes left in the repository stays", "error", err)
	}
	if swept > 0 {
		r.log.Info("what killed writes left in the repository is removed", "count", swept)
	}
}

// copyCluster does what needs the backup to be going on: it copies the files,
// pg_control as the last, and ends the backup on the server.
func (r *run) copyCluster(ctx context.Context) (controlFile, postgres.BackupStop, error) {
	// Before files are listed: what it finds in the data directory is among them.
	if err := r.putConfiguration(ctx); err != nil {
		return controlFile{}, postgres.BackupStop{}, err
	}
	listing := r.list(ctx)
	defer listing.close()
	if err := r.compareParent(ctx); err != nil {
		return controlFile{}, postgres.BackupStop{}, err
	}
	if err := r.putParts(ctx, listing); err != nil {
		return controlFile{}, postgres.BackupStop{}, err
	}
	control, err := r.copyControlFile()
	if err != nil {
		return controlFile{}, postgres.BackupStop{}, err
	}
	stopped, err := r.server.StopBackup(ctx)
	return control, stopped, err
}

// describe completes the record by what the end of the backup says.
func (r *run) describe(stopped postgres.BackupStop) error {
	label, err := pgdata.ParseBackupLabel(stopped.Label)
	if err != nil {
		return err
	}
	b := &r.record
	if label.Start != b.StartLSN || label.Timeline != b.Timeline {
		return fmt.Errorf("the server ended another backup than it started: its label says %s on timeline %d, expected %s on timeline %d",
			label.Start, uint32(label.Timeline), b.StartLSN, uint32(b.Timeline))
	}
	b.Checkpoint, b.StopLSN = label.Checkpoint, stopped.LSN
	b.StopTime, b.StopSnapshot = stopped.Time, stopped.Snapshot
	r.log.Info("backup stopped on the server", "id", b.ID, "stop", b.StopLSN)
	if r.pages != nil {
		b.PagesChecked = r.pages.checked.Load()
		b.PagesBad, b.Degraded = r.pages.finish(b.StopLSN)
	}
	return nil
}

// aborted says why there is no backup, and once it has one its ID, under which the
// log and the repository know it.
func (r *run) aborted(ctx context.Context, err error) error {
	err = causeOf(ctx, err)
	if r.record.ID == "" {
		return err
	}
	return fmt.Errorf("backup %s aborted, nothing of it will be listed: %w", r.record.ID, err)
}

// causeOf prefers the reason for which ctx ended to what came of that.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

const (
	// pingInterval is how often the session that holds the backup is asked
	// for an answer: often enough for a firewall, and to notice the death of
	// the server long before the end.
	pingInterval = 10 * time.Second
	pingTimeout  = time.Minute
)

func ping(ctx context.Context, server Server) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return server.Ping(ctx)
}

// holdSession returns a context that ends when the server no longer answers.
// release stops the watch.
func holdSession(ctx context.Context, server Server, interval time.Duration) (held context.Context, release func()) {
	held, cancel := context.WithCancelCause(ctx)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-held.Done():
				return
			case <-ticker.C:
			}
			if err := ping(held, server); err != nil {
				cancel(fmt.Errorf("the session that holds the backup is gone: %w", err))
				return
			}
		}
	}()
	released := false
	return held, func() {
		if released {
			return
		}
		released = true
		close(quit)
		cancel(nil)
		<-done
	}
}
