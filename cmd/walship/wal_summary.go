package main

import (
	"fmt"

	"github.com/walship/walship/pkg/wal"
)

// endings say in words how the WAL of a segment ends.
var endings = map[wal.Ending]string{
	wal.EndingFull:     "its end: the last record ends there",
	wal.EndingSwitch:   "its end, by a segment switch",
	wal.EndingCrossing: "its end: the last record goes on in the next segment",
	wal.EndingOpen:     "there: nothing valid stands behind it",
	wal.EndingDamaged:  "there: the record behind it is damaged",
}

// summaryText says for people what the summary in a header says: keys and
// values. One that can't be read is said to be so.
func summaryText(fields []wal.Field) (lines [][2]string) {
	s, err := wal.ParseSummary(fields)
	add := func(key, format string, args ...any) {
		lines = append(lines, [2]string{key, fmt.Sprintf(format, args...)})
	}
	switch {
	case err != nil:
		add("summary", "can't be read: %v", err)
		return lines
	case s.Ending == 0:
		return nil
	}
	add("valid WAL", "until %s, %s", s.End, endings[s.Ending])
	if s.First == 0 {
		add("records", "none starts here")
	} else {
		add("records", "%d, from %s to %s, after %s", s.Records, s.First, s.Last, s.Prev)
	}
	if s.Overwritten != 0 {
		add("", "the one at %s, cut short by a crash, is overwritten", s.Overwritten)
	}
	if s.Head.Length > 0 {
		add("", "before them %d bytes of one that began earlier", s.Head.Length)
	}
	if s.Tail.Length > 0 {
		add("", "behind them the first %d bytes of one of %d", s.Tail.Length, s.Tail.Remaining)
	}
	add("transactions", "%d commits, %d aborts", s.Commits, s.Stops-min(s.Commits, s.Stops))
	if s.Stops > 0 {
		add("", "ended from %s to %s", s.MinTime, s.MaxTime)
	}
	key := "restore points"
	for _, point := range s.RestorePoints {
		add(key, "%q at %s, LSN %s", point.Name, point.Time, point.LSN)
		key = ""
	}
	if n := s.RestorePointCount - min(s.RestorePointCount, uint64(len(s.RestorePoints))); n > 0 {
		add(key, "and %d more", n)
	}
	add("record chain", "sha256:%x", s.Chain)
	return lines
}
