package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/search"
	"github.com/walship/walship/pkg/wal"
)

func walSearchCommand(e *environment) *cli.Command {
	const span = "SPAN (of time or of WAL; without, all that is archived)"
	const what = "WHAT (at most one; without any, how transactions ended)"
	return &cli.Command{
		Name:  "search",
		Usage: "find out from archived WAL what happened when",
		Flags: append([]cli.Flag{
			systemIDFlag(),
			&cli.StringFlag{Name: "timeline", Usage: "`TIMELINE` to follow: latest, or a number", Value: restore.TimelineLatest},
			&cli.StringFlag{Name: "from-time", Usage: "nothing before `TIME`, with its zone: 2026-11-20T14:25:00Z", Category: span},
			&cli.StringFlag{Name: "to-time", Usage: "nothing after `TIME`", Category: span},
			&cli.StringFlag{Name: "from-lsn", Usage: "no record that starts before `LSN`", Category: span},
			&cli.StringFlag{Name: "to-lsn", Usage: "no record that starts after `LSN`", Category: span},
			&cli.BoolFlag{Name: "dropped", Usage: "transactions that dropped or truncated tables, with their names, as far as WAL says them", Category: what},
			&cli.BoolFlag{Name: "restore-points", Usage: "restore points", Category: what},
			&cli.BoolFlag{Name: "checkpoints", Usage: "checkpoints; reads every segment of the span", Category: what},
			&cli.StringFlag{Name: "xid", Usage: "only the transaction with this `XID`, or that a subtransaction with it belongs to"},
			jsonFlag(),
		}, e.settingFlags("encryption.identity_files")...),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.searchWAL(c)
		},
	}
}

// searchWAL prints what happened, as it is found.
func (e *environment) searchWAL(c *cli.Context) error {
	query, err := searchQuery(c)
	if err != nil {
		return err
	}
	timeline, err := searchTimeline(c.String("timeline"))
	if err != nil {
		return err
	}
	repository, err := e.repository(c.Context, true)
	if err != nil {
		return err
	}
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return err
	}
	if len(clusters) != 1 {
		return oneCluster(clusters)
	}
	query.SystemID = clusters[0]
	if query.History, err = search.Path(c.Context, repository, query.SystemID, timeline); err != nil {
		return absentIf(err)
	}
	return e.printSearch(c, repository, query)
}

// oneCluster explains that a command is about one cluster.
func oneCluster(clusters []uint64) error {
	if len(clusters) == 0 {
		return fmt.Errorf("search WAL: %w: the repository has none", archive.ErrAbsent)
	}
	ids := make([]string, 0, len(clusters))
	for _, id := range clusters {
		ids = append(ids, strconv.FormatUint(id, 10))
	}
	return &usageError{"the repository has WAL of several clusters: choose one of " + strings.Join(ids, ", ") + " with --system-id"}
}

// printSearch runs a search and prints its events.
func (e *environment) printSearch(c *cli.Context, repository *repo.Repository, query search.Query) error {
	out := bufio.NewWriter(e.out)
	var p searchPrinter = &searchText{w: out, restore: restoreCommandLine(c)}
	if c.Bool("json") {
		p = &searchJSON{w: out}
	}
	p.begin(query)
	report, err := search.Run(c.Context, repository, query, search.Options{Log: e.logger()}, p.event)
	for _, text := range report.Warnings {
		e.logger().Warn(text)
	}
	e.logger().Info("searched", "segments", report.Segments, "matching", report.Matching, "downloaded", report.Downloaded,
		"headers", report.Headers, "rollups", report.Rollups)
	if err == nil {
		p.end(report)
	}
	if flushErr := out.Flush(); flushErr != nil && err == nil {
		err = fmt.Errorf("print result: %w", flushErr)
	}
	if err != nil {
		return absentIf(err)
	}
	if len(report.Warnings) > 0 {
		return fmt.Errorf("%w: WAL is missing or can't be read, see the warnings", errDegraded)
	}
	return nil
}

// searchQuery reads the flags.
func searchQuery(c *cli.Context) (search.Query, error) {
	q := search.Query{Facts: search.Transactions}
	var whats []string
	for name, facts := range map[string]search.Facts{
		"dropped": search.Dropped, "restore-points": search.RestorePoints, "checkpoints": search.Checkpoints,
	} {
		if c.Bool(name) {
			whats = append(whats, "--"+name)
			q.Facts = facts
		}
	}
	if len(whats) > 1 {
		return q, &usageError{"--dropped, --restore-points and --checkpoints exclude one another"}
	}
	at := func(to *time.Time) func(string) error {
		return func(s string) (err error) { *to, err = restore.ParseTime(s, time.Local); return err }
	}
	lsn := func(to *wal.LSN) func(string) error {
		return func(s string) (err error) { *to, err = wal.ParseLSN(s); return err }
	}
	for _, flag := range []struct {
		name string
		read func(string) error
	}{
		{"from-time", at(&q.FromTime)}, {"to-time", at(&q.ToTime)},
		{"from-lsn", lsn(&q.FromLSN)}, {"to-lsn", lsn(&q.ToLSN)},
		{"xid", func(s string) error {
			xid, err := restore.ParseXID(s)
			q.XID = uint32(xid)
			return err
		}},
	} {
		if !c.IsSet(flag.name) {
			continue
		}
		if err := flag.read(c.String(flag.name)); err != nil {
			return q, &usageError{fmt.Sprintf("--%s: %v", flag.name, err)}
		}
	}
	return q, checkQuery(c, q)
}

// checkQuery refuses flags that make no sense together.
func checkQuery(c *cli.Context, q search.Query) error {
	times, lsns := c.IsSet("from-time") || c.IsSet("to-time"), c.IsSet("from-lsn") || c.IsSet("to-lsn")
	switch {
	case times && lsns:
		return &usageError{"the span is given by times and by LSNs: give one of the two"}
	case !q.ToTime.IsZero() && q.ToTime.Before(q.FromTime), c.IsSet("to-lsn") && q.ToLSN < max(q.FromLSN, 1):
		return &usageError{"the span ends before it begins"}
	case c.IsSet("xid") && (q.Facts == search.RestorePoints || q.Facts == search.Checkpoints):
		return &usageError{"--xid makes no sense with --restore-points and --checkpoints: they belong to no transaction"}
	case c.IsSet("xid") && q.XID < 3:
		return &usageError{fmt.Sprintf("--xid: the transaction id %d is never given to a transaction: the first is 3", q.XID)}
	}
	return nil
}

// searchTimeline reads --timeline; 0 is the latest.
func searchTimeline(text string) (wal.TimelineID, error) {
	if text == "" || text == restore.TimelineLatest {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, &usageError{fmt.Sprintf("--timeline=%s: it is latest or the number of a timeline", text)}
	}
	return wal.TimelineID(n), nil
}

// restoreCommandLine is what a restore's flags are appended to.
func restoreCommandLine(c *cli.Context) string {
	line := "walship restore run --target-directory DIRECTORY"
	for _, name := range []string{"system-id", "timeline"} {
		if c.IsSet(name) {
			line += " --" + name + " " + c.String(name)
		}
	}
	return line
}

// searchPrinter prints a search's events as they come. The writer remembers
// an error.
type searchPrinter interface {
	begin(search.Query)
	event(search.Event) error
	end(*search.Report)
}

// searchJSON prints one object with an array of events.
type searchJSON struct {
	w      *bufio.Writer
	events int
}

func (p *searchJSON) begin(q search.Query) {
	fmt.Fprintf(p.w, "{\n  \"system_identifier\": \"%d\",\n  \"timeline\": %d,\n  \"events\": [", q.SystemID, uint32(q.History.Timeline))
}

func (p *searchJSON) event(e search.Event) error {
	if p.events++; p.events > 1 {
		fmt.Fprint(p.w, ",")
	}
	return p.value("    ", struct {
		search.Event
		Restore []string `json:"restore_flags,omitempty"`
	}{e, e.RestoreFlags()})
}

func (p *searchJSON) value(indent string, v any) error {
	data, err := json.MarshalIndent(v, indent, "  ")
	if err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	fmt.Fprintf(p.w, "\n%s", indent)
	_, err = p.w.Write(data)
	return err
}

func (p *searchJSON) end(r *search.Report) {
	fmt.Fprint(p.w, "\n  ],\n  \"report\":")
	if err := p.value("  ", r); err == nil {
		fmt.Fprint(p.w, "\n}\n")
	}
}

// searchText prints a table for people.
type searchText struct {
	w       io.Writer
	restore string
	facts   search.Facts
	events  int
}

const searchLine = "%-29s  %-14s  %-15s  %-10s  %s\n"

func (p *searchText) begin(q search.Query) { p.facts = q.Facts }

func (p *searchText) event(e search.Event) error {
	if p.events++; p.events == 1 {
		fmt.Fprintf(p.w, searchLine, "TIME", "LSN", "WHAT", "XID", "DETAILS")
	}
	xid := ""
	if e.XID != 0 {
		xid = strconv.FormatUint(uint64(e.XID), 10)
	}
	line := fmt.Sprintf(searchLine, e.Time.UTC().Format("2006-01-02 15:04:05.000000+00"), e.LSN, e.Kind, xid, p.details(e))
	if _, err := fmt.Fprintln(p.w, strings.TrimRight(line, " \n")); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	for _, r := range e.Relations {
		fmt.Fprintf(p.w, "  %s\n", relationText(r))
	}
	if flags := e.RestoreFlags(); flags != nil {
		fmt.Fprintf(p.w, "  to be back right before it: %s %s\n", p.restore, strings.Join(flags, " "))
	}
	return nil
}

// details are what a line says besides the columns.
func (p *searchText) details(e search.Event) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case e.Kind == search.KindRestorePoint:
		add("%q", e.Name)
	case e.Kind == search.KindCheckpoint && e.Shutdown:
		add("shutdown, redo %s", e.Redo)
	case e.Kind == search.KindCheckpoint:
		add("online, redo %s", e.Redo)
	}
	if e.GID != "" {
		add("gid %q", e.GID)
	}
	if e.TopLevelXID != 0 {
		add("part of %d", e.TopLevelXID)
	}
	if e.Database != 0 {
		add("database %d", e.Database)
	}
	if n := len(e.Subtransactions); n > 0 {
		add("%s", counted(n, "subtransaction"))
	}
	if n := len(e.DroppedFiles); n > 0 && p.facts != search.Dropped {
		add("%s removed", counted(n, "file"))
	}
	return strings.Join(parts, ", ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// relationText says what became of a relation and of its parts.
func relationText(r search.Relation) string {
	text := string(r.Change) + ": "
	if r.Kind != "" {
		text += r.Kind + " "
	}
	text += r.Title()
	if r.Name != "" && r.FileName != "" {
		text += ", file " + r.FileName
	}
	if len(r.Parts) == 0 {
		return text
	}
	kinds := map[string]int{}
	for _, part := range r.Parts {
		kinds[part.Kind]++
	}
	for _, kind := range []string{"index", "TOAST table"} {
		if n := kinds[kind]; n > 0 {
			text += ", with " + strings.ReplaceAll(counted(n, kind), "indexs", "indexes")
		}
	}
	return text
}

func (p *searchText) end(r *search.Report) {
	if p.events == 0 {
		fmt.Fprintf(p.w, "nothing of that in %s\n", counted(r.Segments, "segment"))
	}
}
