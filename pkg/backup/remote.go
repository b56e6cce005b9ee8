package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// newestMajor is the newest PostgreSQL whose pg_control is known, which comes
// last: what can't be read then had better not be begun.
const newestMajor = 18

// remote is a backup that the server sends.
type remote struct {
	*run
	session *postgres.Replication
	backup  *postgres.BaseBackup
	sizes   map[uint32]int64 // bytes by tablespace
	label   []byte
	control controlFile
	passed  *ledger
	// configured: postgresql.conf is among the files.
	configured bool
}

// PushRemote takes a base backup through the replication protocol, without
// access to the data directory, and returns its record, which is then in the
// repository. It promises what Push promises. The manifest is the server's,
// byte for byte, and each file is held against it; the server verifies pages,
// and Degraded says what it found.
func PushRemote(ctx context.Context, d Deps, o Options) (*repo.Backup, error) {
	session, err := d.Replication(ctx)
	if err != nil {
		return nil, err
	}
	// What counts is committed or not by then.
	defer func() { _ = session.Close() }()
	facts, err := session.Facts(ctx)
	if err != nil {
		return nil, err
	}
	r, err := prepareRemote(d, o, facts)
	if err != nil {
		return nil, err
	}
	x := &remote{run: r, session: session, sizes: make(map[uint32]int64)}
	if x.passed, err = newLedger(); err != nil {
		return nil, err
	}
	defer r.close()
	x.openState(d)
	if err := x.checkPrimary(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	if err := x.start(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	if err := x.finish(ctx); err != nil {
		return nil, r.aborted(ctx, err)
	}
	return &r.record, nil
}

// prepareRemote refuses what can't become a backup, before anything is begun.
func prepareRemote(d Deps, o Options, facts postgres.Facts) (*run, error) {
	if d.Repository.Sealer == nil {
		return nil, repo.ErrNoRecipients
	}
	if err := checkFacts(facts, o); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	r := &run{repository: d.Repository, deps: d, log: d.Log, options: o, facts: facts, limit: newLimiter(o.MaxRate), major: facts.Version / 10000}
	if r.major > newestMajor {
		return nil, fmt.Errorf("the server is PostgreSQL %s, which is newer than this walship knows: update walship", postgres.VersionString(facts.Version))
	}
	r.record = repo.Backup{
		Format: repo.Format, SystemID: facts.SystemID, Label: o.Label, Walship: d.Version, Host: d.Host, ServerVersion: facts.Version,
		SegmentSize: facts.SegmentSize, ManifestChecksums: string(o.Checksums), Remote: true, Standby: facts.InRecovery,
	}
	return r, nil
}

// start begins the backup on the server and opens its folder in the
// repository.
func (x *remote) start(ctx context.Context) error {
	now, err := x.session.Clock(ctx)
	if err != nil {
		return err
	}
	mode, err := x.session.DataDirectoryMode(ctx)
	if err != nil {
		return err
	}
	x.record.GroupAccess = pgdata.GroupAccess(mode)
	if err := x.reserveWAL(ctx); err != nil {
		return err
	}
	o := x.options
	x.log.Info("starting the backup: waiting for a checkpoint", "label", o.Label, "fast", o.Fast)
	server := postgres.BaseBackupOptions{Label: o.Label, Fast: o.Fast, Checksums: o.Checksums, IgnorePageChecksums: o.IgnorePageChecksums, Sizes: o.Progress != nil}
	if o.MaxRate >= postgres.MinServerRate && o.MaxRate <= postgres.MaxServerRate {
		server.MaxRate = o.MaxRate
	}
	if x.backup, err = x.begin(ctx, server); err != nil {
		return err
	}
	x.progress.total.Store(x.backup.Size)
	b := &x.record
	b.Timeline, b.StartLSN, b.StartTime = x.backup.Timeline, x.backup.Start, now
	if err := x.open(ctx); err != nil {
		return err
	}
	x.beginRemembering()
	return nil
}

// finish takes what the server sends, and commits the backup.
func (x *remote) finish(ctx context.Context) error {
	copying := x.streamWAL(ctx)
	stop := x.reportProgress()
	err := x.receive(copying)
	stop()
	if err != nil {
		return causeOf(copying, err)
	}
	end, err := x.backup.Finish()
	if err != nil {
		return err
	}
	stopped := postgres.BackupStop{LSN: end.Stop, Label: x.label, TablespaceMap: x.tablespaceMap()}
	if stopped.Time, err = x.session.Clock(ctx); err != nil {
		return err
	}
	if end.Timeline != x.record.Timeline {
		return fmt.Errorf("the server went from timeline %d to %d during the backup: take it again", uint32(x.record.Timeline), uint32(end.Timeline))
	}
	x.record.Degraded = end.Damage
	if err := x.describeRemote(stopped); err != nil {
		return err
	}
	if err := x.putLastPart(ctx, stopped, x.control); err != nil {
		return err
	}
	b := &x.record
	b.Files, b.PlainSize, b.StoredSize = x.progress.files.Load(), x.progress.bytes.Load(), x.progress.stored.Load()
	if b.Parent != nil {
		b.DataSize = x.dataSize.Load()
	}
	return x.commit(ctx)
}

// receive stores the archives that the server sends as parts, and its
// manifest.
func (x *remote) receive(ctx context.Context) error {
	in := &incoming{backup: x.backup}
	for {
		header, err := in.peek()
		if err != nil {
			return err
		}
		if header == nil {
			break
		}
		// What the last part holds doesn't begin a part.
		if kept, err := x.keep(in); kept || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := x.putIncoming(ctx, in); err != nil {
			return err
		}
	}
	if len(x.label) == 0 || len(x.control.content) == 0 {
		return fmt.Errorf("the server sent no %s or no %s", pgdata.BackupLabelFileName, pgdata.ControlFileName)
	}
	if !in.manifest {
		return errors.New("the server sent no manifest")
	}
	return x.putServerManifest(ctx)
}

// putServerManifest stores the server's manifest as it is, and holds what was
// received against it.
func (x *remote) putServerManifest(ctx context.Context) error {
	systemID, id := x.record.SystemID, x.record.ID
	stored, err := x.putObject(ctx, repo.ManifestKey(systemID, id), repo.ManifestHeader(systemID, id), func(_ context.Context, w io.Writer) error {
		manifest, err := pgdata.ReadManifest(io.TeeReader(x.backup, w), pgdata.ManifestLimits{})
		if err != nil {
			return err
		}
		if err := x.passed.agree(manifest); err != nil {
			return err
		}
		ranges, err := manifest.Finish()
		if err != nil {
			return err
		}
		if version, id := manifest.Version(), manifest.SystemID(); version > 1 && id != systemID {
			return fmt.Errorf("the server's manifest is of cluster %d, not of %d", id, systemID)
		}
		if len(ranges) != 1 || ranges[0].Timeline != x.record.Timeline || ranges[0].Start != x.record.StartLSN {
			return fmt.Errorf("the server's manifest doesn't name WAL of timeline %d from %s on as what the backup needs: it went from one timeline to another meanwhile, take the backup again",
				uint32(x.record.Timeline), x.record.StartLSN)
		}
		_, err = io.Copy(w, x.backup)
		return err
	})
	if err != nil {
		return err
	}
	x.record.Manifest = stored
	if _, err := x.backup.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the server sent more behind its manifest: %w", errors.Join(err, object.ErrCorrupt))
	}
	return nil
}

// describeRemote completes the record by the control file, and by what the end
// of the backup says.
func (x *remote) describeRemote(stopped postgres.BackupStop) error {
	control, err := pgdata.ParseControlFile(x.control.content)
	if err != nil {
		return fmt.Errorf("the %s that the server sent: %w: take the backup again", pgdata.ControlFileName, err)
	}
	b := &x.record
	if control.SystemID != b.SystemID || control.Major != x.major || control.Redo < b.StartLSN {
		return fmt.Errorf("the server sent the %s of another cluster: %d of PostgreSQL %d, last checkpoint %s", pgdata.ControlFileName, control.SystemID, control.Major, control.Redo)
	}
	x.control.modified = control.Time
	b.DataChecksums, b.Required = control.DataChecksumVersion != 0, requiredSettings(control)
	if err := x.describe(stopped); err != nil {
		return err
	}
	if err := x.checkBase(stopped.Label); err != nil {
		return err
	}
	b.Tablespaces = []repo.Tablespace{}
	for _, t := range x.backup.Tablespaces {
		b.Tablespaces = append(b.Tablespaces, repo.Tablespace{OID: t.OID, Location: t.Location, InPlace: !filepath.IsAbs(t.Location), Size: x.sizes[t.OID]})
	}
	sortTablespaces(b.Tablespaces)
	if !x.configured {
		x.log.Warn("the server's configuration isn't in its data directory, so the backup doesn't have it: keep postgresql.conf and pg_hba.conf by other means", "id", b.ID)
	}
	return x.settleEnd(control)
}

// tablespaceMap is what the server would write: it isn't asked for its own,
// which would stand in the manifest.
func (x *remote) tablespaceMap() []byte {
	var all []pgdata.Tablespace
	for _, t := range x.backup.Tablespaces {
		if filepath.IsAbs(t.Location) {
			all = append(all, pgdata.Tablespace{OID: t.OID, Location: t.Location})
		}
	}
	return pgdata.FormatTablespaceMap(all)
}
