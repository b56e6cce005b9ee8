package status

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/walship/walship/pkg/wal"
)

// Widths of the drawing in columns.
const (
	minWidth = 60
	maxWidth = 200
)

// WriteTimeline draws a cluster's timelines as text of so many columns, within
// limits. way may be nil.
func WriteTimeline(w io.Writer, c *Cluster, way *Way, columns int) {
	columns = min(max(columns, minWidth), maxWidth)
	label := 0
	for _, t := range c.Timelines {
		label = max(label, len(t.name()))
	}
	if len(newScale(c, way).points) == 0 {
		fmt.Fprintln(w, "nothing is archived")
		return
	}
	d := &drawing{cluster: c, way: way, scale: newScale(c, way), width: columns - label - 2}
	d.draw()
	fmt.Fprintf(w, "%*s  %s\n", label, "LSN", d.axis())
	if way != nil {
		fmt.Fprintf(w, "%*s  %s\n", label, "", d.flag())
	}
	for i, t := range c.Timelines {
		fmt.Fprintf(w, "%*s  %s\n", label, t.name(), d.lane(i))
	}
	fmt.Fprintf(w, "\n%s\n", d.legend())
}

// drawing is a grid of characters, a row for each timeline.
type drawing struct {
	cluster *Cluster
	way     *Way
	scale   scale
	width   int
	rows    [][]rune
	used    map[rune]bool // of the marks
}

// What the drawing is made of.
const (
	markReachable = '━'
	markArchived  = '─'
	markGap       = '╳'
	markBackup    = '▲'
	markPart      = '△'
	markDegraded  = '▽'
	markWay       = '═'
	markTarget    = '◆'
	markFork      = '╰'
	markDown      = '│'
)

func (d *drawing) column(lsn wal.LSN) int {
	return int(d.scale.at(lsn)*float64(d.width-1) + 0.5)
}

func (d *drawing) draw() {
	d.used = map[rune]bool{}
	rowOf := map[wal.TimelineID]int{}
	for i := range d.cluster.Timelines {
		d.rows = append(d.rows, []rune(strings.Repeat(" ", d.width)))
		rowOf[d.cluster.Timelines[i].Timeline] = i
	}
	for i := range d.cluster.Timelines {
		d.drawTimeline(i)
	}
	if d.way != nil {
		for _, leg := range d.way.Legs {
			d.fill(rowOf[leg.Timeline], leg.From, leg.To, markWay)
		}
	}
	for i, t := range d.cluster.Timelines {
		d.drawBackups(i)
		if t.Parent != 0 {
			d.drawFork(rowOf[t.Parent], i, t.Begin)
		}
	}
	if d.way != nil {
		d.put(rowOf[d.way.end().Timeline], d.way.To, markTarget)
	}
}

// drawFork draws the line from a parent's row down to a child's.
func (d *drawing) drawFork(parent, child int, begin wal.LSN) {
	column := d.column(begin)
	for row := parent + 1; row < child; row++ {
		if d.rows[row][column] == ' ' {
			d.rows[row][column] = markDown
		}
	}
	d.rows[child][column] = markFork
}

func (d *drawing) drawTimeline(row int) {
	t := &d.cluster.Timelines[row]
	for _, run := range t.Archived {
		d.fill(row, max(run.Start, t.Begin), min(run.End, t.End), markArchived)
	}
	for _, s := range t.Reachable {
		d.fill(row, s.From, min(s.To, t.End), markReachable)
	}
	for _, gap := range t.Gaps {
		d.fill(row, max(gap.Start, t.Begin), gap.End, markGap)
	}
}

func (d *drawing) drawBackups(row int) {
	for _, b := range d.cluster.Timelines[row].Backups {
		mark := markBackup
		switch {
		case b.Degraded || !b.leads():
			mark = markDegraded
		case b.Parent != "":
			mark = markPart
		}
		d.put(row, b.Start, mark)
	}
}

// fill draws a stretch, of one column at least; what it can't be told from
// the beginning or the end of something else stays that.
func (d *drawing) fill(row int, from, to wal.LSN, mark rune) {
	for column := d.column(from); column <= d.column(to); column++ {
		d.rows[row][column] = mark
	}
	d.used[mark] = true
}

func (d *drawing) put(row int, at wal.LSN, mark rune) {
	d.rows[row][d.column(at)] = mark
	d.used[mark] = true
}

func (d *drawing) lane(row int) string { return strings.TrimRight(string(d.rows[row]), " ") }

// axis names LSNs above the columns where they are, as many as there is room
// for.
func (d *drawing) axis() string {
	line := []rune(strings.Repeat(" ", d.width))
	free := 0
	last := d.scale.points[len(d.scale.points)-1].String()
	for i, lsn := range d.scale.points {
		text, column := lsn.String(), d.column(lsn)
		end := i == len(d.scale.points)-1
		if end {
			column = d.width - len(text)
		}
		if column < free || !end && column+len(text)+1 > d.width-len(last) {
			continue
		}
		copy(line[column:], []rune(text))
		free = column + len(text) + 2
	}
	return strings.TrimRight(string(line), " ")
}

// flag names the target above its column.
func (d *drawing) flag() string {
	text := []rune(plain(d.way.Target) + " ▼")
	if d.way.Broken {
		text = []rune(plain(d.way.Target) + " (can't be reached) ▼")
	}
	column := d.column(d.way.To)
	if start := column - len(text) + 1; start >= 0 {
		return strings.Repeat(" ", start) + string(text)
	}
	text = append([]rune("▼ "), text[:len(text)-2]...)
	return strings.Repeat(" ", column) + string(text)
}

func (d *drawing) legend() string {
	var parts []string
	for _, entry := range []struct {
		mark rune
		text string
	}{
		{markReachable, "can be reached"}, {markArchived, "archived, no backup leads there"}, {markGap, "missing"},
		{markBackup, "backup"}, {markPart, "incremental backup"}, {markDegraded, "degraded backup"}, {markWay, "the restore's way"}, {markTarget, "where it ends"},
	} {
		if d.used[entry.mark] {
			parts = append(parts, string(entry.mark)+" "+entry.text)
		}
	}
	return strings.Join(append(parts, "(the LSNs aren't to scale)"), "   ")
}

// plain takes control characters out of a text that others wrote.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// timeText is a time in UTC, to the second.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05+00:00") }
