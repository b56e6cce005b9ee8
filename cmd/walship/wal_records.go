package main

import (
	"bufio"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/search"
	"github.com/walship/walship/pkg/wal"
)

// walRecord is a record as JSON says it.
type walRecord struct {
	LSN      wal.LSN    `json:"lsn"`
	EndLSN   wal.LSN    `json:"end_lsn"`
	Prev     wal.LSN    `json:"prev_lsn"`
	Resource string     `json:"resource_manager"`
	Info     uint8      `json:"info"`
	XID      uint32     `json:"xid"`
	Length   int        `json:"length"`       // without page images
	Total    int        `json:"total_length"` // bytes
	Text     string     `json:"description,omitempty"`
	Blocks   []walBlock `json:"blocks,omitempty"`
}

type walBlock struct {
	ID       uint8  `json:"id"`
	Relation string `json:"relation"` // tablespace/database/number
	Fork     string `json:"fork"`
	Block    uint32 `json:"block"`
	Image    bool   `json:"image,omitempty"`
}

// showRecords prints every record of a segment.
func (e *environment) showRecords(c *cli.Context, file string) error {
	name, err := wal.ParseFileName(file)
	if err != nil {
		return &usageError{err.Error()}
	}
	if name.Kind != wal.KindSegment && name.Kind != wal.KindPartial {
		return &usageError{fmt.Sprintf("--records: %s is a %s, which has no records", name, name.Kind)}
	}
	repository, err := e.repository(c.Context, true)
	if err != nil {
		return err
	}
	systemID, err := clusterOf(c, repository, name)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.out) // remembers an error
	asJSON := c.Bool("json")
	if asJSON {
		fmt.Fprintf(out, "{\n  \"name\": %q,\n  \"records\": [", name)
	}
	count := 0
	ending, err := search.Records(c.Context, repository, systemID, name, func(r *wal.Record, contents *wal.Contents) error {
		record, err := newWALRecord(r, contents)
		if err != nil {
			return err
		}
		if count++; !asJSON {
			_, err = fmt.Fprintln(out, record)
			return err
		}
		if count > 1 {
			fmt.Fprint(out, ",")
		}
		data, err := json.Marshal(record)
		if err == nil {
			_, err = fmt.Fprintf(out, "\n    %s", data)
		}
		return err
	})
	if err != nil {
		return absentIf(err)
	}
	if asJSON {
		text, err := json.Marshal(ending)
		if err != nil {
			return fmt.Errorf("print result: %w", err)
		}
		fmt.Fprintf(out, "\n  ],\n  \"ending\": %s\n}\n", text)
	} else {
		e.logger().Info("end of the segment's records", "records", count, "ending", ending)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

func newWALRecord(r *wal.Record, c *wal.Contents) (walRecord, error) {
	record := walRecord{
		LSN: r.LSN, EndLSN: r.Next, Prev: r.Prev, Resource: r.Resource.String(), Info: r.Info, XID: r.XID, Total: len(r.Data),
	}
	images := 0
	for _, b := range c.Blocks {
		images += len(b.Image)
		record.Blocks = append(record.Blocks, walBlock{b.ID, b.Relation.String(), b.Fork.String(), b.Number, b.HasImage})
	}
	record.Length = record.Total - images
	var err error
	record.Text, err = r.Describe(c)
	return record, err
}

// String writes a record as pg_waldump does, as far as walship knows what it
// says.
func (r walRecord) String() string {
	text := fmt.Sprintf("rmgr: %-11s len (rec/tot): %6d/%6d, tx: %10d, lsn: %s, prev %s, info: 0x%02X",
		r.Resource, r.Length, r.Total, r.XID, r.LSN, r.Prev, r.Info)
	if r.Text != "" {
		text += ", desc: " + r.Text
	}
	for _, b := range r.Blocks {
		text += fmt.Sprintf(", blkref #%d: rel %s", b.ID, b.Relation)
		if b.Fork != wal.ForkMain.String() {
			text += " fork " + b.Fork
		}
		text += fmt.Sprintf(" blk %d", b.Block)
		if b.Image {
			text += " FPW"
		}
	}
	return text
}
