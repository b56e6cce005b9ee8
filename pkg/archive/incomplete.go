package archive

import (
	"os"
	"path/filepath"

	"github.com/walship/walship/pkg/wal"
)

// incomplete tells whether a segment is the last one of a timeline as a
// standby received it: with archive_mode = always it is handed over, incomplete,
// under a whole segment's name (rule 17). The standby may have been promoted
// since, so that what it knows of timelines counts too.
func (p *push) incomplete() bool {
	return p.name.Kind == wal.KindSegment && p.summary.Ending == wal.EndingOpen && (p.o.Standby || p.forked())
}

// forked tells whether, by a history file beside the segment, the segment's
// timeline was left in it: the server followed that to another one.
func (p *push) forked() bool {
	folder := filepath.Dir(p.path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		p.o.Log.Warn("history files can't be looked for", "error", err)
		return false
	}
	size := uint64(p.header.PlainSize)
	start := p.name.Start(size)
	for _, entry := range entries {
		name, err := wal.ParseFileName(entry.Name())
		if err != nil || name.Kind != wal.KindTimelineHistory {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			p.o.Log.Warn("a history file can't be read", "error", err)
			continue
		}
		history, err := wal.ParseHistory(name.Timeline, data)
		if err != nil {
			p.o.Log.Warn("a history file can't be read", "error", err)
			continue
		}
		for _, ancestor := range history.Entries {
			if ancestor.Timeline == p.name.Timeline && start <= ancestor.Switch && uint64(ancestor.Switch-start) < size {
				return true
			}
		}
	}
	return false
}

// becomePartial archives a segment under the name of a partial one: the whole
// segment's name belongs to whoever completes it.
func (p *push) becomePartial() {
	p.name.Kind = wal.KindPartial
	p.key = p.repository.FileKey(p.o.SystemID, p.name)
	p.begin(p.header.PlainSize)
}
