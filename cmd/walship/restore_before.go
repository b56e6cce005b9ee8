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
		events, report, err := e.searchLoss(c, repository, &request, table, loss.change)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			return nil, withHint(fmt.Errorf("plan restore: no transaction that %s table %s is found in the WAL since the oldest backup", loss.what, c.String(loss.flag)),
				"walship wal search --dropped lists what was dropped and truncated, also where the name can't be told")
		}
		warnings = report.Warnings
		last := events[len(events)-1]
		request.Target = restore.Target{Kind: restore.TargetLSN, LSN: last.LSN, Exclusive: true}
		for _, event := range events {
			notes = append(notes, fmt.Sprintf("transaction %d %s %s, and committed at %s, LSN %s", event.XID, loss.what, lostNames(event), restore.FormatTime(event.Time), event.LSN))
		}
		if len(events) > 1 {
			notes = append(notes, "the target is right before the last of these; --to-xid with --exclusive chooses another")
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
func (e *environment) searchLoss(c *cli.Context, repository *repo.Repository, request *restore.Request, table search.Table, change search.Change) ([]search.Event, *search.Report, error) {
	timeline := wal.TimelineID(0)
	if request.Timeline != "" {
		var err error
		if timeline, err = searchTimeline(request.Timeline); err != nil {
			return nil, nil, err
		}
	}
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
	history, err := search.Path(c.Context, repository, request.SystemID, timeline)
	if err != nil {
		return nil, nil, absentIf(err)
	}
	request.Timeline = fmt.Sprint(uint32(history.Timeline))
	backups, err := repository.Backups(c.Context, request.SystemID)
	if err != nil {
		return nil, nil, err
	}
	var stretches []wal.LSN
	for _, b := range backups {
		if history.Contains(b.Timeline, b.StopLSN-1) && (request.Backup == "" || b.ID == request.Backup) {
			stretches = append(stretches, b.StartLSN)
		}
	}
	slices.Sort(stretches)
	query := search.Query{SystemID: request.SystemID, History: history}
	events, report, err := search.Lost(c.Context, repository, query, search.Options{Log: e.logger()}, table, change, slices.Compact(stretches))
	return events, report, absentIf(err)
}

// lostNames names the tables that a transaction took away.
func lostNames(event search.Event) string {
	text := ""
	for _, r := range event.Relations {
		if !r.Lost() || r.Name == "" {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += r.Title()
	}
	return text
}
