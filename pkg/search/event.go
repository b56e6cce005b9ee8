package search

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// Kind says what an event is.
type Kind string

// The kinds of events.
const (
	KindCommit         Kind = "commit"
	KindAbort          Kind = "abort"
	KindPrepare        Kind = "prepare"
	KindCommitPrepared Kind = "commit prepared"
	KindAbortPrepared  Kind = "abort prepared"
	KindRestorePoint   Kind = "restore point"
	KindCheckpoint     Kind = "checkpoint"
)

// Event is one thing that happened, as one record of WAL says it.
type Event struct {
	Kind     Kind           `json:"kind"`
	Time     time.Time      `json:"time"`    // UTC
	LSN      wal.LSN        `json:"lsn"`     // of the record's first byte
	EndLSN   wal.LSN        `json:"end_lsn"` // behind the record
	Timeline wal.TimelineID `json:"timeline"`
	Segment  string         `json:"segment"` // where the record starts

	// Of a transaction.
	XID             uint32     `json:"xid,omitempty"`           // that a restore's --to-xid names
	TopLevelXID     uint32     `json:"top_level_xid,omitempty"` // of a subtransaction's abort, where WAL says it
	Subtransactions []uint32   `json:"subtransactions,omitempty"`
	Database        uint32     `json:"database,omitempty"` // OID, where WAL says it
	GID             string     `json:"gid,omitempty"`
	DroppedFiles    []string   `json:"dropped_files,omitempty"` // tablespace/database/number
	Relations       []Relation `json:"relations,omitempty"`     // whose files those are; in a search for them

	Begun wal.LSN `json:"begin_lsn,omitzero"` // from where on a database that it dropped couldn't be used, where that is known

	Name string `json:"name,omitempty"` // of a restore point

	// Of a checkpoint.
	Redo     wal.LSN `json:"redo_lsn,omitzero"` // where it began
	Shutdown bool    `json:"shutdown,omitempty"`

	dropped []wal.RelFile
}

// Change says what became of a relation's file.
type Change string

// What can become of it.
const (
	ChangeDrop     Change = "drop"     // the relation is gone
	ChangeTruncate Change = "truncate" // TRUNCATE emptied it
	ChangeRewrite  Change = "rewrite"  // its rows moved to another file: VACUUM FULL, CLUSTER, REINDEX, ALTER TABLE …
	ChangeUnknown  Change = "unknown file dropped"
)

// Relation is what a transaction removed a file of, or a partitioned table that
// was dropped with such. What isn't known of it is empty.
type Relation struct {
	Change    Change      `json:"change"`
	Kind      string      `json:"kind,omitempty"` // table, partitioned table, index, TOAST table, sequence, materialized view, database
	Schema    string      `json:"schema,omitempty"`
	Name      string      `json:"name,omitempty"`
	SchemaOID uint32      `json:"schema_oid,omitempty"`
	OID       uint32      `json:"oid,omitempty"`
	File      wal.RelFile `json:"-"`
	FileName  string      `json:"file,omitempty"`  // tablespace/database/number
	Parts     []Relation  `json:"parts,omitempty"` // its indexes and its TOAST table, as far as that is known
}

// Lost tells whether rows are gone with the file, as far as is known.
func (r Relation) Lost() bool {
	return (r.Change == ChangeDrop || r.Change == ChangeTruncate) && r.Kind != kindIndex || r.Change == ChangeUnknown
}

// publicOID is the OID of the schema that is created under the name public.
const publicOID = 2200

// Title names a relation for people, and says what isn't known of its name.
func (r Relation) Title() string {
	switch {
	case r.Name == "" && r.FileName == "":
		return "OID " + strconv.FormatUint(uint64(r.OID), 10) + ", name unknown"
	case r.Name == "":
		return "file " + r.FileName + ", name unknown"
	case r.Schema != "":
		return quoteName(r.Schema) + "." + quoteName(r.Name)
	case r.SchemaOID == publicOID:
		return quoteName(r.Name) + " in schema 2200 (public, unless that was renamed)"
	}
	return fmt.Sprintf("%s in schema %d", quoteName(r.Name), r.SchemaOID)
}

// quoteName writes a name as SQL needs it.
func quoteName(name string) string {
	plain := name != "" && (name[0] < '0' || name[0] > '9')
	for _, c := range []byte(name) {
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_')
	}
	if plain {
		return name
	}
	// Control characters would play tricks on a terminal.
	name = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '\uFFFD'
		}
		return c
	}, name)
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// RestoreFlags are the flags of walship restore that end recovery right before
// the transaction. They are nil where that would save nothing.
// A database is gone before its transaction commits.
func (e *Event) RestoreFlags() []string {
	switch {
	case !slices.ContainsFunc(e.Relations, Relation.Lost):
		return nil
	case !slices.ContainsFunc(e.Relations, func(r Relation) bool { return r.Kind == kindDatabase }):
	case e.Begun == 0:
		return nil
	default:
		return []string{"--to-lsn", e.Begun.String(), "--exclusive"}
	}
	return []string{"--to-xid", strconv.FormatUint(uint64(e.XID), 10), "--exclusive"}
}

// event returns what a record says, if it is looked for.
func (s *searcher) event(r *wal.Record, c *wal.Contents) (Event, bool, error) {
	q := &s.query
	if !q.covers(r.LSN) {
		return Event{}, false, nil
	}
	action, ends := r.TransactionAction()
	control, controls := r.ControlKind()
	switch {
	case ends && (q.Facts == Transactions || q.Facts == Dropped):
		return s.transaction(r, c, action)
	case controls && control == wal.ControlRestorePoint && q.Facts == RestorePoints:
		if err := r.Decode(c); err != nil {
			return Event{}, false, err
		}
		point, err := r.RestorePoint(c)
		e := s.newEvent(r, KindRestorePoint, point.Time)
		e.Name = point.Name
		return e, q.holds(point.Time), err
	case controls && (control == wal.ControlCheckpointOnline || control == wal.ControlCheckpointShutdown) && q.Facts == Checkpoints:
		if err := r.Decode(c); err != nil {
			return Event{}, false, err
		}
		checkpoint, err := r.Checkpoint(c)
		e := s.newEvent(r, KindCheckpoint, checkpoint.Time)
		e.Redo, e.Shutdown = checkpoint.Redo, control == wal.ControlCheckpointShutdown
		return e, q.holds(checkpoint.Time), err
	}
	return Event{}, false, nil
}

func (s *searcher) newEvent(r *wal.Record, kind Kind, at wal.Timestamp) Event {
	return Event{
		Kind: kind, Time: at.Time(), LSN: r.LSN, EndLSN: r.Next, Timeline: s.query.History.TimelineAt(r.LSN),
		Segment: s.name(wal.SegmentNumber(r.LSN, s.segmentSize)).String(),
	}
}

// transaction returns how a transaction ended. A search that is bounded in
// time leaves PREPARE out: summaries don't count it, so that it would be found
// only now and then.
func (s *searcher) transaction(r *wal.Record, c *wal.Contents, action wal.TransactionAction) (Event, bool, error) {
	q := &s.query
	if action == wal.ActionPrepare && (q.timed() || q.Facts != Transactions) {
		return Event{}, false, nil
	}
	if err := r.Decode(c); err != nil {
		return Event{}, false, err
	}
	t, err := r.Transaction(c)
	if err != nil {
		return Event{}, false, err
	}
	if !q.holds(t.Time) || q.XID != 0 && t.XID != q.XID && !slices.Contains(t.Subtransactions, q.XID) {
		return Event{}, false, nil
	}
	e := s.newEvent(r, kindOf(action), t.Time)
	e.XID, e.Subtransactions, e.Database, e.GID = t.XID, t.Subtransactions, t.Database, t.GID
	if c.TopLevelXID != t.XID {
		e.TopLevelXID = c.TopLevelXID
	}
	e.dropped = t.Dropped
	for _, file := range t.Dropped {
		e.DroppedFiles = append(e.DroppedFiles, file.String())
	}
	return e, true, nil
}

func kindOf(action wal.TransactionAction) Kind {
	switch action {
	case wal.ActionAbort:
		return KindAbort
	case wal.ActionPrepare:
		return KindPrepare
	case wal.ActionCommitPrepared:
		return KindCommitPrepared
	case wal.ActionAbortPrepared:
		return KindAbortPrepared
	}
	return KindCommit
}
