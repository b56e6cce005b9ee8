//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// oracleRecord is a record of the archived WAL that a target may name.
type oracleRecord struct {
	LSN, End       wal.LSN
	Timeline       wal.TimelineID // that it was written on
	Action         wal.TransactionAction
	XID            uint32
	Time           wal.Timestamp
	Subtransaction uint32 // one of those that ended with it
	Name           string // of a restore point
}

func (r oracleRecord) commits() bool {
	return r.Action == wal.ActionCommit || r.Action == wal.ActionCommitPrepared
}

// readPath reads the records of the way to a timeline, from a position on,
// as far as they were archived.
func (a *oracleArchive) readPath(t *testing.T, timeline wal.TimelineID, from wal.LSN) []oracleRecord {
	t.Helper()
	const size = 1 << 20
	history := a.history(t, timeline)
	var segments []io.Reader
	for n := wal.SegmentNumber(from, size); ; n++ {
		file, err := os.Open(filepath.Join(a.dir, "wal", wal.SegmentName(history.SegmentTimeline(n, size), n, size).String()))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		segments = append(segments, file)
	}
	reader, err := wal.NewReader(io.MultiReader(segments...))
	if err != nil {
		t.Fatal(err)
	}
	var records []oracleRecord
	var contents wal.Contents
	for {
		record, err := reader.Next()
		if _, invalid := errors.AsType[*wal.InvalidError](err); invalid || errors.Is(err, io.EOF) || errors.Is(err, wal.ErrUnfinished) {
			return records
		}
		if err == nil {
			err = record.Decode(&contents)
		}
		if err != nil {
			t.Fatalf("read the WAL of timeline %d: %v", timeline, err)
		}
		entry, err := oracleRecordOf(record, &contents)
		if err != nil {
			t.Fatal(err)
		}
		entry.Timeline = history.TimelineAt(record.LSN)
		records = append(records, entry)
	}
}

// history reads the history file of a timeline as PostgreSQL archived it.
func (a *oracleArchive) history(t *testing.T, timeline wal.TimelineID) wal.History {
	t.Helper()
	history := wal.History{Timeline: timeline}
	if timeline > 1 {
		data, err := os.ReadFile(filepath.Join(a.dir, "wal", wal.HistoryName(timeline).String()))
		if err == nil {
			history, err = wal.ParseHistory(timeline, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return history
}

func oracleRecordOf(r *wal.Record, c *wal.Contents) (oracleRecord, error) {
	o := oracleRecord{LSN: r.LSN, End: r.Next}
	if _, ok := r.TransactionAction(); ok {
		transaction, err := r.Transaction(c)
		o.Action, o.XID, o.Time = transaction.Action, transaction.XID, transaction.Time
		if n := len(transaction.Subtransactions); n > 0 {
			o.Subtransaction = transaction.Subtransactions[n-1]
		}
		return o, err
	}
	if kind, ok := r.ControlKind(); ok && kind == wal.ControlRestorePoint {
		point, err := r.RestorePoint(c)
		o.Name = point.Name
		return o, err
	}
	return o, nil
}

// oracleBackup is what backup list says of one.
type oracleBackup struct {
	ID        string
	Timeline  wal.TimelineID
	StartLSN  wal.LSN   `json:"start_lsn"`
	StopLSN   wal.LSN   `json:"stop_lsn"`
	StartTime time.Time `json:"start_time"`
	StopTime  time.Time `json:"stop_time"`
}

func (a *oracleArchive) backups(t *testing.T) []oracleBackup {
	t.Helper()
	var list struct{ Backups []oracleBackup }
	if err := json.Unmarshal([]byte(a.walship(t, "backup", "list", "--json").Stdout), &list); err != nil {
		t.Fatal(err)
	}
	return list.Backups
}

// oracleTarget is one wish: the flags of restore, and the settings that
// PostgreSQL is given where walship refuses.
type oracleTarget struct {
	flags    []string
	setting  string // recovery_target, or with _time, _lsn, …; "" for the latest
	value    string
	lsn      wal.LSN
	timeline string // a number, latest or current
	backup   string // "": walship chooses
	inclusive,
	promotes bool
}

// namesRecord tells whether the target names a record: an LSN, a transaction or a
// restore point.
func (o oracleTarget) namesRecord() bool {
	return o.setting == "recovery_target_lsn" || o.setting == "recovery_target_xid" || o.setting == "recovery_target_name"
}

// chooser makes random targets.
type chooser struct {
	*oracleArchive
	all   []oracleBackup
	paths map[wal.TimelineID][]oracleRecord
}

func (a *oracleArchive) chooser(t *testing.T) *chooser {
	t.Helper()
	c := &chooser{oracleArchive: a, all: a.backups(t), paths: map[wal.TimelineID][]oracleRecord{}}
	for timeline := wal.TimelineID(1); timeline <= a.facts.Timelines; timeline++ {
		c.paths[timeline] = a.readPath(t, timeline, c.all[0].StartLSN)
	}
	return c
}

// pick returns a record of any timeline for which ok holds.
func (c *chooser) pick(ok func(oracleRecord) bool) oracleRecord {
	path := c.paths[1+wal.TimelineID(c.random.IntN(int(c.facts.Timelines)))]
	path = slices.DeleteFunc(slices.Clone(path), func(r oracleRecord) bool { return !ok(r) })
	if len(path) == 0 {
		return oracleRecord{}
	}
	return path[c.random.IntN(len(path))]
}

// target makes one.
func (c *chooser) target() oracleTarget {
	target := oracleTarget{inclusive: c.random.IntN(3) > 0, promotes: c.random.IntN(2) == 0}
	switch kind := c.random.IntN(20); {
	case kind < 8:
		target.setting, target.value = "recovery_target_time", c.time()
		target.flags = []string{"--to-time", target.value}
	case kind < 12:
		target.lsn = c.lsn()
		target.setting, target.value = "recovery_target_lsn", target.lsn.String()
		target.flags = []string{"--to-lsn", target.value}
	case kind < 16:
		target.setting, target.value = "recovery_target_xid", strconv.FormatUint(uint64(c.xid()), 10)
		target.flags = []string{"--to-xid", target.value}
	case kind < 18:
		target.setting, target.value = "recovery_target_name", c.name()
		target.flags, target.inclusive = []string{"--to-name", target.value}, true
	case kind < 19:
		target.setting, target.value = "recovery_target", "immediate"
		target.flags, target.inclusive = []string{"--immediate"}, true
	default:
		target.flags, target.inclusive = []string{"--to-latest"}, true
	}
	if !target.inclusive {
		target.flags = append(target.flags, "--exclusive")
	}
	if target.promotes {
		target.flags = append(target.flags, "--target-action", "promote")
	}
	target.timeline = []string{"latest", "current"}[c.random.IntN(2)]
	if c.random.IntN(10) < 7 {
		target.timeline = strconv.Itoa(1 + c.random.IntN(int(c.facts.Timelines)))
	}
	target.flags = append(target.flags, "--timeline", target.timeline)
	if c.random.IntN(4) == 0 {
		target.backup = c.all[c.random.IntN(len(c.all))].ID
		target.flags = append(target.flags, "--backup", target.backup)
	}
	return target
}

// time is one at, right beside, or between the ends of transactions, or around
// the end of a backup, or before or behind everything.
func (c *chooser) time() string {
	ends := func(r oracleRecord) bool { return r.Action != 0 && r.Action != wal.ActionPrepare }
	at := c.pick(ends).Time.Time()
	switch c.random.IntN(12) {
	case 0, 1:
		at = at.Add(time.Microsecond)
	case 2, 3:
		at = at.Add(-time.Microsecond)
	case 4, 5:
		at = at.Add(time.Duration(c.random.IntN(200_000)) * time.Microsecond)
	case 6:
		b := c.all[c.random.IntN(len(c.all))]
		at = b.StartTime.Add(time.Duration(c.random.Float64() * float64(b.StopTime.Sub(b.StartTime)) * 1.2))
	case 7:
		at = []time.Time{c.all[0].StartTime.Add(-time.Second), c.lastTime().Add(time.Microsecond)}[c.random.IntN(2)]
	}
	return at.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// lastTime is the latest end of a transaction on any timeline.
func (c *chooser) lastTime() time.Time {
	var last wal.Timestamp
	for _, path := range c.paths {
		for _, r := range path {
			last = max(last, r.Time)
		}
	}
	return last.Time()
}

// lsn is one at the beginning or the end of a record, or inside of it.
func (c *chooser) lsn() wal.LSN {
	which := func(oracleRecord) bool { return true }
	if c.random.IntN(2) == 0 {
		which = func(r oracleRecord) bool { return r.Action != 0 }
	}
	r := c.pick(which)
	switch c.random.IntN(10) {
	case 0, 1, 2, 3, 4:
		return r.LSN
	case 5, 6:
		return r.LSN + 1 + wal.LSN(c.random.IntN(int(min(r.End-r.LSN, 1000))))
	case 7:
		path := c.paths[c.facts.Timelines]
		return path[len(path)-1].End + wal.LSN(c.random.IntN(4))*0x1000
	case 8:
		b := c.all[c.random.IntN(len(c.all))]
		return b.StopLSN - wal.LSN(c.random.IntN(2))
	}
	return r.End
}

// xid is one of a transaction that ended in any way, of a subtransaction, or
// one that never was.
func (c *chooser) xid() uint32 {
	var xid uint32
	switch c.random.IntN(10) {
	case 0:
		xid = c.pick(func(r oracleRecord) bool { return r.Action == wal.ActionAbort }).XID
	case 1:
		xid = c.pick(func(r oracleRecord) bool { return r.Subtransaction != 0 }).Subtransaction
	case 2:
		xid = c.pick(func(r oracleRecord) bool { return r.Action == wal.ActionPrepare }).XID
	case 3:
		xid = c.pick(func(r oracleRecord) bool { return r.Action == wal.ActionCommitPrepared }).XID
	case 4:
		xid = c.pick(oracleRecord.commits).XID + 100_000
	}
	if xid == 0 { // there is none of that kind
		xid = c.pick(oracleRecord.commits).XID
	}
	return xid
}

func (c *chooser) name() string {
	if point := c.pick(func(r oracleRecord) bool { return r.Name != "" }); point.Name != "" && c.random.IntN(5) > 0 {
		return point.Name
	}
	return fmt.Sprintf("point %c", 'a'+c.random.IntN(6))
}
