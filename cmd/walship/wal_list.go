package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

type walList struct {
	Clusters []walCluster `json:"clusters"`
}

type walCluster struct {
	SystemID  uint64           `json:"system_identifier,string"`
	Ranges    []walRange       `json:"ranges,omitempty"`
	Histories []wal.TimelineID `json:"history_files,omitempty"`
	Files     []walFile        `json:"files,omitempty"`
}

type walRange struct {
	Timeline    wal.TimelineID `json:"timeline"`
	First       string         `json:"first"`
	Last        string         `json:"last"`
	Start       wal.LSN        `json:"start_lsn"`
	End         wal.LSN        `json:"end_lsn"`
	Segments    uint64         `json:"segments"`
	SegmentSize uint64         `json:"wal_segment_size"`
	StoredSize  int64          `json:"stored_size"`
}

type walFile struct {
	Name       string `json:"name"`
	StoredSize int64  `json:"stored_size"`
}

func (e *environment) listWAL(c *cli.Context) error {
	repository, err := e.repository(c.Context, false)
	if err != nil {
		return err
	}
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return err
	}
	list := walList{Clusters: []walCluster{}}
	for _, id := range clusters {
		cluster := walCluster{SystemID: id}
		if c.Bool("files") {
			cluster.Files, err = walFiles(c.Context, repository, id)
		} else {
			err = cluster.addRanges(c.Context, repository)
		}
		if err != nil {
			return err
		}
		list.Clusters = append(list.Clusters, cluster)
	}
	return e.printResult(c, list, list.write)
}

func walFiles(ctx context.Context, repository *repo.Repository, systemID uint64) ([]walFile, error) {
	var files []walFile
	for file, err := range repository.ListWAL(ctx, systemID, wal.FileName{}) {
		if err != nil {
			return nil, err
		}
		files = append(files, walFile{file.Name.String(), file.Size})
	}
	return files, nil
}

func (w *walCluster) addRanges(ctx context.Context, repository *repo.Repository) error {
	ranges, err := archive.Ranges(ctx, repository, w.SystemID, wal.FileName{})
	if err != nil {
		return err
	}
	for _, r := range ranges {
		w.Ranges = append(w.Ranges, walRange{r.First.Timeline, r.First.String(), r.Last.String(), r.Start(), r.End(), r.Segments, r.SegmentSize, r.StoredSize})
	}
	w.Histories, err = repository.Histories(ctx, w.SystemID)
	return err
}

// write prints the list for people.
func (l walList) write(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer table.Flush() // w remembers an error
	for i, cluster := range l.Clusters {
		if i > 0 {
			fmt.Fprintln(table)
		}
		fmt.Fprintf(table, "cluster %d\n", cluster.SystemID)
		if len(cluster.Ranges)+len(cluster.Histories)+len(cluster.Files) == 0 {
			fmt.Fprintln(table, "no WAL is archived")
		}
		for _, file := range cluster.Files {
			fmt.Fprintf(table, "%s\t%s\n", file.Name, sizeText(file.StoredSize))
		}
		if len(cluster.Ranges) > 0 {
			fmt.Fprintln(table, "TIMELINE\tFIRST SEGMENT\tLAST SEGMENT\tFROM\tTO\tSEGMENTS\tSTORED")
		}
		for i, r := range cluster.Ranges {
			if i > 0 && cluster.Ranges[i-1].Timeline == r.Timeline {
				fmt.Fprintf(table, "%d\t(gap)\t\t%s\t%s\t\t\n", r.Timeline, cluster.Ranges[i-1].End, r.Start)
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%d\t%s\n", r.Timeline, r.First, r.Last, r.Start, r.End, r.Segments, sizeText(r.StoredSize))
		}
		for _, timeline := range cluster.Histories {
			fmt.Fprintf(table, "%d\t%s\n", timeline, wal.HistoryName(timeline))
		}
	}
}

type walDescription struct {
	Name        string            `json:"name"`
	Key         string            `json:"key"`
	SystemID    uint64            `json:"system_identifier,string"`
	Kind        string            `json:"kind"`
	PlainSize   int64             `json:"plain_size"`
	StoredSize  int64             `json:"stored_size"`
	PlainDigest string            `json:"plain_digest,omitempty"`
	Recipients  []string          `json:"recipients,omitempty"`
	Host        string            `json:"host,omitempty"`
	Summary     map[string]string `json:"summary,omitempty"`
	Content     string            `json:"content,omitempty"` // of a history file
	Verified    bool              `json:"verified"`          // always false: no identity was used
	fields      []wal.Field
}

func (e *environment) showWAL(c *cli.Context, file string) error {
	name, err := wal.ParseFileName(file)
	if err != nil {
		return &usageError{err.Error()}
	}
	repository, err := e.repository(c.Context, false)
	if err != nil {
		return err
	}
	systemID, err := clusterOf(c, repository, name)
	if err != nil {
		return err
	}
	d, err := describeWAL(c.Context, repository, systemID, name)
	if err != nil {
		return err
	}
	return e.printResult(c, d, d.write)
}

// clusterOf finds the one cluster, of those that are chosen, that has a file.
func clusterOf(c *cli.Context, repository *repo.Repository, name wal.FileName) (uint64, error) {
	clusters, err := chosenClusters(c.Context, repository, c.String("system-id"))
	if err != nil {
		return 0, err
	}
	var found []uint64
	for _, id := range clusters {
		_, err := repository.StatWAL(c.Context, id, name)
		if errors.Is(err, storage.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		found = append(found, id)
	}
	switch {
	case len(found) == 0:
		return 0, withHint(fmt.Errorf("show %s: %w", name, archive.ErrAbsent), "walship wal list lists what there is")
	case len(found) > 1:
		return 0, &usageError{fmt.Sprintf("%d clusters have a file %s: choose one with --system-id", len(found), name)}
	}
	return found[0], nil
}

func describeWAL(ctx context.Context, repository *repo.Repository, systemID uint64, name wal.FileName) (walDescription, error) {
	info, err := repository.StatWAL(ctx, systemID, name)
	if err != nil {
		return walDescription{}, absentIf(err)
	}
	d := walDescription{Name: name.String(), Key: info.Key, SystemID: systemID, Kind: name.Kind.String(), StoredSize: info.Size}
	if name.Kind == wal.KindTimelineHistory {
		content, err := repository.HistoryFile(ctx, systemID, name.Timeline)
		d.Content, d.PlainSize = string(content), int64(len(content))
		return d, absentIf(err)
	}
	header, err := archive.ReadHeader(ctx, repository, info.Key)
	if err != nil {
		return walDescription{}, absentIf(err)
	}
	d.PlainSize, d.PlainDigest, d.Recipients = header.PlainSize, header.Digest.String(), header.Recipients
	d.Host, d.fields = header.Host, header.Fields
	d.Summary = make(map[string]string, len(header.Fields))
	for _, field := range header.Fields {
		if key, is := strings.CutPrefix(field.Key, "wal."); is {
			d.Summary[key] = field.Value
		}
	}
	return d, nil
}

// write prints a description for people.
func (d walDescription) write(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer table.Flush() // w remembers an error
	line := func(key, value string) { fmt.Fprintf(table, "%s\t%s\n", key, value) }
	line("file", d.Name+", "+d.Kind)
	line("cluster", strconv.FormatUint(d.SystemID, 10))
	line("key", d.Key)
	line("size", fmt.Sprintf("%s, stored %s", sizeText(d.PlainSize), sizeText(d.StoredSize)))
	if d.PlainDigest != "" {
		line("digest", d.PlainDigest)
	}
	if len(d.Recipients) > 0 {
		line("recipients", strings.Join(d.Recipients, ", "))
	}
	if d.Host != "" {
		line("archived by", d.Host)
	}
	for _, text := range summaryText(d.fields) {
		line(text[0], text[1])
	}
	if d.Content != "" {
		fmt.Fprintf(table, "\n%s", d.Content)
		return
	}
	line("verified", "no: it was read without an identity")
}

func absentIf(err error) error {
	if errors.Is(err, storage.ErrNotExist) {
		return archive.ErrAbsent
	}
	return err
}
