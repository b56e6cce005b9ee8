package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/status"
	"golang.org/x/term"
)

func statusCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say what the repository has: timelines, backups, archived WAL, gaps, and what can be restored",
		Flags: []cli.Flag{
			systemIDFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "timeline", Usage: "draw the timelines"},
			svgFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.showStatus(c)
		},
	}
}

func svgFlag() cli.Flag {
	return &cli.StringFlag{Name: "svg", Usage: "write a picture of the timelines to `FILE`, which must not be there yet"}
}

// statusOutput is what status prints with --json.
type statusOutput struct {
	Time     time.Time         `json:"time"` // by the storage's clock
	Clusters []*status.Cluster `json:"clusters"`
}

func (e *environment) showStatus(c *cli.Context) error {
	repository, err := e.repository(c.Context, false)
	if err != nil {
		return err
	}
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return err
	}
	if c.IsSet("svg") && len(clusters) != 1 {
		return &usageError{fmt.Sprintf("a picture is of one cluster, and the repository has %d: choose one with --system-id", len(clusters))}
	}
	output := statusOutput{Clusters: []*status.Cluster{}}
	if output.Time, err = repository.Now(c.Context); err != nil {
		return err
	}
	for _, id := range clusters {
		cluster, err := status.Of(c.Context, repository, id)
		if err != nil {
			return err
		}
		output.Clusters = append(output.Clusters, cluster)
	}
	if c.IsSet("svg") {
		if err := writePicture(c.String("svg"), output.Clusters[0], nil, output.Time); err != nil {
			return err
		}
	}
	return e.printResult(c, output, func(w io.Writer) {
		if len(output.Clusters) == 0 {
			fmt.Fprintln(w, "the repository has nothing of any cluster")
		}
		for i, cluster := range output.Clusters {
			if i > 0 {
				fmt.Fprintln(w)
			}
			writeStatus(w, cluster, output.Time)
			if c.Bool("timeline") {
				fmt.Fprintln(w)
				status.WriteTimeline(w, cluster, nil, e.columns())
			}
		}
	})
}

// writePicture writes a new file.
func writePicture(path string, cluster *status.Cluster, way *status.Way, now time.Time) error {
	var picture bytes.Buffer
	if err := status.WriteSVG(&picture, cluster, way, now); err != nil {
		return err
	}
	return writeNewFile(path, picture.Bytes())
}

// columns is how wide the terminal is that standard output goes to; 100 if it
// is none.
func (e *environment) columns() int {
	const columns = 100
	file, is := e.out.(*os.File)
	if !is {
		return columns
	}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil {
		return width
	}
	return columns
}

// writeStatus prints for people what there is of a cluster.
func writeStatus(w io.Writer, cluster *status.Cluster, now time.Time) {
	fmt.Fprintf(w, "cluster %d\n", cluster.SystemID)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(table, "  "+key+"\t"+format+"\n", args...) }
	backups, newest := 0, status.Backup{}
	for _, t := range cluster.Timelines {
		for _, b := range t.Backups {
			if backups++; b.ID > newest.ID {
				newest = b
			}
		}
	}
	switch {
	case backups == 0:
		line("backups", "none: nothing can be restored")
	case newest.StopTime.IsZero():
		line("backups", "%d, the newest %s", backups, newest.ID)
	default:
		line("backups", "%d, the newest %s, ended %s ago", backups, newest.ID, now.Sub(newest.StopTime).Truncate(time.Second))
	}
	for _, t := range cluster.Timelines {
		writeTimelineStatus(line, &t)
	}
	_ = table.Flush() // w remembers an error
}

func writeTimelineStatus(line func(key, format string, args ...any), t *status.Timeline) {
	key := fmt.Sprintf("timeline %d", uint32(t.Timeline))
	switch {
	case t.HistoryMissing:
		line(key, "its history file isn't in the repository: no recovery can follow it")
	case t.Parent != 0:
		line(key, "left timeline %d at %s: %q", uint32(t.Parent), t.Begin, t.Reason)
	default:
		line(key, "the first one")
	}
	for _, run := range t.Archived {
		line("", "archived: %s to %s, %s", max(run.Start, t.Begin), min(run.End, t.End), counted(int(run.Segments), "segment"))
	}
	if len(t.Archived) == 0 {
		line("", "no WAL of it is archived")
	}
	for _, gap := range t.Gaps {
		line("", "missing: %s to %s, %s", max(gap.Start, t.Begin), gap.End, counted(int(gap.Segments), "segment"))
	}
	for _, s := range t.Reachable {
		line("", "can be restored: %s to %s, from backup %s on", s.From, min(s.To, t.End), s.Backup)
	}
	if !t.LastTime.IsZero() {
		line("", "last transaction: %s (not verified)", timeText(t.LastTime))
	}
	if t.Unreadable != "" {
		line("", "segment %s can't be read: its header is corrupt", t.Unreadable)
	}
	for _, b := range t.Backups {
		switch {
		case b.Unreadable != "":
			line("", "backup %s can't be read: %s", b.ID, b.Unreadable)
		case b.Unusable != "":
			line("", "backup %s can't be restored: %s", b.ID, b.Unusable)
		case b.Degraded:
			line("", "backup %s is degraded", b.ID)
		}
	}
}

// drawPlan writes the picture of a restore's way.
func (e *environment) drawPlan(ctx context.Context, path string, p *restore.Plan) error {
	repository, err := e.repository(ctx, false)
	if err != nil {
		return err
	}
	cluster, err := status.Of(ctx, repository, p.SystemID)
	if err != nil {
		return err
	}
	way, err := status.WayOf(p, targetText(p))
	if err != nil {
		return err
	}
	now, err := repository.Now(ctx)
	if err != nil {
		return err
	}
	return writePicture(path, cluster, way, now)
}
