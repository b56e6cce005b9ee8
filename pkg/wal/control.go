package wal

import (
	"fmt"
)

// The records of the resource manager XLOG that walship looks into, as
// XLOG_… in src/include/catalog/pg_control.h.
const (
	infoXLOGCheckpointShutdown  = 0x00
	infoXLOGCheckpointOnline    = 0x10
	infoXLOGSwitch              = 0x40
	infoXLOGParameterChange     = 0x60
	infoXLOGRestorePoint        = 0x70
	infoXLOGEndOfRecovery       = 0x90
	infoXLOGOverwriteContRecord = 0xD0
)

// ControlKind says what a record of the resource manager XLOG is about.
type ControlKind uint8

// The kinds of control records that walship tells apart.
const (
	ControlCheckpointShutdown ControlKind = iota + 1
	ControlCheckpointOnline
	ControlSwitch
	ControlParameterChange
	ControlRestorePoint
	ControlEndOfRecovery
	ControlOverwriteContRecord
)

// ControlKind tells what a record of the resource manager XLOG is about, or
// false for any other record. It looks at the record's header alone.
func (r *Record) ControlKind() (ControlKind, bool) {
	if r.Resource != ResourceXLOG {
		return 0, false
	}
	switch r.Info &^ recordFlags {
	case infoXLOGCheckpointShutdown:
		return ControlCheckpointShutdown, true
	case infoXLOGCheckpointOnline:
		return ControlCheckpointOnline, true
	case infoXLOGSwitch:
		return ControlSwitch, true
	case infoXLOGParameterChange:
		return ControlParameterChange, true
	case infoXLOGRestorePoint:
		return ControlRestorePoint, true
	case infoXLOGEndOfRecovery:
		return ControlEndOfRecovery, true
	case infoXLOGOverwriteContRecord:
		return ControlOverwriteContRecord, true
	}
	return 0, false
}

// control starts to decode a record that must be of one of these kinds.
func (r *Record) control(c *Contents, kinds ...ControlKind) (cutter, error) {
	got, ok := r.ControlKind()
	for _, want := range kinds {
		if ok && got == want {
			return cutter{rest: c.Main}, nil
		}
	}
	return cutter{}, fmt.Errorf("decode record at %s: %w", r.LSN, errNotThatRecord)
}

// decoded ends the decoding of a record.
func (r *Record) decoded(cut cutter) error {
	if cut.short {
		return fmt.Errorf("decode record at %s: %w", r.LSN, errRecordLength)
	}
	return nil
}

// Checkpoint is what a checkpoint record says, as CheckPoint in
// src/include/catalog/pg_control.h.
type Checkpoint struct {
	Redo             LSN // where replay from this checkpoint starts
	Timeline         TimelineID
	PreviousTimeline TimelineID // another one if the record begins a timeline
	// NextXID is the next transaction's 64-bit id, read behind Redo: that
	// transaction and later ones write nothing before Redo.
	NextXID uint64
	Time    Timestamp // to the second
}

// Checkpoint decodes a record of ControlCheckpointShutdown or
// ControlCheckpointOnline; c is the record's contents.
func (r *Record) Checkpoint(c *Contents) (Checkpoint, error) {
	cut, err := r.control(c, ControlCheckpointShutdown, ControlCheckpointOnline)
	if err != nil {
		return Checkpoint{}, err
	}
	p := Checkpoint{
		Redo:             LSN(cut.uint64()),
		Timeline:         TimelineID(cut.uint32()),
		PreviousTimeline: TimelineID(cut.uint32()),
	}
	cut.bytes(8) // fullPageWrites, wal_level
	p.NextXID = cut.uint64()
	cut.bytes(32) // from nextOid to oldestMultiDB
	p.Time = Timestamp((int64(cut.uint64()) - unixOf2000) * 1e6)
	return p, r.decoded(cut)
}

// EndOfRecovery is what the record says that ends a recovery without a
// checkpoint, as xl_end_of_recovery in src/include/access/xlog_internal.h.
type EndOfRecovery struct {
	Time             Timestamp
	Timeline         TimelineID // the new one
	PreviousTimeline TimelineID // that it forked from
}

// EndOfRecovery decodes a record of ControlEndOfRecovery.
func (r *Record) EndOfRecovery(c *Contents) (EndOfRecovery, error) {
	cut, err := r.control(c, ControlEndOfRecovery)
	if err != nil {
		return EndOfRecovery{}, err
	}
	e := EndOfRecovery{
		Time:             Timestamp(cut.uint64()),
		Timeline:         TimelineID(cut.uint32()),
		PreviousTimeline: TimelineID(cut.uint32()),
	}
	return e, r.decoded(cut)
}

// RestorePoint is a named moment, as xl_restore_point in
// src/include/access/xlog_internal.h.
type RestorePoint struct {
	LSN  LSN // of the record's first byte
	Time Timestamp
	Name string // at most 63 bytes
}

// restorePointNameSize is that of rp_name (MAXFNAMELEN).
const restorePointNameSize = 64

// RestorePoint decodes a record of ControlRestorePoint.
func (r *Record) RestorePoint(c *Contents) (RestorePoint, error) {
	cut, err := r.control(c, ControlRestorePoint)
	if err != nil {
		return RestorePoint{}, err
	}
	p := RestorePoint{LSN: r.LSN, Time: Timestamp(cut.uint64())}
	p.Name, _, _ = cutString(cut.bytes(restorePointNameSize))
	return p, r.decoded(cut)
}

// Parameters are the settings that a standby must match, as
// xl_parameter_change in src/include/access/xlog_internal.h.
type Parameters struct {
	MaxConnections          int32
	MaxWorkerProcesses      int32
	MaxWALSenders           int32
	MaxPreparedTransactions int32
	MaxLocksPerTransaction  int32
	WALLevel                int32 // 0 minimal, 1 replica, 2 logical
	WALLogHints             bool
	TrackCommitTimestamp    bool
}

// ParameterChange decodes a record of ControlParameterChange.
func (r *Record) ParameterChange(c *Contents) (Parameters, error) {
	cut, err := r.control(c, ControlParameterChange)
	if err != nil {
		return Parameters{}, err
	}
	p := Parameters{
		MaxConnections:          int32(cut.uint32()),
		MaxWorkerProcesses:      int32(cut.uint32()),
		MaxWALSenders:           int32(cut.uint32()),
		MaxPreparedTransactions: int32(cut.uint32()),
		MaxLocksPerTransaction:  int32(cut.uint32()),
		WALLevel:                int32(cut.uint32()),
		WALLogHints:             cut.byte() != 0,
		TrackCommitTimestamp:    cut.byte() != 0,
	}
	return p, r.decoded(cut)
}

// OverwrittenContRecord decodes a record of ControlOverwriteContRecord: it
// returns where the record started that a crash left unfinished, as
// xl_overwrite_contrecord in src/include/access/xlog_internal.h.
func (r *Record) OverwrittenContRecord(c *Contents) (LSN, error) {
	cut, err := r.control(c, ControlOverwriteContRecord)
	if err != nil {
		return 0, err
	}
	lsn := LSN(cut.uint64())
	return lsn, r.decoded(cut)
}
