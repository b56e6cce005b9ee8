package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// backupItem is a backup in the list.
type backupItem struct {
	ID            string         `json:"id"`
	Parent        string         `json:"parent,omitempty"`
	SystemID      uint64         `json:"system_identifier,string"`
	ServerVersion int            `json:"server_version"`
	Timeline      wal.TimelineID `json:"timeline"`
	StartLSN      wal.LSN        `json:"start_lsn"`
	StopLSN       wal.LSN        `json:"stop_lsn"`
	StartTime     time.Time      `json:"start_time"`
	StopTime      time.Time      `json:"stop_time"`
	Label         string         `json:"label"`
	PlainSize     int64          `json:"plain_size"`
	StoredSize    int64          `json:"stored_size"`
	Degraded      []string       `json:"degraded,omitempty"`
	// Unusable says why the backup can't be restored.
	Unusable string `json:"unusable,omitempty"`
}

type backupList struct {
	Backups []backupItem `json:"backups"`
}

func (e *environment) listBackups(c *cli.Context) error {
	repository, err := e.repository(c.Context, false)
	if err != nil {
		return err
	}
	refs, err := backupRefs(c, repository)
	if err != nil {
		return err
	}
	list := backupList{Backups: []backupItem{}}
	var damaged []error
	items := make(map[clusterBackup]backupItem)
	// A backup comes behind the one that it is based on. By the ids it may not:
	// those follow the server's clock, which somebody may have set back.
	inOrder := slices.SortedStableFunc(slices.Values(refs), func(a, b repo.BackupRef) int { return cmp.Compare(a.StopLSN, b.StopLSN) })
	for _, ref := range inOrder {
		b, err := repository.Backup(c.Context, ref)
		if c.Context.Err() != nil {
			return err
		}
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		why, err := unusableText(c.Context, repository, b, items)
		if err != nil {
			return err
		}
		if why != "" {
			damaged = append(damaged, fmt.Errorf("backup %s can't be restored: %s", b.ID, why))
		}
		items[clusterBackup{b.SystemID, b.ID}] = backupItem{
			b.ID, parentID(b.Parent), b.SystemID, b.ServerVersion, b.Timeline, b.StartLSN, b.StopLSN, b.StartTime, b.StopTime, b.Label, b.PlainSize, b.StoredSize, b.Degraded, why,
		}
	}
	for _, ref := range refs {
		if item, read := items[clusterBackup{ref.SystemID, ref.ID}]; read {
			list.Backups = append(list.Backups, item)
		}
	}
	err = e.printResult(c, list, func(w io.Writer) {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tPARENT\tCLUSTER\tPOSTGRESQL\tTIMELINE\tSTART\tSTOP\tEND (UTC)\tSIZE\tSTORED\tLABEL")
		for _, b := range list.Backups {
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", b.ID, cmp.Or(b.Parent, "-"), b.SystemID, postgres.VersionString(b.ServerVersion), uint32(b.Timeline),
				b.StartLSN, b.StopLSN, timeText(b.StopTime), sizeText(b.PlainSize), sizeText(b.StoredSize), labelText(b.Label, b.Degraded, b.Unusable))
		}
		_ = table.Flush() // w remembers an error
	})
	if err == nil && len(damaged) > 0 {
		err = fmt.Errorf("%w: %w", errDegraded, errors.Join(damaged...))
	}
	return err
}

// clusterBackup names a backup: ids are unique in a cluster.
type clusterBackup struct {
	systemID uint64
	id       string
}

// unusableText says why a backup can't be restored, or "": an object of it is
// gone, or the backup that it is based on isn't among those before, or unusable.
func unusableText(ctx context.Context, repository *repo.Repository, b *repo.Backup, before map[clusterBackup]backupItem) (string, error) {
	if p := b.Parent; p != nil {
		if parent, read := before[clusterBackup{b.SystemID, p.ID}]; !read || parent.Unusable != "" {
			return fmt.Sprintf("backup %s, which it is based on, is gone or can't be restored", p.ID), nil
		}
	}
	return repository.Lost(ctx, b)
}

func (e *environment) showBackup(c *cli.Context, id string) error {
	repository, err := e.repository(c.Context, false)
	if err != nil {
		return err
	}
	refs, err := backupRefs(c, repository)
	if err != nil {
		return err
	}
	var found []repo.BackupRef
	for _, ref := range refs {
		if ref.ID == id {
			found = append(found, ref)
		}
	}
	if len(found) == 0 {
		return withHint(fmt.Errorf("%w: the repository has no backup %q", errUnsafe, id), "walship backup list lists those that there are")
	}
	if len(found) > 1 {
		return &usageError{fmt.Sprintf("%d clusters have a backup %s: choose one with --system-id", len(found), id)}
	}
	b, err := repository.Backup(c.Context, found[0])
	if err != nil {
		return err
	}
	return e.printResult(c, b, func(w io.Writer) { writeBackup(w, b) })
}

// writeBackup prints a record for people.
func writeBackup(w io.Writer, b *repo.Backup) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(table, key+"\t"+format+"\n", args...) }
	line("backup", "%s", b.ID)
	if b.Parent != nil {
		line("based on", "%s", b.Parent.ID)
	}
	line("label", "%s", b.Label)
	line("cluster", "%d", b.SystemID)
	line("server", "PostgreSQL %s%s", postgres.VersionString(b.ServerVersion), wayText(b))
	line("start", "%s, %s", b.StartLSN, timeText(b.StartTime))
	line("stop", "%s, %s", b.StopLSN, timeText(b.StopTime))
	line("timeline", "%d", uint32(b.Timeline))
	line("size", "%s in %d files", sizeText(b.PlainSize), b.Files)
	line("stored", "%s in %d parts", sizeText(b.StoredSize), len(b.Parts))
	line("page checksums", "%s", pageText(b))
	line("manifest checksums", "%s", b.ManifestChecksums)
	for _, t := range b.Tablespaces {
		where := pathText(t.Location)
		if t.InPlace {
			where += " (in place)"
		}
		line("tablespace "+strconv.FormatUint(uint64(t.OID), 10), "%s, %s", where, sizeText(t.Size))
	}
	for _, setting := range []string{"config_file", "hba_file", "ident_file"} {
		if file, ok := b.ConfigurationOf[setting]; ok {
			line(setting, "%s", file)
		}
	}
	for _, why := range b.Degraded {
		line("degraded", "%s", why)
	}
	line("walship", "%s", b.Walship)
	_ = table.Flush() // w remembers an error
}

// wayText says where and how a backup was taken.
func wayText(b *repo.Backup) string {
	text := fmt.Sprintf(" on %s, %s", b.Host, b.DataDirectory)
	if b.Remote {
		text = " through the replication protocol, to " + b.Host
	}
	if b.Standby {
		text = ", a standby," + text
	}
	return text
}

// pageText says what is known of the cluster's pages.
func pageText(b *repo.Backup) string {
	switch {
	case !b.DataChecksums:
		return "off"
	case b.Remote:
		return "on"
	case b.PagesChecked == 0:
		return "on, not verified"
	}
	return fmt.Sprintf("on, %d pages verified, %d bad", b.PagesChecked, b.PagesBad)
}

// backupRefs lists the backups of the cluster that --system-id names, or of
// all.
func backupRefs(c *cli.Context, repository *repo.Repository) ([]repo.BackupRef, error) {
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return nil, err
	}
	var all []repo.BackupRef
	for _, id := range clusters {
		refs, err := repository.Backups(c.Context, id)
		if err != nil {
			return nil, err
		}
		all = append(all, refs...)
	}
	return all, nil
}

func chosenClusters(ctx context.Context, repository *repo.Repository, systemID string) ([]uint64, error) {
	if systemID == "" {
		return repository.Clusters(ctx)
	}
	id, err := parseSystemID(systemID)
	if err != nil {
		return nil, err
	}
	return []uint64{id}, nil
}

// parentID is the id of a backup's parent; "" for a full backup.
func parentID(p *repo.Parent) string {
	if p == nil {
		return ""
	}
	return p.ID
}

// kindText says what kind a backup with this parent is.
func kindText(p *repo.Parent) string {
	if p == nil {
		return "full"
	}
	return "incremental"
}

func labelText(label string, degraded []string, unusable string) string {
	switch {
	case unusable != "":
		return label + " (unusable)"
	case len(degraded) > 0:
		return label + " (degraded)"
	}
	return label
}

// pathText prints a path, quoted where it would break the line.
func pathText(path string) string {
	if strings.ContainsFunc(path, unicode.IsControl) {
		return strconv.Quote(path)
	}
	return path
}

// timeText prints a time in UTC, to the second, with its offset.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05+00:00") }

// sizeText prints a number of bytes with PostgreSQL's units, in three digits
// or so.
func sizeText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	if unit == 0 || size >= 100 {
		return fmt.Sprintf("%.0f %s", math.Floor(size), units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
