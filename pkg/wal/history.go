package wal

import (
	"bytes"
	"fmt"
	"strconv"
)

// History is the descent of a timeline: the path that recovery follows
// through the WAL of its ancestors, as readTimeLineHistory in
// src/backend/access/transam/timeline.c reads it. A History without entries
// is that of a timeline without parents, as timeline 1 is.
type History struct {
	Timeline TimelineID
	// Entries are the ancestors of Timeline, oldest first, with strictly
	// increasing ids. Their switch points may go back: a cluster that was
	// recovered along timeline 2, but only to a moment before timeline 2
	// began, lists 2 with a switch point before 1's. Such an ancestor owns
	// no part of the path.
	Entries []HistoryEntry
}

// HistoryEntry is one ancestor of a timeline.
type HistoryEntry struct {
	Timeline TimelineID
	Switch   LSN    // where the next timeline begins: its first byte
	Reason   string // for people, as PostgreSQL wrote it
}

// ParseHistory reads the content of timeline tli's history file. Blank lines
// and lines that start with # are skipped, as PostgreSQL does, and what
// PostgreSQL would refuse is refused.
func ParseHistory(tli TimelineID, data []byte) (History, error) {
	history := History{Timeline: tli}
	last := TimelineID(0)
	number := 0
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		entry, err := parseHistoryEntry(line)
		if err != nil {
			return History{}, fmt.Errorf("parse %s, line %d: %w", HistoryName(tli), number, err)
		}
		if entry.Timeline <= last {
			return History{}, fmt.Errorf("parse %s, line %d: timeline %d doesn't come after timeline %d",
				HistoryName(tli), number, entry.Timeline, last)
		}
		if entry.Timeline >= tli {
			return History{}, fmt.Errorf("parse %s, line %d: timeline %d can't be an ancestor of timeline %d",
				HistoryName(tli), number, entry.Timeline, tli)
		}
		last = entry.Timeline
		history.Entries = append(history.Entries, entry)
	}
	return history, nil
}

func parseHistoryEntry(line []byte) (HistoryEntry, error) {
	id, rest := cutField(line)
	position, reason := cutField(rest)
	n, err := strconv.ParseUint(string(id), 10, 32)
	if err != nil {
		return HistoryEntry{}, fmt.Errorf("%s is not a timeline id", quote(string(id)))
	}
	lsn, err := ParseLSN(string(position))
	if err != nil {
		return HistoryEntry{}, err
	}
	return HistoryEntry{TimelineID(n), lsn, string(reason)}, nil
}

// cutField splits a line behind its first field and the space after that.
func cutField(line []byte) (field, rest []byte) {
	end := bytes.IndexAny(line, " \t\v\f\r")
	if end < 0 {
		return line, nil
	}
	return line[:end], bytes.TrimSpace(line[end:])
}

// Format writes the history file of h, as writeTimeLineHistory does.
func (h History) Format() []byte {
	var data []byte
	for _, e := range h.Entries {
		data = fmt.Appendf(data, "%d\t%s\t%s\n", uint32(e.Timeline), e.Switch, e.Reason)
	}
	return data
}

// Parent returns the entry of the timeline that h's timeline forked from, or
// false if it has no parent.
func (h History) Parent() (HistoryEntry, bool) {
	if len(h.Entries) == 0 {
		return HistoryEntry{}, false
	}
	return h.Entries[len(h.Entries)-1], true
}

// Begin returns the position of the first byte of a timeline on the path: the
// switch point of its parent, 0 for the oldest. It reports false for a
// timeline that isn't in the history.
func (h History) Begin(tli TimelineID) (LSN, bool) {
	begin := LSN(0)
	for _, e := range h.Entries {
		if e.Timeline == tli {
			return begin, true
		}
		begin = e.Switch
	}
	return begin, tli == h.Timeline
}

// TimelineAt returns the timeline that owns the byte at lsn, as
// tliOfPointInHistory: a switch point itself belongs to the child. For a
// position that is an end (of a record, of a backup), ask for the byte
// before it, as PostgreSQL does with minRecoveryPoint.
func (h History) TimelineAt(lsn LSN) TimelineID {
	tli := h.Timeline
	for i := len(h.Entries) - 1; i >= 0; i-- {
		if h.Entries[i].Switch <= lsn {
			return tli
		}
		tli = h.Entries[i].Timeline
	}
	return tli
}

// Contains tells whether the byte at lsn of timeline tli lies on the path.
func (h History) Contains(tli TimelineID, lsn LSN) bool {
	return h.TimelineAt(lsn) == tli
}

// SegmentTimeline returns the timeline in whose name recovery along h finds a
// segment: the newest one that begins in that segment or before it, so a
// fork's segment comes from the child. See XLogFileReadAnyTLI in
// src/backend/access/transam/xlogrecovery.c.
func (h History) SegmentTimeline(segno, segmentSize uint64) TimelineID {
	tli := h.Timeline
	for i := len(h.Entries) - 1; i >= 0; i-- {
		if SegmentNumber(h.Entries[i].Switch, segmentSize) <= segno {
			return tli
		}
		tli = h.Entries[i].Timeline
	}
	return tli
}
