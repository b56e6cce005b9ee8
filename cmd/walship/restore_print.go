package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/restore"
)

// writePlan prints a plan for people, but for its first problem: that is the
// error that the command ends with.
func writePlan(w io.Writer, p *restore.Plan) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(table, key+"\t"+format+"\n", args...) }
	line("cluster", "%d", p.SystemID)
	line("target", "%s", targetText(p))
	line("backup", "%s (PostgreSQL %s on %s), ended %s at LSN %s", p.Backup.ID,
		postgres.VersionString(p.Backup.ServerVersion), p.Backup.Host, timeText(p.Backup.StopTime), p.Backup.StopLSN)
	objects := p.Backup.Objects
	for i, b := range p.Backup.BasedOn {
		key := ""
		if i == 0 {
			key = "based on"
		}
		line(key, "%s, %s stored", b.ID, sizeText(b.StoredSize))
		objects += b.Objects
	}
	for i, s := range p.Path {
		key := ""
		if i == 0 {
			key = "timelines"
		}
		switch {
		case s.End == "":
			line(key, "%d from %s on", uint32(s.Timeline), s.Start)
		case s.Reason == "":
			line(key, "%d from %s to %s", uint32(s.Timeline), s.Start, s.End)
		default:
			line(key, "%d from %s to %s (%s)", uint32(s.Timeline), s.Start, s.End, s.Reason)
		}
	}
	line("WAL", "%s, %s to %s: usable until %s", counted(p.WAL.Needed, "segment"), p.WAL.First, p.WAL.Last, p.WAL.Until)
	if p.WAL.Verified > 0 {
		line("", "%s verified", counted(p.WAL.Verified, "segment"))
	}
	for _, name := range p.WAL.Missing {
		line("", "missing: %s", name)
	}
	for _, name := range p.WAL.Partial {
		line("", "partial, not used: %s", name)
	}
	writePromise(line, p)
	line("replay", "%s of WAL", sizeText(p.WAL.ReplaySize))
	line("download", "%s in %d objects and the WAL", sizeText(p.DownloadSize), objects)
	directory := p.Directory
	if directory == "" {
		directory = "the data directory"
	}
	line("space", "%s in %d files, in %s", sizeText(p.DataSize), p.Files, directory)
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			line("", "%s of tablespace %d in %s (was in %s)", sizeText(t.Size), t.OID, pathText(t.RestoreTo), pathText(t.Location))
		}
	}
	writeEstimate(line, p.Estimate)
	for i, s := range p.Settings {
		key := ""
		if i == 0 {
			key = "settings"
		}
		line(key, "%s = %s", s.Name, pgdata.QuoteSetting(s.Value))
	}
	for i, written := range p.Writes {
		key := ""
		if i == 0 {
			key = "writes"
		}
		line(key, "%s: %s", written.Path, written.What)
	}
	_ = table.Flush() // w remembers an error
	further := p.Problems
	if len(further) > 0 {
		further = further[1:]
	}
	for _, list := range []struct {
		key   string
		texts []string
	}{{"note", p.Notes}, {"warning", p.Warnings}, {"problem", further}} {
		for _, text := range list.texts {
			fmt.Fprintf(w, "%s: %s\n", list.key, text)
		}
	}
}

// writePromise prints what the restore is going to end with.
func writePromise(line func(key, format string, args ...any), p *restore.Plan) {
	if p.Stop != nil {
		side := "behind"
		if p.Stop.Before {
			side = "before"
		}
		if p.Stop.Kind == "consistency" {
			line("stops", "at the end of the backup, %s the record at LSN %s", side, p.Stop.LSN)
		} else {
			line("stops", "%s %s at LSN %s", side, stopText(p.Stop), p.Stop.LSN)
		}
	}
	ending := func(key string, e *restore.Ending) {
		if e != nil {
			line(key, "%s of transaction %d at %s, LSN %s", e.Kind, e.XID, restore.FormatTime(e.Time), e.LSN)
		}
	}
	ending("last in", p.LastIn)
	ending("first out", p.FirstOut)
	for _, t := range p.PendingPrepared {
		line("prepared", "transaction %d %q, neither committed nor rolled back", t.XID, t.GID)
	}
	if p.EndsAt != 0 && p.Reachable {
		line("ends at", "LSN %s", p.EndsAt)
	}
	kinds := []restore.TargetKind{restore.TargetTime, restore.TargetXID, restore.TargetName}
	if p.Certified && p.Stop != nil && p.WAL.Verified == 0 && slices.Contains(kinds, p.Target.Kind) {
		line("", "as the WAL there says; that nothing stops recovery before, by the headers of the segments (--deep reads them all)")
	}
}

// durationText rounds a duration that is an estimate.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d < time.Minute:
		return fmt.Sprintf("about %.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("about %.0f min", d.Minutes())
	}
	return fmt.Sprintf("about %.1f h", d.Hours())
}

func stopText(s *restore.Stop) string {
	switch {
	case s.XID != 0:
		return fmt.Sprintf("the %s of transaction %d, %s,", s.Kind, s.XID, restore.FormatTime(s.Time))
	case s.Name != "":
		return fmt.Sprintf("the restore point %q", s.Name)
	}
	return "the record"
}

func targetText(p *restore.Plan) string {
	text := string(p.Target.Kind)
	if p.Target.Kind != restore.TargetLatest && p.Target.Kind != restore.TargetImmediate {
		text += " " + p.Target.Value
		if !p.Target.Inclusive {
			text += ", exclusive"
		}
	}
	if p.Target.Kind == restore.TargetLatest {
		return text + ", then promote"
	}
	return text + ", then " + string(p.Target.Action)
}

// writeRestored prints for people what is to be done now.
func writeRestored(w io.Writer, r *restore.Result) {
	fmt.Fprintf(w, "\nrestored into %s\n", r.Directory)
	if r.KeptSize > 0 {
		fmt.Fprintf(w, "note: %s were there already and stayed\n", sizeText(r.KeptSize))
	}
	for _, text := range r.Next {
		fmt.Fprintf(w, "note: %s\n", text)
	}
	fmt.Fprintf(w, "start it with:\n  %s\n", r.Start)
}
