package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
)

// firstIncremental is the first PostgreSQL that sends incremental backups.
const firstIncremental = 17

// begin begins the backup on the server: an incremental one, where that was
// asked for and can be.
func (x *remote) begin(ctx context.Context, o postgres.BaseBackupOptions) (*postgres.BaseBackup, error) {
	if x.options.Incremental {
		if err := x.settleParent(x.uploadParent(ctx)); err != nil {
			return nil, err
		}
	}
	o.Incremental = x.base != nil
	started, err := x.session.StartBaseBackup(ctx, o)
	if !errors.Is(err, postgres.ErrNotIncremental) {
		return started, err
	}
	if err := x.settleParent(&notIncremental{err.Error()}); err != nil {
		return nil, err
	}
	o.Incremental = false
	return x.session.StartBaseBackup(ctx, o)
}

// uploadParent chooses the backup that this one is based on, and tells the
// server which files that has.
func (x *remote) uploadParent(ctx context.Context) error {
	if x.major < firstIncremental {
		return wholef("PostgreSQL %d doesn't send incremental backups, %d and later do: walship takes them on the server's own host, without --remote", x.major, firstIncremental)
	}
	summarize, err := x.session.Show(ctx, "summarize_wal")
	if err != nil {
		return err
	}
	if summarize != "on" {
		return wholef("summarize_wal is off on the server, so it doesn't know what has changed: set summarize_wal = on, and reload the server")
	}
	if err := x.describeServer(ctx); err != nil {
		return err
	}
	parent, err := x.findParent(ctx)
	if err != nil {
		return err
	}
	x.base = &base{parent: parent}
	var names []string
	err = x.readParent(ctx, func() visitFile {
		names = nil
		return func(name string, f relationFile) {
			if f.fork == pgdata.ForkMain {
				names = append(names, name)
			}
		}
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return wholef("%v", err)
	}
	x.record.Parent = parent.AsParent()
	return x.upload(ctx, names)
}

// describeServer asks for what the parent has to agree with. The backup is
// going to start behind what the server has now; a standby's may not, and then
// the server itself refuses a parent that ended behind that.
func (x *remote) describeServer(ctx context.Context) error {
	system, err := x.session.IdentifySystem(ctx)
	if err != nil {
		return err
	}
	var block, segment, checksums string
	for name, to := range map[string]*string{"block_size": &block, "segment_size": &segment, "data_checksums": &checksums} {
		if *to, err = x.session.Show(ctx, name); err != nil {
			return err
		}
	}
	if block != fmt.Sprint(pgdata.BlockSize) || segment != "1GB" {
		return wholef("the server was built with blocks of %s bytes and segments of %s, and only %d and 1GB are known", block, segment, pgdata.BlockSize)
	}
	x.run.control.BlockSize, x.run.control.RelSegSize = pgdata.BlockSize, pgdata.SegmentBlocks
	x.record.Timeline, x.record.StartLSN, x.record.DataChecksums = system.Timeline, system.LSN, checksums == "on"
	return nil
}

// upload sends a manifest of the parent's main forks, with nothing of them but
// their names, which is what the server looks for. What isn't in it comes
// whole: so do visibility maps, of which servers before 17.11 and 18.6 miss
// changes (rule 25 in docs/postgres-rules.md).
func (x *remote) upload(ctx context.Context, names []string) error {
	parent := x.base.parent
	reader, writer := io.Pipe()
	go func() {
		w, err := pgdata.NewManifestWriter(writer, pgdata.ManifestVersion(x.major), x.record.SystemID)
		for _, name := range names {
			if err == nil {
				err = w.Add(pgdata.ManifestFile{Path: name, Modified: parent.StartTime, Algorithm: pgdata.ChecksumNone})
			}
		}
		if err == nil {
			err = w.Close([]pgdata.ManifestWALRange{{Timeline: parent.Timeline, Start: parent.StartLSN, End: parent.StopLSN}})
		}
		writer.CloseWithError(err)
	}()
	err := x.session.UploadManifest(ctx, reader)
	reader.CloseWithError(err) // ends the writer
	return err
}

// checkBase holds the label against the parent: a restore refuses what doesn't
// agree.
func (x *remote) checkBase(content []byte) error {
	label, err := pgdata.ParseBackupLabel(content)
	if err != nil {
		return err
	}
	parent := x.record.Parent
	switch {
	case label.Incremental != (parent != nil):
		return fmt.Errorf("the server's label says that the backup is incremental: %t, and %t was asked for", label.Incremental, parent != nil)
	case parent != nil && (label.ParentStart != parent.StartLSN || label.ParentTimeline != parent.Timeline):
		return fmt.Errorf("the server's label is based on a backup from %s on timeline %d, and backup %s was asked for, from %s on timeline %d",
			label.ParentStart, uint32(label.ParentTimeline), parent.ID, parent.StartLSN, uint32(parent.Timeline))
	}
	return nil
}

// wholeSize says how many bytes a file has that a restore makes of an entry:
// an incremental file begins with that. content is what the entry has.
func wholeSize(header *tar.Header, entry io.Reader) (content io.Reader, size int64, err error) {
	if _, incremental := pgdata.CutIncremental(header.Name); !incremental {
		return entry, header.Size, nil
	}
	blocks, err := pgdata.ReadIncremental(entry)
	if err != nil {
		return nil, 0, err
	}
	if blocks.Size() != header.Size {
		return nil, 0, fmt.Errorf("it has %d bytes, and its header says %d", header.Size, blocks.Size())
	}
	return io.MultiReader(bytes.NewReader(blocks.AppendHeader(nil)), entry), int64(blocks.FileBlocks()) * pgdata.BlockSize, nil
}
