package rescue

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/search"
	"github.com/walship/walship/pkg/wal"
)

// publicOID is the OID of the schema public, whose name WAL may not have.
const publicOID = 2200

// BeforeDrop finds the transaction that dropped each of the tables last, and
// returns the target right before the first of those. timeline 0 is the latest.
func BeforeDrop(ctx context.Context, r *repo.Repository, systemID uint64, timeline wal.TimelineID, tables []Name, log *slog.Logger) (restore.Target, error) {
	history, err := search.Path(ctx, r, systemID, timeline)
	if err != nil {
		return restore.Target{}, fmt.Errorf("look for the drop: %w", err)
	}
	last := map[Name]search.Event{}
	query := search.Query{SystemID: systemID, History: history, Facts: search.Dropped}
	report, err := search.Run(ctx, r, query, search.Options{Log: log}, func(e search.Event) error {
		for _, relation := range e.Relations {
			for _, table := range tables {
				if drops(relation, table) {
					last[table] = e
				}
			}
		}
		return nil
	})
	if err != nil {
		return restore.Target{}, fmt.Errorf("look for the drop: %w", err)
	}
	for _, text := range report.Warnings {
		log.Warn(text)
	}
	var first search.Event
	for _, table := range tables {
		e, found := last[table]
		if !found {
			return restore.Target{}, fmt.Errorf("look for the drop: the archived WAL has none of table %s "+
				"(nor can it have one of a view or of a partitioned table, which have no files): walship wal search --dropped lists what it has; choose a moment with --to-time", table)
		}
		if first.LSN == 0 || e.LSN < first.LSN {
			first = e
		}
	}
	log.Info("found the drop", "xid", first.XID, "lsn", first.LSN.String(), "time", first.Time)
	return restore.Target{Kind: restore.TargetLSN, LSN: first.LSN, Exclusive: true}, nil
}

// drops tells whether a relation that was dropped is the table, as far as is
// known: where WAL doesn't say a schema's name, the table's name decides, and
// what is restored shows whether it is there.
func drops(r search.Relation, table Name) bool {
	if r.Change != search.ChangeDrop || r.Kind != "table" || r.Name != table.Table {
		return false
	}
	if r.Schema != "" {
		return r.Schema == table.Schema
	}
	return (r.SchemaOID == publicOID) == (table.Schema == "public")
}
