package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// Backup is the record of a base backup: the last object that a backup
// writes. A backup without its record doesn't exist. It is plain JSON, so
// that a shell can read it; what it says of each object is checked against
// the object.
type Backup struct {
	Format   int    `json:"format"`                   // 1
	ID       string `json:"id"`                       // UTC start time, 20261120T142500Z, with -2, -3 … where that was taken
	SystemID uint64 `json:"system_identifier,string"` // of the cluster
	Label    string `json:"label"`

	Walship       string `json:"walship_version"`
	Host          string `json:"host"`           // where the backup was taken
	DataDirectory string `json:"data_directory"` // on that host; "" where Remote
	ServerVersion int    `json:"server_version"` // as server_version_num says: 150018

	// Parent is the backup that this one is based on, which has what this one
	// leaves out; nil for a full backup.
	Parent *Parent `json:"parent,omitempty"`

	// Remote: it came through the replication protocol. Standby: it is of a
	// server in recovery, which had replayed up to StopLSN.
	Remote  bool `json:"remote,omitempty"`
	Standby bool `json:"standby,omitempty"`

	Timeline    wal.TimelineID `json:"timeline"`
	StartLSN    wal.LSN        `json:"start_lsn"`      // the redo point of the backup's checkpoint: WAL is needed from here on
	Checkpoint  wal.LSN        `json:"checkpoint_lsn"` // where the backup's checkpoint record stands
	StopLSN     wal.LSN        `json:"stop_lsn"`       // end of the backup: consistent from here on
	SegmentSize uint64         `json:"wal_segment_size"`

	StartTime time.Time `json:"start_time"` // the server's clock, UTC
	// StopTime is the server's clock after the end of the backup was
	// written: a transaction that committed later than StopTime, by that
	// clock, is behind StopLSN.
	StopTime time.Time `json:"stop_time"`
	// StopSnapshot is pg_current_snapshot() taken after StopLSN
	// (xmin:xmax:xip,…, with 64-bit ids): a transaction of it that was still
	// running, or one not yet begun, ends behind StopLSN.
	StopSnapshot string `json:"stop_snapshot"`

	// GroupAccess: the data directory's group may read it (initdb
	// --allow-group-access), and so may that of a restored one.
	GroupAccess bool `json:"group_access,omitempty"`

	DataChecksums bool `json:"data_checksums"`
	// PagesChecked is how many pages were held against their checksums; 0
	// where the cluster has none, or nobody asked.
	PagesChecked int64 `json:"pages_checked"`
	PagesBad     int64 `json:"pages_bad"` // of those; Degraded names them
	// Required are the settings that a server needs at least to replay the
	// WAL from here on with hot_standby on, as pg_control records them.
	Required RequiredSettings `json:"required_settings"`

	Tablespaces       []Tablespace      `json:"tablespaces"`
	Parts             []Object          `json:"parts"` // in order; the last has backup_label and, as its last file, global/pg_control
	Manifest          Object            `json:"manifest"`
	ManifestChecksums string            `json:"manifest_checksums"` // NONE, CRC32C, SHA224, SHA256, SHA384 or SHA512
	Configuration     *Object           `json:"configuration,omitempty"`
	ConfigurationOf   map[string]string `json:"configuration_files,omitempty"` // config_file, hba_file, ident_file: paths on the host, each stored in Configuration below its path without the leading slash

	Files     int64 `json:"files"`      // regular files in the parts
	PlainSize int64 `json:"plain_size"` // bytes of those files
	// DataSize is how many bytes the files of an incremental backup have when
	// they are restored; 0 for a full backup, where it is PlainSize.
	DataSize   int64 `json:"data_size,omitempty"`
	StoredSize int64 `json:"stored_size"` // bytes of all objects of the backup but this record

	// Degraded says why the backup may not be whole (a page that failed its
	// checksum); empty for a good one.
	Degraded []string `json:"degraded,omitempty"`
}

// RequiredSettings mirrors the parameters that pg_control carries for hot
// standby; see ControlFileData in src/include/catalog/pg_control.h.
type RequiredSettings struct {
	MaxConnections          int `json:"max_connections"`
	MaxWorkerProcesses      int `json:"max_worker_processes"`
	MaxWALSenders           int `json:"max_wal_senders"`
	MaxPreparedTransactions int `json:"max_prepared_transactions"`
	MaxLocksPerTransaction  int `json:"max_locks_per_transaction"`
}

// Tablespace is a tablespace outside the data directory.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Location string `json:"location"` // absolute path on the backup's host; relative to the data directory for one created in place
	InPlace  bool   `json:"in_place,omitempty"`
	Size     int64  `json:"size"` // bytes of its files when they are restored
}

// Object is one sealed object of a backup.
type Object struct {
	Key          string `json:"key"`           // whole key in the repository
	StoredSize   int64  `json:"stored_size"`   // bytes as stored
	StoredSHA256 string `json:"stored_sha256"` // hex digest of the bytes as stored: sha256sum checks it without an identity
	PlainSize    int64  `json:"plain_size"`    // bytes before compression
	PlainDigest  string `json:"plain_digest"`  // algorithm:hex of those
}

// Start is the record that opens a backup's folder.
type Start struct {
	Format        int            `json:"format"`
	ID            string         `json:"id"`
	SystemID      uint64         `json:"system_identifier,string"`
	Host          string         `json:"host"`
	DataDirectory string         `json:"data_directory"`
	Label         string         `json:"label"`
	Walship       string         `json:"walship_version"`
	ServerVersion int            `json:"server_version"`
	Timeline      wal.TimelineID `json:"timeline"`
	StartLSN      wal.LSN        `json:"start_lsn"`
	StartTime     time.Time      `json:"start_time"`
}

// BackupRef is what the key of a backup's record says, so that one listing
// is enough to choose among backups.
type BackupRef struct {
	ID       string
	SystemID uint64
	Timeline wal.TimelineID
	StartLSN wal.LSN
	StopLSN  wal.LSN
	Modified time.Time // when the storage says that the record was written
}

// Started is when the backup was begun, by the server's clock and as its id says
// it, to the second.
func (ref BackupRef) Started() time.Time {
	base, _, _ := strings.Cut(ref.ID, "-")
	at, _ := time.Parse(idLayout, base) // ids are valid
	return at
}

// Ref returns what the key of b's record says.
func (b *Backup) Ref() BackupRef {
	return BackupRef{ID: b.ID, SystemID: b.SystemID, Timeline: b.Timeline, StartLSN: b.StartLSN, StopLSN: b.StopLSN}
}

// Key returns the key of the backup's record.
func (ref BackupRef) Key() string {
	return fmt.Sprintf("%s%08X-%016X-%016X-%s.json", backupsPrefix(ref.SystemID),
		uint32(ref.Timeline), uint64(ref.StartLSN), uint64(ref.StopLSN), ref.ID)
}

// idLayout is the start time in a backup's id, in UTC.
const idLayout = "20060102T150405Z"

func validID(id string) bool {
	base, n, numbered := strings.Cut(id, "-")
	if _, err := time.Parse(idLayout, base); err != nil {
		return false
	}
	if !numbered {
		return true
	}
	i, err := strconv.Atoi(n)
	return err == nil && i >= 2 && n == strconv.Itoa(i)
}

func parseBackupKey(systemID uint64, key string) (BackupRef, bool) {
	rest, ok := strings.CutPrefix(key, backupsPrefix(systemID))
	if !ok {
		return BackupRef{}, false
	}
	rest, ok = strings.CutSuffix(rest, ".json")
	if !ok {
		return BackupRef{}, false
	}
	f := strings.SplitN(rest, "-", 4)
	if len(f) != 4 || len(f[0]) != 8 || len(f[1]) != 16 || len(f[2]) != 16 || !validID(f[3]) {
		return BackupRef{}, false
	}
	timeline, err1 := strconv.ParseUint(f[0], 16, 32)
	start, err2 := strconv.ParseUint(f[1], 16, 64)
	stop, err3 := strconv.ParseUint(f[2], 16, 64)
	ref := BackupRef{ID: f[3], SystemID: systemID, Timeline: wal.TimelineID(timeline), StartLSN: wal.LSN(start), StopLSN: wal.LSN(stop)}
	return ref, errors.Join(err1, err2, err3) == nil && ref.Key() == key
}

// Backups lists the committed backups of a cluster, ordered by id, the
// oldest first.
func (r *Repository) Backups(ctx context.Context, systemID uint64) ([]BackupRef, error) {
	var refs []BackupRef
	for info, err := range r.Store.List(ctx, backupsPrefix(systemID), "") {
		if err != nil {
			return nil, fmt.Errorf("list backups of cluster %d: %w", systemID, err)
		}
		if ref, ok := parseBackupKey(systemID, info.Key); ok {
			ref.Modified = info.Modified
			refs = append(refs, ref)
		}
	}
	sort.Slice(refs, func(i, j int) bool { return lessID(refs[i].ID, refs[j].ID) })
	return refs, nil
}

// lessID orders ids by start time, then by their number.
func lessID(a, b string) bool {
	if len(a) != len(b) && a[:len(idLayout)] == b[:len(idLayout)] {
		return len(a) < len(b)
	}
	return a < b
}

// maxBackupRecord bounds the size of a backup's record: 1 MiB holds more
// than 3,000 parts, and 64 MiB more than any cluster has.
const maxBackupRecord = 64 << 20

// Backup reads the record of a backup.
func (r *Repository) Backup(ctx context.Context, ref BackupRef) (*Backup, error) {
	data, err := readObject(ctx, r.Store, ref.Key(), maxBackupRecord)
	if err != nil {
		return nil, fmt.Errorf("read record of backup %s: %w", ref.ID, err)
	}
	var b Backup
	if err := unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("read record of backup %s (%s): %w", ref.ID, ref.Key(), err)
	}
	if err := b.validate(ref); err != nil {
		return nil, fmt.Errorf("read record of backup %s (%s): %w", ref.ID, ref.Key(), err)
	}
	return &b, nil
}

// validate holds a record that was read against the key it was read from.
func (b *Backup) validate(ref BackupRef) error {
	if b.Format != Format {
		return fmt.Errorf("format %d isn't supported, only %d: use a newer walship", b.Format, Format)
	}
	if b.Ref().Key() != ref.Key() {
		return errors.New("what it says isn't what its key says: it was renamed or damaged")
	}
	if !wal.ValidSegmentSize(b.SegmentSize) {
		return fmt.Errorf("WAL segment size %d is not a power of two from 1 MiB to 1 GiB", b.SegmentSize)
	}
	if b.StopLSN < b.StartLSN || len(b.Parts) == 0 {
		return errors.New("it has no parts, or ends before it starts")
	}
	if p := b.Parent; p != nil && (!validID(p.ID) || p.ID == b.ID || p.StopLSN < p.StartLSN || p.StopLSN > b.StartLSN) {
		return fmt.Errorf("its parent %q, from %s to %s, can't be one", p.ID, p.StartLSN, p.StopLSN)
	}
	for _, o := range b.objects() {
		if !strings.HasPrefix(o.Key, partsPrefix(b.SystemID, b.ID)) || storage.ValidKey(o.Key) != nil {
			return fmt.Errorf("object %q lies outside the backup's folder", o.Key)
		}
	}
	return nil
}

// CreateBackup opens a new backup's folder: it chooses an id from
// start.StartTime that no other attempt has, writes the start record
// create-only, and returns it with Format and ID filled in.
func (r *Repository) CreateBackup(ctx context.Context, start Start) (Start, error) {
	start.Format = Format
	const most = 100
	for n := 1; n <= most; n++ {
		start.ID = start.StartTime.UTC().Format(idLayout)
		if n > 1 {
			start.ID += "-" + strconv.Itoa(n)
		}
		data, err := marshal(start)
		if err != nil {
			return Start{}, err
		}
		_, err = r.Store.Put(ctx, StartKey(start.SystemID, start.ID), bytes.NewReader(data))
		if errors.Is(err, storage.ErrExist) {
			continue
		}
		if err != nil {
			return Start{}, fmt.Errorf("create backup %s: %w", start.ID, err)
		}
		return start, nil
	}
	return Start{}, fmt.Errorf("create backup: %d backups of cluster %d were begun in one second", most, start.SystemID)
}

// CommitBackup writes the record that makes a backup exist. The caller has
// proved that every object of it and all the WAL from StartLSN to StopLSN is
// in the repository.
func (r *Repository) CommitBackup(ctx context.Context, b *Backup) error {
	b.Format = Format
	if err := b.validate(b.Ref()); err != nil {
		return fmt.Errorf("commit backup %s: %w", b.ID, err)
	}
	data, err := marshal(b)
	if err != nil {
		return fmt.Errorf("commit backup %s: %w", b.ID, err)
	}
	key := b.Ref().Key()
	_, err = r.Store.Put(ctx, key, bytes.NewReader(data))
	if errors.Is(err, storage.ErrExist) {
		// The folder is ours alone, so what is there should be our own
		// record, whose response was lost.
		if there, readErr := readObject(ctx, r.Store, key, maxBackupRecord); readErr == nil && bytes.Equal(there, data) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("commit backup %s: %w", b.ID, err)
	}
	return nil
}

// marshal writes a record as indented JSON, one value a line, for shells.
func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// unmarshal reads a record. Fields that this version doesn't know are
// ignored: a change that older readers must not miss raises the format.
func unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }
