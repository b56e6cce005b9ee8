package status

import (
	"slices"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/wal"
)

// stretch of segment numbers, from first up to, and without, end.
type segments struct{ first, end uint64 }

// reachable lists the stretches of a timeline, behind its fork, that a backup
// on the way to it leads to: the backup's own WAL is there, and all behind it
// up to there.
func (c *Cluster) reachable(h wal.History, ranges []archive.Range, backups []placed) []Stretch {
	begin, _ := h.Begin(h.Timeline)
	backups = whole(backups)
	var all []Stretch
	for _, run := range c.pathRuns(h, ranges) {
		s := Stretch{To: wal.LSN(run.end * c.SegmentSize)}
		for _, b := range backups {
			leads := h.TimelineAt(b.Start) == b.timeline && h.TimelineAt(b.Stop-1) == b.timeline &&
				wal.SegmentNumber(b.Start, c.SegmentSize) >= run.first && b.Stop <= s.To
			if leads && (s.Backup == "" || b.Stop < s.From) {
				s.From, s.Backup = b.Stop, b.ID
			}
		}
		if s.From = max(s.From, begin); s.Backup != "" && s.From < s.To {
			all = append(all, s)
		}
	}
	return all
}

// whole lists the backups that can be restored: they and all that they are
// based on can be read, and have their objects.
func whole(backups []placed) []placed {
	byID := map[string]Backup{}
	for _, b := range backups {
		byID[b.ID] = b.Backup
	}
	return slices.DeleteFunc(slices.Clone(backups), func(b placed) bool {
		link, there := b.Backup, true
		for range backups { // a chain isn't longer, unless it goes in a circle
			if !link.leads() || !there || link.Parent == "" {
				break
			}
			link, there = byID[link.Parent]
			there = there && !link.Degraded // nothing is based on that
		}
		return !link.leads() || !there || link.Parent != ""
	})
}

// pathRuns lists the runs of archived segments on the way to a timeline.
func (c *Cluster) pathRuns(h wal.History, ranges []archive.Range) []segments {
	var runs []segments
	for _, owner := range c.owners(h) {
		for _, r := range ranges {
			run := segments{wal.SegmentNumber(r.Start(), c.SegmentSize), wal.SegmentNumber(r.End()-1, c.SegmentSize) + 1}
			run.first, run.end = max(run.first, owner.first), min(run.end, owner.end)
			if r.First.Timeline != owner.timeline || run.first >= run.end {
				continue
			}
			if n := len(runs); n > 0 && runs[n-1].end == run.first {
				runs[n-1].end = run.end
				continue
			}
			runs = append(runs, run)
		}
	}
	return runs
}

// owner is a timeline and the segments that recovery finds in its name.
type owner struct {
	segments
	timeline wal.TimelineID
}

// owners lists which timeline's segments lead to the end of a history, as
// wal.History.SegmentTimeline says it of one.
func (c *Cluster) owners(h wal.History) []owner {
	owners := []owner{{segments{0, ^uint64(0)}, h.Timeline}}
	for _, e := range slices.Backward(h.Entries) {
		first := &owners[len(owners)-1]
		fork := wal.SegmentNumber(e.Switch, c.SegmentSize)
		if fork >= first.end {
			// Recovery never comes to what this child has behind it.
			owners = owners[:len(owners)-1]
			owners = append(owners, owner{segments{0, first.end}, e.Timeline})
			continue
		}
		first.first = fork
		owners = append(owners, owner{segments{0, fork}, e.Timeline})
	}
	slices.Reverse(owners)
	return slices.DeleteFunc(owners, func(o owner) bool { return o.first >= o.end })
}
