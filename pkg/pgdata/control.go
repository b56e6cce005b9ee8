package pgdata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// ControlFileSize is the physical size of pg_control in bytes, whatever the
// version (PG_CONTROL_FILE_SIZE in src/include/catalog/pg_control.h).
const ControlFileSize = 8192

// ErrControlFileTorn means that a control file's checksum doesn't agree with
// its content: it was read while the server wrote it, or it is damaged.
var ErrControlFileTorn = errors.New("checksum of the control file doesn't match its content")

// ControlFile is the content of pg_control: ControlFileData and the copy of
// the last checkpoint in it (src/include/catalog/pg_control.h).
type ControlFile struct {
	SystemID         uint64
	PGControlVersion uint32 // 1300 (13 to 16), 1700, 1800
	CatalogVersion   uint32
	Major            int // 13 to 18, by CatalogVersion; 0 for a catalog that no release has
	State            State
	Time             time.Time // of the last update, whole seconds

	Checkpoint     wal.LSN // the last checkpoint record
	Redo           wal.LSN // where its redo starts
	Timeline       wal.TimelineID
	PrevTimeline   wal.TimelineID
	FullPageWrites bool
	NextXID        uint64 // with the epoch in the upper half
	CheckpointTime time.Time

	MinRecoveryPoint    wal.LSN // 0 outside of archive recovery
	MinRecoveryTimeline wal.TimelineID
	BackupStart         wal.LSN
	BackupEnd           wal.LSN
	BackupEndRequired   bool

	WALLevel             WALLevel
	MaxConnections       int
	MaxWorkerProcesses   int
	MaxWALSenders        int
	MaxPreparedXacts     int
	MaxLocksPerXact      int
	TrackCommitTimestamp bool

	BlockSize           uint32 // bytes
	RelSegSize          uint32 // blocks per segment of a relation
	WALBlockSize        uint32 // bytes
	WALSegmentSize      uint64 // bytes
	DataChecksumVersion uint32 // 0: no page checksums
}

// State is DBState in src/include/catalog/pg_control.h.
type State uint32

// The states of a cluster.
const (
	StateStartup State = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

// String is the state as pg_controldata prints it.
func (s State) String() string {
	names := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("unrecognized status code %d", uint32(s))
}

// WALLevel is WalLevel in src/include/access/xlog.h.
type WALLevel uint32

// The values of wal_level.
const (
	WALLevelMinimal WALLevel = iota
	WALLevelReplica
	WALLevelLogical
)

// String is the value of wal_level.
func (l WALLevel) String() string {
	names := [...]string{"minimal", "replica", "logical"}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("unrecognized wal_level %d", uint32(l))
}

// Offsets in pg_control, equal in all the versions known here on machines
// where a uint64 is aligned to 8 bytes. Only what comes behind the block of
// sizes moves: version 1800 adds default_char_signedness.
const (
	offsetSystemID         = 0
	offsetControlVersion   = 8
	offsetCatalogVersion   = 12
	offsetState            = 16
	offsetTime             = 24
	offsetCheckpoint       = 32
	offsetRedo             = 40
	offsetTimeline         = 48
	offsetPrevTimeline     = 52
	offsetFullPageWrites   = 56
	offsetNextXID          = 64
	offsetCheckpointTime   = 104
	offsetMinRecovery      = 136
	offsetMinRecoveryTLI   = 144
	offsetBackupStart      = 152
	offsetBackupEnd        = 160
	offsetBackupEndReq     = 168
	offsetWALLevel         = 172
	offsetMaxConnections   = 180
	offsetMaxWorkers       = 184
	offsetMaxWALSenders    = 188
	offsetMaxPrepared      = 192
	offsetMaxLocks         = 196
	offsetTrackCommitTime  = 200
	offsetMaxAlign         = 204
	offsetFloatFormat      = 208
	offsetBlockSize        = 216
	offsetRelSegSize       = 220
	offsetWALBlockSize     = 224
	offsetWALSegmentSize   = 228
	offsetDataChecksum     = 252
	floatFormatOfPostgres  = 0x4132D68700000000 // the bits of 1234567.0
	maxAlignOfKnownLayouts = 8
)

// crcOffset is where the CRC-32C stands, which covers all before it.
func crcOffset(controlVersion uint32) (int, bool) {
	switch controlVersion {
	case 1300, 1700:
		return 288, true
	case 1800:
		return 292, true
	}
	return 0, false
}

// majorOfCatalog maps the catalog versions of the releases
// (src/include/catalog/catversion.h) to their major; 0 for any other.
func majorOfCatalog(catalogVersion uint32) int {
	switch catalogVersion {
	case 202007201:
		return 13
	case 202107181:
		return 14
	case 202209061:
		return 15
	case 202307071:
		return 16
	case 202406281:
		return 17
	case 202506291:
		return 18
	}
	return 0
}

// ParseControlFile decodes the content of pg_control, of which at least the
// first 512 bytes must be given. It fails with ErrControlFileTorn when the
// checksum doesn't match.
func ParseControlFile(data []byte) (ControlFile, error) {
	if len(data) < 512 {
		return ControlFile{}, fmt.Errorf("parse control file: it has %d bytes, not %d", len(data), ControlFileSize)
	}
	le := binary.LittleEndian
	version := le.Uint32(data[offsetControlVersion:])
	end, known := crcOffset(version)
	if !known {
		if _, swapped := crcOffset(binary.BigEndian.Uint32(data[offsetControlVersion:])); swapped {
			return ControlFile{}, errors.New("parse control file: it was written by a machine of another byte order")
		}
		return ControlFile{}, fmt.Errorf("parse control file: pg_control version %d is not one of PostgreSQL 13 to 18", version)
	}
	if crc32.Checksum(data[:end], crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(data[end:]) {
		return ControlFile{}, fmt.Errorf("parse control file: %w", ErrControlFileTorn)
	}
	if le.Uint32(data[offsetMaxAlign:]) != maxAlignOfKnownLayouts || le.Uint64(data[offsetFloatFormat:]) != floatFormatOfPostgres {
		return ControlFile{}, errors.New("parse control file: it was written by a machine of another architecture")
	}
	c := decodeControlFile(data)
	if !wal.ValidSegmentSize(c.WALSegmentSize) {
		return ControlFile{}, fmt.Errorf("parse control file: %d is not a size of WAL segments", c.WALSegmentSize)
	}
	return c, nil
}

func decodeControlFile(data []byte) ControlFile {
	u32 := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
	u64 := func(offset int) uint64 { return binary.LittleEndian.Uint64(data[offset:]) }
	number := func(offset int) int { return int(int32(u32(offset))) }
	lsn := func(offset int) wal.LSN { return wal.LSN(u64(offset)) }
	timeline := func(offset int) wal.TimelineID { return wal.TimelineID(u32(offset)) }
	unix := func(offset int) time.Time { return time.Unix(int64(u64(offset)), 0).UTC() }

	return ControlFile{
		SystemID:         u64(offsetSystemID),
		PGControlVersion: u32(offsetControlVersion),
		CatalogVersion:   u32(offsetCatalogVersion),
		Major:            majorOfCatalog(u32(offsetCatalogVersion)),
		State:            State(u32(offsetState)),
		Time:             unix(offsetTime),

		Checkpoint:     lsn(offsetCheckpoint),
		Redo:           lsn(offsetRedo),
		Timeline:       timeline(offsetTimeline),
		PrevTimeline:   timeline(offsetPrevTimeline),
		FullPageWrites: data[offsetFullPageWrites] != 0,
		NextXID:        u64(offsetNextXID),
		CheckpointTime: unix(offsetCheckpointTime),

		MinRecoveryPoint:    lsn(offsetMinRecovery),
		MinRecoveryTimeline: timeline(offsetMinRecoveryTLI),
		BackupStart:         lsn(offsetBackupStart),
		BackupEnd:           lsn(offsetBackupEnd),
		BackupEndRequired:   data[offsetBackupEndReq] != 0,

		WALLevel:             WALLevel(u32(offsetWALLevel)),
		MaxConnections:       number(offsetMaxConnections),
		MaxWorkerProcesses:   number(offsetMaxWorkers),
		MaxWALSenders:        number(offsetMaxWALSenders),
		MaxPreparedXacts:     number(offsetMaxPrepared),
		MaxLocksPerXact:      number(offsetMaxLocks),
		TrackCommitTimestamp: data[offsetTrackCommitTime] != 0,

		BlockSize:           u32(offsetBlockSize),
		RelSegSize:          u32(offsetRelSegSize),
		WALBlockSize:        u32(offsetWALBlockSize),
		WALSegmentSize:      uint64(u32(offsetWALSegmentSize)),
		DataChecksumVersion: u32(offsetDataChecksum),
	}
}

// ReadControlFile reads and checks global/pg_control of the data directory
// root. See CopyControlFile.
func ReadControlFile(root *os.Root) (ControlFile, error) {
	c, _, err := CopyControlFile(root)
	return c, err
}

// CopyControlFile reads and checks global/pg_control of the data directory
// root, and returns its bytes too. A running server replaces the file's
// content in place, so a wrong checksum may mean that the read was torn: it is
// read again until it is right, or the same wrong bytes come twice.
func CopyControlFile(root *os.Root) (ControlFile, []byte, error) {
	const attempts, pause = 10, 10 * time.Millisecond
	return readUntorn(attempts, pause, func() ([]byte, error) {
		f, err := root.Open(ControlFileName)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, ControlFileSize+1))
	})
}

func readUntorn(attempts int, pause time.Duration, read func() ([]byte, error)) (ControlFile, []byte, error) {
	var last []byte
	for {
		data, err := read()
		if err != nil {
			return ControlFile{}, nil, fmt.Errorf("read control file: %w", err)
		}
		if len(data) != ControlFileSize {
			return ControlFile{}, nil, fmt.Errorf("read control file: %s has %d bytes, not %d", ControlFileName, len(data), ControlFileSize)
		}
		c, err := ParseControlFile(data)
		if err == nil {
			return c, data, nil
		}
		attempts--
		if !errors.Is(err, ErrControlFileTorn) || attempts == 0 || bytes.Equal(data, last) {
			return ControlFile{}, nil, err
		}
		last = data
		<-time.After(pause)
	}
}
