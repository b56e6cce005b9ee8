package wal

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Timestamp is a moment as WAL records it, as TimestampTz in
// src/include/datatype/timestamp.h: microseconds since 2000-01-01 00:00 UTC.
type Timestamp int64

// unixOf2000 is 2000-01-01 00:00 UTC in seconds since 1970.
const unixOf2000 = 946684800

// Time returns t as a time in UTC.
func (t Timestamp) Time() time.Time {
	seconds, micros := int64(t)/1e6, int64(t)%1e6
	return time.Unix(unixOf2000+seconds, micros*1000).UTC()
}

// TimestampOf returns the moment t, cut to microseconds.
func TimestampOf(t time.Time) Timestamp {
	return Timestamp((t.Unix()-unixOf2000)*1e6 + int64(t.Nanosecond())/1e3)
}

// String writes a moment in UTC, to the microsecond.
func (t Timestamp) String() string {
	return t.Time().Format("2006-01-02 15:04:05.000000Z07:00")
}

// TransactionAction is what a record says of a transaction.
type TransactionAction uint8

// The records that end a transaction, or prepare to. All but ActionPrepare
// can stop a recovery.
const (
	ActionCommit TransactionAction = iota + 1
	ActionAbort
	ActionPrepare
	ActionCommitPrepared
	ActionAbortPrepared
)

// String names an action as pg_waldump does.
func (a TransactionAction) String() string {
	switch a {
	case ActionCommit:
		return "COMMIT"
	case ActionAbort:
		return "ABORT"
	case ActionPrepare:
		return "PREPARE"
	case ActionCommitPrepared:
		return "COMMIT_PREPARED"
	case ActionAbortPrepared:
		return "ABORT_PREPARED"
	}
	return "UNKNOWN"
}

const (
	transactionOpcode  = 0x70 // XLOG_XACT_OPMASK
	transactionHasInfo = 0x80 // XLOG_XACT_HAS_INFO
)

// TransactionAction tells whether the record ends or prepares a transaction,
// and how. It looks at the record's header alone.
func (r *Record) TransactionAction() (TransactionAction, bool) {
	if r.Resource != ResourceTransaction {
		return 0, false
	}
	switch r.Info & transactionOpcode {
	case 0x00: // XLOG_XACT_COMMIT
		return ActionCommit, true
	case 0x10: // XLOG_XACT_PREPARE
		return ActionPrepare, true
	case 0x20: // XLOG_XACT_ABORT
		return ActionAbort, true
	case 0x30: // XLOG_XACT_COMMIT_PREPARED
		return ActionCommitPrepared, true
	case 0x40: // XLOG_XACT_ABORT_PREPARED
		return ActionAbortPrepared, true
	}
	return 0, false
}

// Transaction is what a record that ends or prepares a transaction says, as
// xl_xact_commit, xl_xact_abort and xl_xact_prepare in
// src/include/access/xact.h.
type Transaction struct {
	Action   TransactionAction
	Time     Timestamp
	XID      uint32 // that recovery_target_xid is compared with: of a prepared transaction, its own
	Database uint32 // OID; 0 where the record doesn't say
	GID      string // of a prepared transaction
	// Subtransactions end with it. An abort may itself be a subtransaction's.
	Subtransactions []uint32
	// Dropped are the relation files that are removed at the end of the
	// transaction: on commit what it dropped, on abort what it created.
	// A prepare lists what a later commit would remove.
	Dropped []RelFile
	// DroppedOnAbort lists, for a prepare, what a later abort would remove.
	DroppedOnAbort []RelFile
}

// The parts of a commit or abort record, by flags of xinfo: XACT_XINFO_….
const (
	hasDatabase        = 1 << 0
	hasSubtransactions = 1 << 1
	hasRelFiles        = 1 << 2
	hasInvalidations   = 1 << 3
	hasTwoPhase        = 1 << 4
	hasGID             = 1 << 7
	hasDroppedStats    = 1 << 8 // from 15 on
)

const (
	relFileSize      = 12
	invalidationSize = 16 // of a SharedInvalidationMessage
	magic18          = 0xD118
)

// statsItemSize is the size of an xl_xact_stats_item.
func statsItemSize(magic uint16) int {
	if magic >= magic18 {
		return 16
	}
	return 12
}

// Transaction decodes a record for which TransactionAction reports true; c is
// the record's contents.
func (r *Record) Transaction(c *Contents) (Transaction, error) {
	action, ok := r.TransactionAction()
	if !ok {
		return Transaction{}, fmt.Errorf("decode record at %s: it doesn't end a transaction", r.LSN)
	}
	decode := r.ended
	if action == ActionPrepare {
		decode = r.prepared
	}
	t, err := decode(action, cutter{rest: c.Main})
	if err != nil {
		return Transaction{}, fmt.Errorf("decode %s at %s: %w", action, r.LSN, err)
	}
	return t, nil
}

// ended reads a commit or abort record, as ParseCommitRecord and
// ParseAbortRecord in src/backend/access/rmgrdesc/xactdesc.c.
func (r *Record) ended(action TransactionAction, cut cutter) (Transaction, error) {
	t := Transaction{Action: action, XID: r.XID, Time: Timestamp(cut.uint64())}
	flags := uint32(0)
	if r.Info&transactionHasInfo != 0 {
		flags = cut.uint32()
	}
	if flags&hasDatabase != 0 {
		t.Database = cut.uint32()
		cut.uint32() // its default tablespace
	}
	if flags&hasSubtransactions != 0 {
		t.Subtransactions = cut.numbers(cut.uint32())
	}
	if flags&hasRelFiles != 0 {
		t.Dropped = cut.relFiles(cut.uint32())
	}
	if flags&hasDroppedStats != 0 {
		cut.skip(cut.uint32(), statsItemSize(r.magic))
	}
	if flags&hasInvalidations != 0 {
		cut.skip(cut.uint32(), invalidationSize)
	}
	if flags&hasTwoPhase != 0 {
		t.XID = cut.uint32()
		if flags&hasGID != 0 {
			t.GID = cut.cstring()
		}
	}
	if cut.short {
		return Transaction{}, errRecordLength
	}
	return t, nil
}

// prepared reads an xl_xact_prepare and what follows it, each part aligned.
func (r *Record) prepared(action TransactionAction, cut cutter) (Transaction, error) {
	t := Transaction{Action: action}
	cut.bytes(8) // magic, total_len
	t.XID = cut.uint32()
	t.Database = cut.uint32()
	t.Time = Timestamp(cut.uint64())
	cut.bytes(4) // owner
	subtransactions, onCommit, onAbort := cut.uint32(), cut.uint32(), cut.uint32()
	if r.magic >= magic15 {
		cut.bytes(8) // ncommitstats, nabortstats
	}
	cut.bytes(6)                                    // ninvalmsgs, initfileinval, padding
	gid := cut.bytes(align(int(cut.uint16()) + 16)) // gidlen counts the zero at its end; origin_lsn, origin_timestamp
	if cut.short {
		return Transaction{}, errRecordLength
	}
	t.GID, _, _ = cutString(gid[16:])
	t.Subtransactions = cut.numbers(subtransactions)
	cut.pad(subtransactions, 4)
	t.Dropped = cut.relFiles(onCommit)
	cut.pad(onCommit, relFileSize)
	t.DroppedOnAbort = cut.relFiles(onAbort)
	if cut.short {
		return Transaction{}, errRecordLength
	}
	return t, nil
}

// endTime reads the time of a record that ends a transaction, from its main
// data.
func endTime(main []byte) (Timestamp, error) {
	cut := cutter{rest: main}
	t := Timestamp(cut.uint64())
	if cut.short {
		return 0, errRecordLength
	}
	return t, nil
}

// skip passes over count items.
func (c *cutter) skip(count uint32, size int) {
	c.items(count, size)
}

// items cuts off count items; their number is bounded by what is there.
func (c *cutter) items(count uint32, size int) []byte {
	if int64(count)*int64(size) > int64(len(c.rest)) {
		c.short, c.rest = true, nil
		return nil
	}
	return c.bytes(int(count) * size)
}

// pad passes over what aligns the item behind count items.
func (c *cutter) pad(count uint32, size int) {
	if n := int64(count) * int64(size); n%8 != 0 && !c.short {
		c.bytes(int(8 - n%8))
	}
}

func (c *cutter) numbers(count uint32) []uint32 {
	items := cutter{rest: c.items(count, 4)}
	if len(items.rest) == 0 {
		return nil
	}
	numbers := make([]uint32, 0, count)
	for len(items.rest) > 0 {
		numbers = append(numbers, items.uint32())
	}
	return numbers
}

func (c *cutter) relFiles(count uint32) []RelFile {
	items := cutter{rest: c.items(count, relFileSize)}
	if len(items.rest) == 0 {
		return nil
	}
	files := make([]RelFile, 0, count)
	for len(items.rest) > 0 {
		files = append(files, items.relFile())
	}
	return files
}

// cstring cuts off a string that a zero byte ends.
func (c *cutter) cstring() string {
	s, rest, ok := cutString(c.rest)
	if !ok {
		c.short = true
	}
	c.rest = rest
	return s
}

func cutString(data []byte) (s string, rest []byte, ok bool) {
	before, rest, ok := bytes.Cut(data, []byte{0})
	return string(before), rest, ok
}

var errNotThatRecord = errors.New("it is a record of another kind")
