package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

// BaseBackupOptions are those of BASE_BACKUP. WAL isn't part of the backup,
// and the server doesn't wait for its archiver.
type BaseBackupOptions struct {
	Label string
	Fast  bool // an immediate checkpoint instead of a spread one
	// MaxRate bounds what the server sends, in bytes per second; 0 is without
	// a bound. The server knows rates from MinServerRate to MaxServerRate.
	MaxRate int64
	// IgnorePageChecksums tells the server not to verify checksums of pages.
	IgnorePageChecksums bool
	// Checksums is the algorithm of the manifest's checksums.
	Checksums pgdata.ChecksumAlgorithm
	// Sizes has the server say beforehand how much is to come.
	Sizes bool
	// Incremental takes only what changed since the backup whose manifest
	// UploadManifest sent in this session (PostgreSQL 17 and later, with
	// summarize_wal on).
	Incremental bool
}

// The rates that BASE_BACKUP takes, in bytes per second (MAX_RATE_LOWER and
// MAX_RATE_UPPER in src/include/backup/basebackup.h).
const (
	MinServerRate = 32 << 10
	MaxServerRate = 1 << 30
)

// firstWithOptionList is the first version that takes options in parentheses
// and sends all archives in one stream.
const firstWithOptionList = 150000

// command writes BASE_BACKUP for a server of a version.
func (o BaseBackupOptions) command(version int) string {
	kilobytes := strconv.FormatInt(o.MaxRate>>10, 10)
	if version < firstWithOptionList {
		options := []string{"LABEL " + literal(o.Label), "NOWAIT"}
		if o.Fast {
			options = append(options, "FAST")
		}
		if o.MaxRate > 0 {
			options = append(options, "MAX_RATE "+kilobytes)
		}
		if o.Sizes {
			options = append(options, "PROGRESS")
		}
		if o.IgnorePageChecksums {
			options = append(options, "NOVERIFY_CHECKSUMS")
		}
		options = append(options, "MANIFEST 'yes'", "MANIFEST_CHECKSUMS "+literal(string(o.Checksums)))
		return "BASE_BACKUP " + strings.Join(options, " ")
	}
	options := []string{"LABEL " + literal(o.Label), "WAIT false", "MANIFEST 'yes'", "MANIFEST_CHECKSUMS " + literal(string(o.Checksums))}
	if o.Fast {
		options = append(options, "CHECKPOINT 'fast'")
	}
	if o.MaxRate > 0 {
		options = append(options, "MAX_RATE "+kilobytes)
	}
	if o.Sizes {
		options = append(options, "PROGRESS")
	}
	if o.IgnorePageChecksums {
		options = append(options, "VERIFY_CHECKSUMS false")
	}
	if o.Incremental {
		options = append(options, "INCREMENTAL")
	}
	return "BASE_BACKUP (" + strings.Join(options, ", ") + ")"
}

// uploadChunk is how much of a manifest is sent in one message.
const uploadChunk = 64 << 10

// UploadManifest sends the manifest of the backup that the next BaseBackup
// with Incremental is based on (PostgreSQL 17 and later).
func (r *Replication) UploadManifest(ctx context.Context, manifest io.Reader) error {
	defer r.guard(ctx)()
	if err := r.begin("UPLOAD_MANIFEST"); err != nil {
		return fmt.Errorf("upload the manifest: %w", err)
	}
	message, err := r.receive(ctx)
	if err != nil {
		return fmt.Errorf("upload the manifest: %w", err)
	}
	if _, ok := message.(*pgproto3.CopyInResponse); !ok {
		return fmt.Errorf("upload the manifest: the server sent %T instead of taking it", message)
	}
	buffer := make([]byte, uploadChunk)
	for {
		n, readErr := io.ReadFull(manifest, buffer)
		if n > 0 {
			r.pg.Frontend().Send(&pgproto3.CopyData{Data: buffer[:n]})
			if err := r.pg.Frontend().Flush(); err != nil {
				return fmt.Errorf("upload the manifest: %w", err)
			}
		}
		if readErr == io.EOF || readErr == io.ErrUnexpectedEOF {
			break
		}
		if readErr != nil {
			return fmt.Errorf("upload the manifest: read it: %w", readErr)
		}
	}
	r.pg.Frontend().Send(&pgproto3.CopyDone{})
	if err := r.pg.Frontend().Flush(); err != nil {
		return fmt.Errorf("upload the manifest: %w", err)
	}
	if err := r.ready(ctx); err != nil {
		return fmt.Errorf("upload the manifest: %w", err)
	}
	return nil
}

// BaseBackup is a backup that the server sends: its archives, one after the
// other, then its manifest. The caller calls Next and reads what that names to
// its end, until Next returns io.EOF, then Finish.
type BaseBackup struct {
	// Start is where the backup's WAL starts: the redo point of its checkpoint.
	Start    wal.LSN
	Timeline wal.TimelineID
	// Tablespaces are those whose archives come, in the order of the archives
	// without the data directory's, which is the last.
	Tablespaces []BackupTablespace
	// Size is roughly how many bytes of tar come; 0 where that isn't known.
	Size int64

	session *Replication
	ctx     context.Context // of the one command that this is
	stop    func() bool
	list    bool // all archives come in one stream (15 and later)
	pending *BackupStream
	sent    int    // archives begun, before 15
	data    []byte // what is left of the last message
	open    bool   // the current stream has more
	done    bool   // the copying is over
}

// BackupTablespace is a tablespace of a backup.
type BackupTablespace struct {
	OID uint32
	// Location is its absolute path on the server's host; relative to the
	// data directory for one created in place.
	Location string
}

// BackupStream is one of the streams of a backup.
type BackupStream struct {
	Manifest bool   // the backup manifest; else a tar
	OID      uint32 // of the tablespace; 0 for the data directory
}

// ErrNotIncremental means that the server can't tell what has changed since the
// backup whose manifest was sent. The session is ready for another command.
var ErrNotIncremental = errors.New("the server can't send what changed since the parent")

// StartBaseBackup sends BASE_BACKUP and returns when the server has begun the
// backup, after its checkpoint. ctx is that of the whole backup.
func (r *Replication) StartBaseBackup(ctx context.Context, o BaseBackupOptions) (*BaseBackup, error) {
	b := &BaseBackup{session: r, ctx: ctx, list: r.version >= firstWithOptionList}
	b.stop = r.guard(ctx)
	err := r.begin(o.command(r.version))
	if err == nil {
		b.Start, b.Timeline, err = r.position(ctx)
	}
	if err == nil {
		err = b.readTablespaces()
	}
	if err == nil {
		return b, nil
	}
	// As PrepareForIncrementalBackup answers, in
	// src/backend/backup/basebackup_incremental.c.
	if o.Incremental && code(err) == notInPrerequisiteState && r.ready(ctx) == nil {
		err = fmt.Errorf("%w: %w", ErrNotIncremental, err)
	}
	b.stop()
	return nil, fmt.Errorf("start backup: %w", err)
}

func (b *BaseBackup) readTablespaces() error {
	rows, err := b.session.rows(b.ctx)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if len(row) < 2 {
			return errors.New("the server's list of tablespaces has too few columns")
		}
		if len(row) > 2 && row[2] != nil {
			kilobytes, err := number[uint64](row[2])
			if err != nil {
				return err
			}
			b.Size += int64(kilobytes) << 10
		}
		if row[0] == nil { // the data directory
			if i != len(rows)-1 {
				return errors.New("the data directory isn't the last that the server sends")
			}
			continue
		}
		oid, err := number[uint32](row[0])
		if err != nil {
			return err
		}
		b.Tablespaces = append(b.Tablespaces, BackupTablespace{OID: oid, Location: string(row[1])})
	}
	return nil
}

// Next goes to the next stream; io.EOF means that there is none.
func (b *BaseBackup) Next() (BackupStream, error) {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return BackupStream{}, err
	}
	next := b.nextOld
	if b.list {
		next = b.nextListed
	}
	stream, err := next()
	if err != nil && err != io.EOF {
		return BackupStream{}, fmt.Errorf("receive the backup: %w", err)
	}
	b.open, b.done = err == nil, err == io.EOF
	return stream, err
}

// nextOld takes the streams of 14: a copy operation for each tablespace, the
// data directory as the last, then one for the manifest.
func (b *BaseBackup) nextOld() (BackupStream, error) {
	if b.sent == len(b.Tablespaces)+2 {
		return BackupStream{}, io.EOF
	}
	message, err := b.session.receive(b.ctx)
	if err != nil {
		return BackupStream{}, err
	}
	if _, ok := message.(*pgproto3.CopyOutResponse); !ok {
		return BackupStream{}, fmt.Errorf("the server sent %T instead of an archive", message)
	}
	b.sent++
	switch i := b.sent - 1; {
	case i < len(b.Tablespaces):
		return BackupStream{OID: b.Tablespaces[i].OID}, nil
	case i == len(b.Tablespaces):
		return BackupStream{}, nil
	}
	return BackupStream{Manifest: true}, nil
}

// nextListed takes the one stream of 15 and later, in which messages say what
// follows.
func (b *BaseBackup) nextListed() (BackupStream, error) {
	if b.done {
		return BackupStream{}, io.EOF
	}
	if b.sent == 0 {
		message, err := b.session.receive(b.ctx)
		if err != nil {
			return BackupStream{}, err
		}
		if _, ok := message.(*pgproto3.CopyOutResponse); !ok {
			return BackupStream{}, fmt.Errorf("the server sent %T instead of the backup", message)
		}
		b.sent++
		b.open = true
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			return BackupStream{}, errors.New("the server sent data of no archive")
		}
	}
	if b.pending == nil {
		return BackupStream{}, io.EOF
	}
	stream := *b.pending
	b.pending = nil
	return stream, nil
}

// Read reads the current stream.
func (b *BaseBackup) Read(p []byte) (int, error) {
	for b.open && len(b.data) == 0 {
		if err := b.more(); err != nil {
			b.open = false
			return 0, fmt.Errorf("receive the backup: %w", err)
		}
	}
	if !b.open {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// more takes the next message of the stream. Its bytes are valid until the one
// behind it is asked for.
func (b *BaseBackup) more() error {
	message, err := b.session.receive(b.ctx)
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case *pgproto3.CopyDone:
		b.open = false
		return nil
	case *pgproto3.CopyData:
		if !b.list {
			b.data = m.Data
			return nil
		}
		return b.listed(m.Data)
	}
	return fmt.Errorf("the server sent %T in the middle of an archive", message)
}

// listed reads a message of the stream of 15 and later
// (src/backend/backup/basebackup_copy.c).
func (b *BaseBackup) listed(message []byte) error {
	if len(message) == 0 {
		return errors.New("the server sent an empty message")
	}
	kind, content := message[0], message[1:]
	switch kind {
	case 'd':
		b.data = content
	case 'p': // progress
		if len(content) != 8 {
			return errors.New("the server sent a malformed message of progress")
		}
	case 'm':
		b.open, b.pending = false, &BackupStream{Manifest: true}
	case 'n':
		name, _, _ := bytes.Cut(content, []byte{0})
		stream, err := b.archive(string(name))
		if err != nil {
			return err
		}
		b.open, b.pending = false, &stream
	default:
		return fmt.Errorf("the server sent a message of unknown kind %q", kind)
	}
	return nil
}

// archive tells by an archive's name what it is of: base.tar, 16384.tar.
func (b *BaseBackup) archive(name string) (BackupStream, error) {
	base, ok := strings.CutSuffix(name, ".tar")
	if !ok {
		return BackupStream{}, fmt.Errorf("the server sent an archive %q, which isn't a tar", name)
	}
	if base == "base" {
		return BackupStream{}, nil
	}
	for _, t := range b.Tablespaces {
		if strconv.FormatUint(uint64(t.OID), 10) == base {
			return BackupStream{OID: t.OID}, nil
		}
	}
	return BackupStream{}, fmt.Errorf("the server sent an archive %q of no tablespace", name)
}

// BaseBackupEnd is how a backup ended.
type BaseBackupEnd struct {
	Stop     wal.LSN
	Timeline wal.TimelineID
	// Damage are the server's warnings of pages whose checksums are wrong;
	// empty for a good backup.
	Damage []string
}

const (
	dataCorrupted          = "XX001"
	notInPrerequisiteState = "55000"
)

// Finish reads what the server says behind the last stream. The session is
// ready for another command then.
func (b *BaseBackup) Finish() (BaseBackupEnd, error) {
	defer b.stop()
	var end BaseBackupEnd
	var err error
	end.Stop, end.Timeline, err = b.session.position(b.ctx)
	if err != nil {
		return end, fmt.Errorf("end backup: %w", err)
	}
	err = b.session.ready(b.ctx)
	// Bad pages make the command fail when it has sent everything, its end too.
	if code(err) == dataCorrupted {
		damage, more := b.session.notices.take()
		if end.Damage = damage; len(damage) == 0 {
			end.Damage = []string{err.Error()}
		}
		if more > 0 {
			end.Damage = append(end.Damage, fmt.Sprintf("%d more warnings", more))
		}
		err = b.session.ready(b.ctx)
	}
	if err != nil {
		return end, fmt.Errorf("end backup: %w", err)
	}
	return end, nil
}
