package status

import (
	"fmt"
	"slices"

	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/wal"
)

// Way is what a restore takes: from a backup along the timelines to where
// recovery ends.
type Way struct {
	Backup string // its id
	From   wal.LSN
	Legs   []Leg
	To     wal.LSN // where recovery ends
	Target string  // what was asked for, in words
	LastIn string  // the last transaction that is in, in words; "" if it isn't known
	Broken bool    // the target can't be reached
}

// Leg is the part of a way on one timeline.
type Leg struct {
	Timeline wal.TimelineID
	From, To wal.LSN
}

// WayOf is the way that a plan takes; target says what was asked for.
func WayOf(p *restore.Plan, target string) (*Way, error) {
	from, err := wal.ParseLSN(p.Backup.StartLSN)
	if err != nil {
		return nil, err
	}
	to := p.EndsAt
	if to == 0 {
		if to, err = wal.ParseLSN(p.WAL.Until); err != nil {
			return nil, err
		}
	}
	w := &Way{Backup: p.Backup.ID, From: from, To: max(from, to), Target: target, Broken: p.Err() != nil}
	if e := p.LastIn; e != nil {
		w.LastIn = fmt.Sprintf("transaction %d, %s", e.XID, restore.FormatTime(e.Time))
	}
	for _, step := range p.Path {
		start, err := wal.ParseLSN(step.Start)
		if err != nil {
			return nil, err
		}
		leg := Leg{step.Timeline, max(start, from), w.To}
		if step.End != "" {
			end, err := wal.ParseLSN(step.End)
			if err != nil {
				return nil, err
			}
			leg.To = min(end, w.To)
		}
		if leg.From > w.To {
			break
		}
		w.Legs = append(w.Legs, leg)
	}
	return w, nil
}

// end is the leg on which recovery ends.
func (w *Way) end() Leg { return w.Legs[len(w.Legs)-1] }

// scale maps LSNs to 0 … 1. Half of the room follows the amount of WAL, the
// other half is shared out evenly between the LSNs where something happens, so
// that a short branch on a long timeline can be seen, and what lies behind
// something is always drawn to the right of it.
type scale struct{ points []wal.LSN }

// maxScalePoints bounds how many LSNs get room of their own.
const maxScalePoints = 60

func newScale(c *Cluster, way *Way) scale {
	var must, may []wal.LSN
	for _, t := range c.Timelines {
		if t.Parent != 0 {
			must = append(must, t.Begin)
		}
		if t.End != 0 {
			must = append(must, t.End)
		}
		for _, run := range t.Archived {
			may = append(may, max(run.Start, t.Begin), min(run.End, t.End))
		}
		for _, b := range t.Backups {
			may = append(may, b.Start)
		}
	}
	if way != nil {
		must = append(must, way.From, way.To)
	}
	slices.Sort(must)
	must = slices.Compact(must)
	if n := len(must); n > maxScalePoints {
		must = []wal.LSN{must[0], must[n-1]}
	}
	slices.Sort(may)
	may = slices.Compact(may)
	points := must
	if len(must)+len(may) <= maxScalePoints {
		points = append(points, may...)
	} else if len(may) > 0 {
		points = append(points, may[0], may[len(may)-1])
	}
	slices.Sort(points)
	return scale{slices.Compact(points)}
}

// at returns where an LSN lies, 0 to 1.
func (s scale) at(lsn wal.LSN) float64 {
	n := len(s.points)
	if n < 2 {
		return 0
	}
	first, last := s.points[0], s.points[n-1]
	lsn = min(max(lsn, first), last)
	i, found := slices.BinarySearch(s.points, lsn)
	rank := float64(i)
	if !found {
		before, behind := s.points[i-1], s.points[i]
		rank = float64(i-1) + float64(lsn-before)/float64(behind-before)
	}
	return 0.5*rank/float64(n-1) + 0.5*float64(lsn-first)/float64(last-first)
}
