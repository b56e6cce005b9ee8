package search

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Loss is a relation that a transaction took the rows of.
type Loss struct {
	Event    Event
	Relation Relation
}

// Database is the OID of the database that the relation was in; 0 if that isn't
// known.
func (l Loss) Database() uint32 {
	if l.Relation.File.Database != 0 {
		return l.Relation.File.Database
	}
	return l.Event.Database
}

// String says what the transaction did, to all relations whose rows it took.
func (l Loss) String() string {
	var names []string
	for _, r := range l.Event.Relations {
		if r.Lost() && r.Name != "" {
			names = append(names, r.Title())
		}
	}
	did := "dropped"
	if l.Relation.Change == ChangeTruncate {
		did = "truncated"
	}
	return fmt.Sprintf("transaction %d of database %d %s %s, and committed at %s, LSN %s", l.Event.XID, l.Database(), did,
		strings.Join(names, ", "), l.Event.Time.UTC().Format("2006-01-02 15:04:05.999999+00"), l.Event.LSN)
}

// AmbiguousError says that a name stands for tables of several databases or
// schemas.
type AmbiguousError struct {
	Table  Table
	Losses []Loss // at least two, in the order of WAL
}

func (e *AmbiguousError) Error() string {
	const most = 8
	var texts []string
	if n := len(e.Losses) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("%d older ones that walship wal search --dropped lists", n))
	}
	for _, l := range e.Losses[max(0, len(e.Losses)-most):] {
		texts = append(texts, l.String())
	}
	return fmt.Sprintf("%s can be any of several tables: %s", e.Table, strings.Join(texts, "; "))
}

// ErrNoBackup says that no backup lies on a path, so that nothing of it can be
// restored.
var ErrNoBackup = errors.New("there is no backup on the way")

// Missing says which tables are looked for, and what happened to them.
type Missing struct {
	Tables []Table
	Change Change // that took their rows: ChangeDrop or ChangeTruncate
	// Database is the OID of the one that they were in; 0: of any.
	Database uint32
	// Backup is the id of the one behind which alone is looked; "": behind all.
	Backup string
}

// Lost looks for the transactions of a path that dropped or truncated tables, and
// returns for each table those of the newest stretch of WAL in which there are
// any, in their order: see Settle. A stretch goes from one backup of the path to
// the next.
func Lost(ctx context.Context, r *repo.Repository, q Query, o Options, m Missing) ([][]Loss, *Report, error) {
	whole, found := &Report{Warnings: []string{}}, make([][]Loss, len(m.Tables))
	starts, err := stretches(ctx, r, q, m.Backup)
	if err != nil {
		return nil, whole, err
	}
	for i, from := range slices.Backward(starts) {
		q.Facts, q.FromLSN, q.ToLSN = Dropped, from, 0
		if i+1 < len(starts) {
			q.ToLSN = starts[i+1] - 1
		}
		now := make([][]Loss, len(m.Tables))
		report, err := Run(ctx, r, q, o, func(e Event) error {
			for i, table := range m.Tables {
				if lost := table.lostBy(e, m.Change, m.Database); lost != nil && found[i] == nil {
					now[i] = append(now[i], *lost)
				}
			}
			return nil
		})
		whole.add(report)
		if err != nil {
			return nil, whole, err
		}
		all := true
		for i := range m.Tables {
			found[i] = append(found[i], now[i]...)
			all = all && found[i] != nil
		}
		if all {
			break
		}
	}
	return found, whole, nil
}

// stretches returns where the backups of a path begin, in ascending order.
func stretches(ctx context.Context, r *repo.Repository, q Query, backup string) ([]wal.LSN, error) {
	backups, err := r.Backups(ctx, q.SystemID)
	if err != nil {
		return nil, err
	}
	var starts []wal.LSN
	for _, b := range backups {
		if q.History.Contains(b.Timeline, b.StopLSN-1) && (backup == "" || b.ID == backup) {
			starts = append(starts, b.StartLSN)
		}
	}
	if len(starts) == 0 {
		return nil, fmt.Errorf("search WAL of cluster %d: %w to timeline %d", q.SystemID, ErrNoBackup, q.History.Timeline)
	}
	slices.Sort(starts)
	return slices.Compact(starts), nil
}

// lostBy returns what a transaction did to the table, or to one that may be it;
// nil for nothing, or in another database.
func (t Table) lostBy(e Event, change Change, database uint32) *Loss {
	var lost *Loss
	for _, r := range e.Relations {
		if r.Change != change || !t.is(r) || lost != nil && !t.surely(r) {
			continue
		}
		if l := (Loss{e, r}); database == 0 || l.Database() == 0 || l.Database() == database {
			lost = &l
		}
	}
	return lost
}

// Settle returns those of the losses of a table that are of the one that is meant:
// what is known to be of its schema goes before what only may be. sure is false
// where the schema's name isn't known. Where the name stands for several tables,
// the error is an *AmbiguousError.
func Settle(table Table, losses []Loss) (of []Loss, sure bool, err error) {
	type place struct{ database, schema uint32 }
	where := func(l Loss) place { return place{l.Database(), l.Relation.SchemaOID} }
	named := map[place]bool{}
	for _, l := range losses {
		if table.surely(l.Relation) {
			named[where(l)] = true
		}
	}
	if len(named) > 0 {
		losses = only(losses, func(l Loss) bool { return named[where(l)] })
	}
	for _, l := range losses {
		if where(l) != where(losses[0]) {
			return nil, false, &AmbiguousError{table, losses}
		}
	}
	return losses, len(named) > 0, nil
}

func only(losses []Loss, which func(Loss) bool) []Loss {
	return slices.DeleteFunc(slices.Clone(losses), func(l Loss) bool { return !which(l) })
}

// add takes in what another search cost, and couldn't see.
func (r *Report) add(other *Report) {
	r.Segments += other.Segments
	r.Headers += other.Headers
	r.Rollups += other.Rollups
	r.Written += other.Written
	r.Matching += other.Matching
	r.Downloaded += other.Downloaded
	for _, warning := range other.Warnings {
		if !slices.Contains(r.Warnings, warning) {
			r.Warnings = append(r.Warnings, warning)
		}
	}
}
