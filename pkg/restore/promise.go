package restore

import (
	"time"

	"github.com/walship/walship/pkg/wal"
)

// Promise is what a restore is going to end with, by PostgreSQL's own rules
// and what the archived WAL says.
type Promise struct {
	// Reachable tells whether recovery stops at the target, or, for the
	// latest, ends consistent, and with all WAL or where that was accepted
	// before a gap. Where it doesn't, the plan has Problems.
	Reachable bool `json:"reachable"`
	// Certified tells whether the rest was read from the WAL itself, and all
	// WAL from the backup's redo point to the stop was taken into account: that
	// no record of it stops recovery earlier, by the summaries in the segments'
	// headers, which only a deep plan holds against the WAL. Where it isn't, the
	// plan says in its notes what isn't known.
	Certified bool `json:"certified"`
	// Stop is where recovery stops; nil if that is the end of the WAL, or not
	// known.
	Stop *Stop `json:"stop"`
	// LastIn is the last transaction that is committed in the restored
	// cluster, in the order of WAL: nil if none committed since the backup's
	// redo point, or if it isn't known. FirstOut is the first that isn't there
	// any more; nil if no later one is archived, or if it isn't known.
	LastIn   *Ending `json:"last_in"`
	FirstOut *Ending `json:"first_out"`
	// PendingPrepared are transactions that are prepared at the stop, and
	// neither committed nor rolled back: they hold their locks, and wait for
	// COMMIT PREPARED or ROLLBACK PREPARED. PreparedKnown tells whether all
	// are listed.
	PendingPrepared []Prepared `json:"pending_prepared"`
	PreparedKnown   bool       `json:"pending_prepared_known"`
	// EndsAt is where recovery ends: behind the last record that is replayed.
	// A promotion begins its timeline there. 0 if it isn't known.
	EndsAt wal.LSN `json:"ends_at_lsn"`
	// Range is what can be reached from this backup along this path, Nearest
	// the commits beside a target that can't be; both nil where they weren't
	// looked for.
	Range   *Range   `json:"reachable_range"`
	Nearest *Nearest `json:"nearest"`
	// Choices are what the timelines lead to that hold the target, the
	// plan's first, where there are several and none was asked for; the plan
	// then has a Problem.
	Choices []Choice `json:"choices,omitempty"`
}

// Ending is how a transaction ended, as one record says it.
type Ending struct {
	Kind     string         `json:"kind"` // commit, abort, commit prepared, abort prepared
	Time     time.Time      `json:"time"` // UTC
	XID      uint32         `json:"xid"`  // that --to-xid names
	LSN      wal.LSN        `json:"lsn"`  // of the record's first byte
	EndLSN   wal.LSN        `json:"end_lsn"`
	Timeline wal.TimelineID `json:"timeline"`
	GID      string         `json:"gid,omitempty"`
}

// Stop is the record at which recovery stops.
type Stop struct {
	// Kind is that of the transaction's end, as in Ending, "restore point",
	// "consistency" for the end of the backup, or "record" for any other
	// record that a target LSN stops at.
	Kind   string    `json:"kind"`
	Before bool      `json:"before"`        // it isn't replayed any more
	Time   time.Time `json:"time,omitzero"` // of a transaction's end or a restore point
	XID    uint32    `json:"xid,omitempty"`
	Name   string    `json:"name,omitempty"` // of a restore point
	LSN    wal.LSN   `json:"lsn"`
	EndLSN wal.LSN   `json:"end_lsn"`
}

// Prepared is a prepared transaction.
type Prepared struct {
	XID uint32 `json:"xid"`
	// What its PREPARE says; missing for one that was prepared before the
	// backup began.
	GID      string    `json:"gid,omitempty"`
	Time     time.Time `json:"time,omitzero"`
	LSN      wal.LSN   `json:"lsn,omitzero"`
	Database uint32    `json:"database,omitempty"` // its OID
}

// Range is what can be reached: LSNs from FromLSN to ToLSN, and times from
// FromTime to before ToTime.
type Range struct {
	FromLSN  wal.LSN   `json:"from_lsn"`
	FromTime time.Time `json:"from_time"`        // when the backup had ended
	ToLSN    wal.LSN   `json:"to_lsn"`           // behind the last record that is archived
	ToTime   time.Time `json:"to_time,omitzero"` // the latest end of a transaction; missing if none is archived
}

// Nearest are the commits beside a target: nil where there is none.
type Nearest struct {
	Before *Ending `json:"before"`
	After  *Ending `json:"after"`
}

// The kinds of endings, as wal search names them.
var endingKinds = map[wal.TransactionAction]string{
	wal.ActionCommit: "commit", wal.ActionAbort: "abort",
	wal.ActionCommitPrepared: "commit prepared", wal.ActionAbortPrepared: "abort prepared",
}

// committed tells whether a transaction's end is a commit.
func committed(action wal.TransactionAction) bool {
	return action == wal.ActionCommit || action == wal.ActionCommitPrepared
}
