package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/search"
	"github.com/walship/walship/pkg/wal"
)

// beforeLoss are the flags of a target right before a transaction that took a
// table's rows away.
var beforeLoss = []struct {
	flag   string
	change search.Change
	what   string
}{
	{"before-drop", search.ChangeDrop, "dropped"},
	{"before-truncate", search.ChangeTruncate, "truncated"},
}

// makePlan plans what the flags ask for. A target that is named by what
// happened is looked for first.
func (e *environment) makePlan(c *cli.Context, repository *repo.Repository, request restore.Request) (*restore.Plan, error) {
	var notes, warnings []string
	for _, loss := range beforeLoss {
		if !c.IsSet(loss.flag) {
			continue
		}
		table, err := search.ParseTable(c.String(loss.flag))
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--%s: %v", loss.flag, err)}
		}
		losses, report, err := e.searchLoss(c, repository, &request, table, loss.change)
		if err != nil {
			return nil, err
		}
		losses, sure, err := search.Settle(table, losses)
		if err != nil {
			return nil, withHint(fmt.Errorf("%w: --%s: %w", errUnsafe, loss.flag, err), "choose one of these transactions with --before-xid")
		}
		if len(losses) == 0 {
			return nil, withHint(fmt.Errorf("plan restore: no transaction that %s table %s is found on the way to timeline %s, in the WAL since its oldest backup", loss.what, table, request.Timeline),
				"walship wal search --dropped lists what was dropped and truncated, also whole databases, and where the name can't be told; a view, or a partitioned table without partitions, has no file, and WAL doesn't tell of it: give the moment, for example with --to-time")
		}
		warnings = report.Warnings
		last := losses[len(losses)-1]
		if !sure {
			warnings = append(warnings, fmt.Sprintf("the WAL doesn't say what schema %d is called: see that it is %q", last.Relation.SchemaOID, table.Schema))
		}
		request.Target = restore.Target{Kind: restore.TargetLSN, LSN: last.Event.LSN, Exclusive: true}
		for _, l := range losses {
			notes = append(notes, l.String())
		}
		if len(losses) > 1 {
			notes = append(notes, "the target is right before the last of these; --before-xid chooses another")
		}
	}
	plan, err := restore.MakePlan(c.Context, restore.Of(repository), request)
	if err != nil {
		return nil, err
	}
	plan.Notes = append(notes, plan.Notes...)
	plan.Warnings = append(plan.Warnings, warnings...)
	return plan, nil
}

// searchLoss looks for the newest transactions that took a table's rows away,
// and settles the request on the path where it looked.
func (e *environment) searchLoss(c *cli.Context, repository *repo.Repository, request *restore.Request, table search.Table, change search.Change) ([]search.Loss, *search.Report, error) {
	if request.SystemID == 0 {
		clusters, err := chosenClusters(c.Context, repository, "")
		if err != nil {
			return nil, nil, err
		}
		if len(clusters) != 1 {
			return nil, nil, oneCluster(clusters)
		}
		request.SystemID = clusters[0]
	}
	timeline, err := searchedTimeline(c, repository, *request)
	if err != nil {
		return nil, nil, err
	}
	history, err := search.Path(c.Context, repository, request.SystemID, timeline)
	if err != nil {
		return nil, nil, absentIf(err)
	}
	request.Timeline = fmt.Sprint(uint32(history.Timeline))
	query := search.Query{SystemID: request.SystemID, History: history}
	found, report, err := search.Lost(c.Context, repository, query, search.Options{Log: e.logger()},
		search.Missing{Tables: []search.Table{table}, Change: change, Backup: request.Backup})
	if err != nil {
		return nil, nil, absentIf(err)
	}
	return found[0], report, nil
}

// searchedTimeline is the timeline that a request follows; 0 for the latest.
func searchedTimeline(c *cli.Context, repository *repo.Repository, request restore.Request) (wal.TimelineID, error) {
	if request.Timeline != restore.TimelineCurrent {
		return searchTimeline(request.Timeline)
	}
	backups, err := repository.Backups(c.Context, request.SystemID)
	if err != nil {
		return 0, err
	}
	for _, b := range slices.Backward(backups) {
		if request.Backup == "" || b.ID == request.Backup {
			return b.Timeline, nil
		}
	}
	return 0, fmt.Errorf("plan restore: %w: --timeline %s is that of a backup, and there is none", search.ErrNoBackup, request.Timeline)
}
