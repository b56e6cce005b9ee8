package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// run is one backup on its way.
type run struct {
	repository *repo.Repository
	deps       Deps
	server     Server
	log        *slog.Logger
	options    Options
	facts      postgres.Facts
	limit      *limiter

	data        tree    // the data directory
	tablespaces []*tree // by OID
	uid, gid    int     // whom it belongs to
	major       int
	version     string // folder of this server in a tablespace, PG_15_202209061

	pages    *pageCheck         // nil: page checksums aren't looked at
	control  pgdata.ControlFile // when the backup began
	history  wal.History        // the way to its timeline, once it is known
	base     *base              // nil: a full backup
	state    *os.Root           // nil: nothing is remembered on this host
	mostKept int                // bytes of a listing that are kept
	noted    *remember          // what is to be remembered of this backup; nil: nothing
	dataSize atomic.Int64       // bytes of the files that a restore makes of this

	stream   *walStream // nil unless WAL is streamed
	manifest *manifest
	progress progress
	record   repo.Backup
}

// progress counts what is done, for all workers.
type progress struct {
	files, bytes, stored atomic.Int64
	total                atomic.Int64 // bytes of the files when they were listed; 0 before
}

// prepare refuses what can't become a backup, before anything is begun.
func prepare(d Deps, o Options, facts postgres.Facts) (*run, error) {
	o = o.withDefaults()
	if o.DataDirectory == "" {
		o.DataDirectory = facts.DataDirectory
	}
	if d.Repository.Sealer == nil {
		return nil, repo.ErrNoRecipients
	}
	if err := checkFacts(facts, o); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.DataDirectory)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, dataDirectoryError(dir, err)
	}
	r := &run{repository: d.Repository, deps: d, server: d.Server, log: d.Log, options: o, facts: facts, limit: newLimiter(o.MaxRate), data: tree{root: root}, mostKept: mostKept}
	if err := r.identify(d, dir); err != nil {
		root.Close()
		return nil, err
	}
	r.openState(d)
	return r, nil
}

func (o Options) withDefaults() Options {
	if o.PartSize <= 0 {
		o.PartSize = DefaultPartSize
	}
	if o.WALTimeout <= 0 {
		o.WALTimeout = DefaultWALTimeout
	}
	o.Concurrency = max(o.Concurrency, 1)
	return o
}

// checkFacts refuses a server whose backups couldn't be restored. A standby's
// WAL is archived by its primary.
func checkFacts(f postgres.Facts, o Options) error {
	switch {
	case f.WALLevel == "minimal":
		return errors.New("wal_level is minimal, which no backup can be restored from: set it to replica and restart the server")
	case o.WithWAL || f.InRecovery:
		return nil
	case f.ArchiveMode == "off":
		return errors.New("archive_mode is off, and a backup is worth nothing without its WAL: set archive_mode = on and archive_command = 'walship wal push %p', and restart the server; or have this backup's WAL streamed along, with --with-wal")
	case !f.Archiving():
		return errors.New("archive_command is empty, and a backup is worth nothing without its WAL: set archive_command = 'walship wal push %p', and reload the server")
	}
	return nil
}

func dataDirectoryError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open data directory: %w: run walship as the user that the server runs as", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open data directory: %w: walship must run on the server's host; where the directory has another path here, set postgres.data_directory", err)
	}
	return fmt.Errorf("open data directory %s: %w", dir, err)
}

// identify holds the data directory against the server, and fills in what the
// record can say before the start.
func (r *run) identify(d Deps, dir string) error {
	info, err := r.data.root.Stat(".")
	if err != nil {
		return dataDirectoryError(dir, err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		r.uid, r.gid = int(stat.Uid), int(stat.Gid)
	}
	control, err := pgdata.ReadControlFile(r.data.root)
	if err != nil {
		return dataDirectoryError(dir, err)
	}
	if control.SystemID != r.facts.SystemID {
		return fmt.Errorf("data directory %s belongs to cluster %d, but the server that walship is connected to is cluster %d", dir, control.SystemID, r.facts.SystemID)
	}
	r.major = r.facts.Version / 10000
	if control.Major != r.major {
		return fmt.Errorf("data directory %s is of PostgreSQL %d (catalog version %d), but the server is %s: this walship doesn't know it",
			dir, control.Major, control.CatalogVersion, postgres.VersionString(r.facts.Version))
	}
	r.version = fmt.Sprintf("PG_%d_%d", r.major, control.CatalogVersion)
	r.record = repo.Backup{
		Format: repo.Format, SystemID: control.SystemID, Label: r.options.Label,
		Walship: d.Version, Host: d.Host, DataDirectory: dir, ServerVersion: r.facts.Version,
		SegmentSize: r.facts.SegmentSize, DataChecksums: control.DataChecksumVersion != 0,
		Required:          requiredSettings(control),
		ManifestChecksums: string(r.options.Checksums),
		Standby:           r.facts.InRecovery,
		GroupAccess:       pgdata.GroupAccess(info.Mode()),
	}
	return nil
}

func requiredSettings(control pgdata.ControlFile) repo.RequiredSettings {
	return repo.RequiredSettings{
		MaxConnections: control.MaxConnections, MaxWorkerProcesses: control.MaxWorkerProcesses, MaxWALSenders: control.MaxWALSenders,
		MaxPreparedTransactions: control.MaxPreparedXacts, MaxLocksPerTransaction: control.MaxLocksPerXact,
	}
}

func (r *run) close() {
	r.manifest.close()
	r.stream.close()
	for _, t := range r.tablespaces {
		t.root.Close()
	}
	if r.data.root != nil {
		r.data.root.Close()
	}
	r.closeState()
}

// controlFile is global/pg_control, read as the last file of the cluster.
type controlFile struct {
	content  []byte
	modified time.Time
}

func (r *run) copyControlFile() (controlFile, error) {
	control, content, err := pgdata.CopyControlFile(r.data.root)
	if err != nil {
		return controlFile{}, err
	}
	if control.SystemID != r.record.SystemID || control.Redo < r.record.StartLSN {
		return controlFile{}, fmt.Errorf("%s isn't of this backup: cluster %d, last checkpoint %s", pgdata.ControlFileName, control.SystemID, control.Redo)
	}
	return controlFile{content: content, modified: control.Time}, nil
}
