package status

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// The measures of the picture, in the units of its viewBox.
const (
	svgWidth   = 1200
	svgLeft    = 170 // where the bars begin; names stand to the left
	svgRight   = 1170
	svgTop     = 56 // of the first timeline
	svgFlag    = 44 // room for the target above it
	svgRow     = 92
	svgBar     = 16
	svgMark    = 7   // half of the width and height of a backup's mark
	svgLetter  = 6.7 // mean width of a letter of the labels
	svgCaption = 7.6 // of the larger ones
)

// svgStyle gives the colours, for light and dark surroundings.
const svgStyle = `
  svg { --paper: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #e3e7ec; --fork: #7d8999; --reach: #2f6fb3; --kept: #a9b8c9; --gap: #c62f2f; --way: #e08a00; --mark: #14385f; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #14181f; --ink: #e8ecf2; --soft: #9aa5b4; --line: #262e39; --fork: #8b97a8; --reach: #4f97e0; --kept: #55647a; --gap: #ff6b6b; --way: #ffb347; --mark: #cfe3fa; }
  }
  text { font: 13px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
  .title { font-size: 17px; font-weight: 600; } .name { font-size: 14px; font-weight: 600; }
  .small { font-size: 12px; fill: var(--soft); paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; } .end { text-anchor: end; } .mid { text-anchor: middle; }
  .paper { fill: var(--paper); } .reach { fill: var(--reach); } .kept { fill: var(--kept); }
  .gap { fill: none; stroke: var(--gap); stroke-width: 2; stroke-dasharray: 5 4; } .gaptext { fill: var(--gap); }
  .fork { fill: none; stroke: var(--fork); stroke-width: 2.5; } .knot { fill: var(--fork); stroke: var(--paper); stroke-width: 1.5; } .tick { stroke: var(--line); stroke-width: 1; }
  .mark { fill: var(--mark); stroke: var(--paper); stroke-width: 1.5; } .part { fill: var(--paper); stroke: var(--mark); } .chain { stroke: var(--mark); stroke-width: 1.5; } .bad { fill: var(--gap); stroke: var(--paper); } .lost { fill: var(--gap); } .count { fill: var(--paper); font-size: 11px; font-weight: 600; }
  .way { fill: none; stroke: var(--way); stroke-width: 6; stroke-linejoin: round; stroke-linecap: round; } .target { stroke: var(--way); stroke-width: 1.5; stroke-dasharray: 3 3; }
  .flag { fill: var(--way); } .flagtext { font-weight: 600; }`

// WriteSVG draws a cluster's timelines as an SVG that needs nothing else. now
// is when that was; the zero time leaves it out. way may be nil.
func WriteSVG(w io.Writer, c *Cluster, way *Way, now time.Time) error {
	p := &svg{cluster: c, way: way, scale: newScale(c, way), rows: map[wal.TimelineID]int{}}
	for i := range c.Timelines {
		p.rows[c.Timelines[i].Timeline] = i
	}
	p.top = svgTop
	if way != nil {
		p.top += svgFlag
	}
	p.height = p.top + svgRow*len(c.Timelines) + 84
	title := fmt.Sprintf("Timelines of cluster %d", c.SystemID)
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title">`+"\n", svgWidth, p.height, svgWidth, p.height)
	p.put(`<title id="title">%s</title>`+"\n<style>%s\n</style>\n", escape(title), svgStyle)
	p.put(`<rect class="paper" width="%d" height="%d"/>`+"\n", svgWidth, p.height)
	if !now.IsZero() {
		title += ", " + timeText(now)
	}
	p.text("title", 24, 34, title)
	if len(p.scale.points) == 0 {
		p.text("small", 24, 64, "nothing is archived")
	} else {
		p.draw()
	}
	p.put("</svg>\n")
	if _, err := io.WriteString(w, p.out.String()); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

// svg is a picture that is being drawn.
type svg struct {
	cluster *Cluster
	way     *Way
	scale   scale
	rows    map[wal.TimelineID]int
	top     int // of the first timeline
	height  int
	knots   [][2]float64 // where timelines fork
	out     strings.Builder
}

func (p *svg) put(format string, args ...any) { fmt.Fprintf(&p.out, format, args...) }

func (p *svg) text(class string, x, y float64, text string) {
	p.put(`<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, escape(text))
}

func (p *svg) x(lsn wal.LSN) float64 { return svgLeft + p.scale.at(lsn)*(svgRight-svgLeft) }

// y is the middle of a timeline's bar.
func (p *svg) y(t wal.TimelineID) float64 { return float64(p.top + p.rows[t]*svgRow + svgRow/2) }

func (p *svg) draw() {
	p.axis()
	for i := range p.cluster.Timelines {
		p.fork(&p.cluster.Timelines[i])
	}
	for i := range p.cluster.Timelines {
		p.bar(&p.cluster.Timelines[i])
	}
	for _, knot := range p.knots {
		p.put(`<circle class="knot" cx="%.1f" cy="%.1f" r="5"/>`+"\n", knot[0], knot[1])
	}
	if p.way != nil {
		p.drawWay()
	}
	for i := range p.cluster.Timelines {
		p.marks(&p.cluster.Timelines[i])
		p.labels(&p.cluster.Timelines[i])
	}
	p.legend()
}

// axis names LSNs, as many as there is room for, the last one always.
func (p *svg) axis() {
	bottom := float64(p.top + svgRow*len(p.cluster.Timelines))
	y := bottom + 18
	p.text("small", 24, y, "LSN, not to scale")
	last := len(p.scale.points) - 1
	free := float64(svgLeft) - 1
	edge := svgRight - width(p.scale.points[last].String(), svgLetter) - 12
	for i, lsn := range p.scale.points {
		x, text := p.x(lsn), lsn.String()
		left := x - width(text, svgLetter)/2
		class := "small mid"
		switch i {
		case last:
			class = "small end"
		case 0:
			class, left = "small", x
		}
		if i != last && (left < free || left+width(text, svgLetter) > edge) {
			continue
		}
		free = left + width(text, svgLetter) + 14
		p.put(`<line class="tick" x1="%.1f" y1="%d" x2="%.1f" y2="%.1f"/>`+"\n", x, p.top, x, bottom+4)
		p.text(class, x, y, text)
	}
}

// fork draws the line from a timeline's parent down to it.
func (p *svg) fork(t *Timeline) {
	if t.Parent == 0 {
		return
	}
	x, from, to := p.x(t.Begin), p.y(t.Parent), p.y(t.Timeline)
	p.put(`<path class="fork" d="M%.1f %.1fV%.1f"><title>%s</title></path>`+"\n", x, from, to,
		escape(fmt.Sprintf("%s left timeline %d at %s: %s", t.name(), uint32(t.Parent), t.Begin, t.Reason)))
	p.knots = append(p.knots, [2]float64{x, from})
}

// minGap is how wide a gap must be to be seen as a line with dashes.
const minGap = 12

// bar draws the archived WAL of a timeline.
func (p *svg) bar(t *Timeline) {
	for _, run := range t.Archived {
		p.rect("kept", t, max(run.Start, t.Begin), min(run.End, t.End), "archived, and no backup leads there")
	}
	for _, s := range t.Reachable {
		p.rect("reach", t, s.From, min(s.To, t.End), "can be reached, from backup "+s.Backup)
	}
	y := p.y(t.Timeline)
	free := 0.0
	for _, gap := range t.Gaps {
		x1, x2 := p.x(max(gap.Start, t.Begin)), p.x(gap.End)
		what := escape(fmt.Sprintf("%s missing, %s to %s", count(gap.Segments, "segment"), gap.Start, gap.End))
		if x2-x1 < minGap {
			p.put(`<rect class="lost" x="%.1f" y="%.1f" width="%.1f" height="%d"><title>%s</title></rect>`+"\n", x1, y-svgBar/2-3, max(x2-x1, 2), svgBar+6, what)
		} else {
			p.put(`<path class="gap" d="M%.1f %.1fH%.1f"><title>%s</title></path>`+"\n", x1, y, x2, what)
		}
		text := fmt.Sprintf("%d missing", gap.Segments)
		if middle := (x1 + x2) / 2; middle-width(text, svgLetter)/2 > free {
			p.text("small mid gaptext", middle, y+25, text)
			free = middle + width(text, svgLetter)/2 + 8
		}
	}
}

func (p *svg) rect(class string, t *Timeline, from, to wal.LSN, what string) {
	x := p.x(from)
	wide := max(p.x(to)-x, 1.5)
	p.put(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d" rx="3"><title>%s</title></rect>`+"\n",
		class, x, p.y(t.Timeline)-svgBar/2, wide, svgBar, escape(fmt.Sprintf("%s, %s to %s: %s", t.name(), from, to, what)))
}

// drawWay draws the way of a restore, and where it ends.
func (p *svg) drawWay() {
	var path strings.Builder
	for i, leg := range p.way.Legs {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1fH%.1f", command, p.x(leg.From), p.y(leg.Timeline), p.x(leg.To))
	}
	p.put(`<path class="way" d="%s"><title>%s</title></path>`+"\n", path.String(), escape("the way of the restore, from backup "+p.way.Backup))
	x, y := p.x(p.way.To), p.y(p.way.end().Timeline)
	p.put(`<line class="target" x1="%.1f" y1="%d" x2="%.1f" y2="%.1f"/>`+"\n", x, 84, x, y)
	p.put(`<circle class="flag" cx="%.1f" cy="%.1f" r="7"/>`+"\n", x, y)
	text := p.way.Target
	if p.way.Broken {
		text += " (can't be reached)"
	}
	below := "recovery ends at " + p.way.To.String()
	if p.way.LastIn != "" {
		below += ", the last one in is " + p.way.LastIn
	}
	p.near("flagtext", x, 62, text, svgCaption)
	p.near("small", x, 79, below, svgLetter)
}

// near writes a text above a place, in the middle of it unless it would leave
// the picture.
func (p *svg) near(class string, x, y float64, text string, letter float64) {
	const margin = 20
	switch half := width(text, letter) / 2; {
	case x+half > svgWidth-margin:
		p.text(class+" end", svgWidth-margin, y, text)
	case x-half < margin:
		p.text(class, margin, y, text)
	default:
		p.text(class+" mid", x, y, text)
	}
}

// escape makes a text, which others may have written, fit for XML.
func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(plain(text))) // a strings.Builder takes everything
	return out.String()
}

// width is about how wide a text is.
func width(text string, letter float64) float64 { return float64(len([]rune(text))) * letter }

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
