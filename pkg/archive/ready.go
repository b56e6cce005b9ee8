package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/walship/walship/pkg/wal"
)

const (
	statusFolder = "archive_status" // in pg_wal
	readySuffix  = ".ready"
)

// waiting returns the segments, at most so many, that PostgreSQL will hand
// over right behind the segment at path, as far as can be seen now: those that
// follow it without a gap on its timeline and are ready.
//
// Every version hands over history files first and then the least name
// (pgarch_readyXlog in src/backend/postmaster/pgarch.c), from 15 on out of a
// list of up to 64 files that it made earlier. So a history file that waits
// goes before any segment here, and a backup history file or a partial
// segment between two segments goes before the second: both end the row. What
// waits of other timelines has its turn before or after it.
func waiting(path string, name wal.FileName, segmentSize uint64, most int) ([]wal.FileName, error) {
	folder, err := os.Open(filepath.Join(filepath.Dir(path), statusFolder))
	if err != nil {
		return nil, fmt.Errorf("look for segments that wait: %w", err)
	}
	defer folder.Close()
	entries, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("look for segments that wait: %w", err)
	}
	ready := make(map[wal.FileName]bool, len(entries))
	between := make(map[wal.FileName]bool) // the segments behind which something else comes first
	for _, entry := range entries {
		text, is := strings.CutSuffix(entry, readySuffix)
		if !is {
			continue
		}
		file, err := wal.ParseFileName(text)
		if err != nil {
			continue
		}
		switch file.Kind {
		case wal.KindSegment:
			ready[file] = true
		case wal.KindTimelineHistory:
			return nil, nil
		default:
			between[file.Segment()] = true
		}
	}
	var row []wal.FileName
	for ready[name] && !between[name] && len(row) < most {
		name = name.Next(segmentSize)
		if ready[name] {
			row = append(row, name)
		}
	}
	return row, nil
}
