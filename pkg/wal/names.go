package wal

import (
	"fmt"
	"strings"
)

// Kind says which of the files of pg_wal a name belongs to.
type Kind uint8

// The kinds of files that PostgreSQL archives.
const (
	// KindSegment is a WAL segment: 00000001000000000000003A.
	KindSegment Kind = iota + 1
	// KindPartial is the unfinished last segment of a timeline, with the
	// suffix .partial: 00000001000000000000003A.partial. A second copy that has
	// more of it, or less, is named by where its WAL ends, too, which PostgreSQL
	// itself never does: 00000001000000000000003A.00ABC128.partial.
	KindPartial
	// KindBackupHistory describes a base backup, and is named by the position
	// where that started: 00000001000000000000003A.00000028.backup.
	KindBackupHistory
	// KindTimelineHistory lists the ancestors of a timeline:
	// 00000002.history.
	KindTimelineHistory
)

// String names a kind for messages.
func (k Kind) String() string {
	switch k {
	case KindSegment:
		return "WAL segment"
	case KindPartial:
		return "partial WAL segment"
	case KindBackupHistory:
		return "backup history file"
	case KindTimelineHistory:
		return "timeline history file"
	}
	return "unknown WAL file"
}

// FileName is the name of a file in pg_wal, taken apart. Names are comparable
// and equal when their spellings are.
//
// The layout is that of XLogFileName, TLHistoryFileName and
// BackupHistoryFileName in src/include/access/xlog_internal.h.
type FileName struct {
	Kind     Kind
	Timeline TimelineID
	Log, Seg uint32 // not of a KindTimelineHistory
	// Offset in the segment, in bytes, of a KindBackupHistory and of a second
	// copy of a KindPartial, whose WAL ends there; else 0.
	Offset uint32
}

const (
	partialSuffix  = ".partial"
	backupSuffix   = ".backup"
	historySuffix  = ".history"
	segmentNameLen = 24
	bytesPerLog    = 1 << 32
)

// ParseFileName reads the name of a file as PostgreSQL hands it to
// archive_command and restore_command, or of a second copy of a partial
// segment. It accepts exactly the spellings that String writes, so a name that it
// returns has no other.
//
// How many segments have the same Log depends on the segment size, which the
// name doesn't say: see ValidFor.
func ParseFileName(s string) (FileName, error) {
	name, ok := parseFileName(s)
	switch {
	case !ok:
		return FileName{}, fmt.Errorf("parse WAL file name %s: PostgreSQL has no file of such a name", quote(s))
	case name.Timeline == 0:
		return FileName{}, fmt.Errorf("parse WAL file name %s: there is no timeline 0", quote(s))
	case name.Seg >= bytesPerLog/MinSegmentSize || name.Offset > name.maxOffset(MaxSegmentSize):
		return FileName{}, fmt.Errorf("parse WAL file name %s: no segment size allows these numbers", quote(s))
	}
	return name, nil
}

func parseFileName(s string) (FileName, bool) {
	if digits, ok := strings.CutSuffix(s, historySuffix); ok {
		tli, ok := parseHex8(digits)
		return FileName{Kind: KindTimelineHistory, Timeline: TimelineID(tli)}, ok
	}
	if len(s) < segmentNameLen {
		return FileName{}, false
	}
	tli, ok1 := parseHex8(s[0:8])
	log, ok2 := parseHex8(s[8:16])
	seg, ok3 := parseHex8(s[16:24])
	name := FileName{Timeline: TimelineID(tli), Log: log, Seg: seg}
	switch rest := s[segmentNameLen:]; {
	case !ok1 || !ok2 || !ok3:
		return FileName{}, false
	case rest == "":
		name.Kind = KindSegment
		return name, true
	case rest == partialSuffix:
		name.Kind = KindPartial
		return name, true
	default:
		rest, ok1 := strings.CutPrefix(rest, ".")
		digits, ok2 := strings.CutSuffix(rest, backupSuffix)
		name.Kind = KindBackupHistory
		if !ok2 {
			digits, ok2 = strings.CutSuffix(rest, partialSuffix)
			name.Kind = KindPartial
		}
		name.Offset, ok3 = parseHex8(digits)
		return name, ok1 && ok2 && ok3 && (name.Kind == KindBackupHistory || name.Offset > 0)
	}
}

// parseHex8 reads exactly 8 hexadecimal digits in upper case.
func parseHex8(s string) (n uint32, ok bool) {
	if len(s) != 8 {
		return 0, false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			n = n<<4 | uint32(c-'0')
		case 'A' <= c && c <= 'F':
			n = n<<4 | uint32(c-'A'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// maxOffset is the greatest Offset in a segment of a size: WAL may end where
// the segment does.
func (n FileName) maxOffset(segmentSize uint64) uint32 {
	if n.Kind == KindPartial {
		return uint32(segmentSize)
	}
	return uint32(segmentSize - 1)
}

// String spells the name as PostgreSQL does.
func (n FileName) String() string {
	switch n.Kind {
	case KindTimelineHistory:
		return n.Timeline.String() + historySuffix
	case KindPartial:
		if n.Offset > 0 {
			return fmt.Sprintf("%s.%08X%s", n.segment(), n.Offset, partialSuffix)
		}
		return n.segment() + partialSuffix
	case KindBackupHistory:
		return fmt.Sprintf("%s.%08X%s", n.segment(), n.Offset, backupSuffix)
	}
	return n.segment()
}

func (n FileName) segment() string {
	return fmt.Sprintf("%08X%08X%08X", uint32(n.Timeline), n.Log, n.Seg)
}

// SegmentName names the segment with a number on a timeline.
func SegmentName(tli TimelineID, segno, segmentSize uint64) FileName {
	perLog := bytesPerLog / segmentSize
	return FileName{
		Kind:     KindSegment,
		Timeline: tli,
		Log:      uint32(segno / perLog),
		Seg:      uint32(segno % perLog),
	}
}

// HistoryName names the history file of a timeline.
func HistoryName(tli TimelineID) FileName {
	return FileName{Kind: KindTimelineHistory, Timeline: tli}
}

// ValidFor tells whether a cluster with segments of this size can have a
// file of this name.
func (n FileName) ValidFor(segmentSize uint64) bool {
	return n.Kind == KindTimelineHistory ||
		uint64(n.Seg) < bytesPerLog/segmentSize && n.Offset <= n.maxOffset(segmentSize)
}

// SegmentNumber counts the named segment from the WAL's beginning. The name
// of a timeline history file has none.
func (n FileName) SegmentNumber(segmentSize uint64) uint64 {
	return uint64(n.Log)*(bytesPerLog/segmentSize) + uint64(n.Seg)
}

// Start returns the position of the named segment's first byte.
func (n FileName) Start(segmentSize uint64) LSN {
	return LSN(n.SegmentNumber(segmentSize) * segmentSize)
}

// Segment names the segment that a .partial or .backup file belongs to.
func (n FileName) Segment() FileName {
	return FileName{Kind: KindSegment, Timeline: n.Timeline, Log: n.Log, Seg: n.Seg}
}

// Next names the segment that follows on the same timeline.
func (n FileName) Next(segmentSize uint64) FileName {
	return SegmentName(n.Timeline, n.SegmentNumber(segmentSize)+1, segmentSize)
}
