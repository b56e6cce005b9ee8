package pgdata

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/wal"
)

const maxLabelSize = 64 << 10 // bytes; PostgreSQL's own are below 2 KiB

// BackupLabel is the content of a backup_label file
// (build_backup_content in src/backend/access/transam/xlogbackup.c; xlog.c
// before 15).
type BackupLabel struct {
	Start       wal.LSN // START WAL LOCATION: where redo starts
	StartFile   wal.FileName
	Checkpoint  wal.LSN
	Method      string // "streamed"
	From        string // "primary" or "standby"
	StartTime   string // as the server printed it, in its own zone
	Label       string
	Timeline    wal.TimelineID
	Incremental bool // 17 and later: INCREMENTAL FROM LSN is there
	// ParentStart and ParentTimeline are the start of the backup that an
	// incremental one is based on.
	ParentStart    wal.LSN
	ParentTimeline wal.TimelineID
}

// ParseBackupLabel decodes a backup_label: its lines in PostgreSQL's order,
// nothing else.
func ParseBackupLabel(data []byte) (BackupLabel, error) {
	if len(data) > maxLabelSize {
		return BackupLabel{}, fmt.Errorf("parse backup_label: it has more than %d bytes", maxLabelSize)
	}
	p := labelParser{rest: string(data)}
	var l BackupLabel
	l.Start, l.StartFile = p.location("START WAL LOCATION")
	l.Checkpoint = p.lsn("CHECKPOINT LOCATION")
	l.Method = p.text("BACKUP METHOD")
	l.From = p.text("BACKUP FROM")
	l.StartTime = p.text("START TIME")
	l.Label = p.text("LABEL")
	l.Timeline = p.timeline("START TIMELINE")
	if p.rest != "" {
		l.Incremental = true
		l.ParentStart = p.lsn(incrementalKey + "LSN")
		l.ParentTimeline = p.timeline(incrementalKey + "TLI")
	}
	if p.err == nil && p.rest != "" {
		p.fail("there are lines behind the last known one")
	}
	if p.err == nil && l.StartFile.Timeline != l.Timeline {
		p.fail("START WAL LOCATION and START TIMELINE disagree")
	}
	if p.err != nil {
		return BackupLabel{}, fmt.Errorf("parse backup_label: %w", p.err)
	}
	return l, nil
}

// incrementalKey begins the lines that only an incremental backup's label has.
const incrementalKey = "INCREMENTAL FROM "

// AppendIncremental adds to the label of a backup that it is based on the one
// which started at an LSN of a timeline, as PostgreSQL 17 and later write it.
// A server of these doesn't start from such a label.
func AppendIncremental(label []byte, start wal.LSN, timeline wal.TimelineID) []byte {
	return fmt.Appendf(label, incrementalKey+"LSN: %s\n"+incrementalKey+"TLI: %d\n", start, uint32(timeline))
}

// CutIncrementalLabel returns a label without what AppendIncremental added,
// for a directory in which the backup is put together with what it is based on.
func CutIncrementalLabel(label []byte) []byte {
	var rest []byte
	for line := range bytes.Lines(label) {
		if !bytes.HasPrefix(line, []byte(incrementalKey)) {
			rest = append(rest, line...)
		}
	}
	return rest
}

// labelParser takes lines "KEY: value" off rest, and remembers the first
// error.
type labelParser struct {
	rest string
	err  error
}

func (p *labelParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *labelParser) text(key string) string {
	if p.err != nil {
		return ""
	}
	line, rest, ended := strings.Cut(p.rest, "\n")
	value, found := strings.CutPrefix(line, key+": ")
	if !found || !ended {
		p.fail("line %q is missing", key)
		return ""
	}
	p.rest = rest
	return value
}

func (p *labelParser) lsn(key string) wal.LSN {
	value := p.text(key)
	if p.err != nil {
		return 0
	}
	lsn, err := wal.ParseLSN(value)
	if err != nil {
		p.fail("%s: %w", key, err)
	}
	return lsn
}

func (p *labelParser) timeline(key string) wal.TimelineID {
	value := p.text(key)
	if p.err != nil {
		return 0
	}
	tli, err := strconv.ParseUint(value, 10, 32)
	if err != nil || tli == 0 {
		p.fail("%s: %q is not a timeline", key, value)
	}
	return wal.TimelineID(tli)
}

// location reads "0/2000028 (file 000000010000000000000002)".
func (p *labelParser) location(key string) (wal.LSN, wal.FileName) {
	value := p.text(key)
	if p.err != nil {
		return 0, wal.FileName{}
	}
	position, file, _ := strings.Cut(value, " ")
	file, opened := strings.CutPrefix(file, "(file ")
	file, closed := strings.CutSuffix(file, ")")
	lsn, err := wal.ParseLSN(position)
	if err != nil {
		p.fail("%s: %w", key, err)
		return 0, wal.FileName{}
	}
	name, err := wal.ParseFileName(file)
	if err != nil || !opened || !closed || name.Kind != wal.KindSegment {
		p.fail("%s: %q doesn't name a segment", key, value)
	}
	return lsn, name
}
