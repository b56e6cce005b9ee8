package status

import (
	"fmt"
	"strings"
)

// heap is one mark: a backup, or several that are too near to tell apart.
type heap struct {
	x       float64
	backups []Backup
}

// marks draws the backups of a timeline, and says of as many as there is room
// for when they were taken.
func (p *svg) marks(t *Timeline) {
	y := p.y(t.Timeline)
	free := 0.0
	p.chains(t)
	for _, h := range p.heaps(t) {
		newest := h.backups[len(h.backups)-1]
		p.put(`<g><title>%s</title>`, escape(h.describe()))
		p.put(`<path class="%s" d="M%.1f %.1fl-%d -%dh%dz"/>`, h.class(), h.x, y-svgBar/2, svgMark, 2*svgMark, 2*svgMark)
		p.put("</g>\n")
		text := newest.label()
		if n := len(h.backups); n > 1 {
			text = fmt.Sprintf("%d backups", n)
		}
		if left := h.x - width(text, svgLetter)/2; left > free {
			p.text("small mid", h.x, y-svgBar/2-2*svgMark-4, text)
			free = left + width(text, svgLetter) + 10
		}
	}
}

// chains joins incremental backups to those that they are based on.
func (p *svg) chains(t *Timeline) {
	y := p.y(t.Timeline) - svgBar/2 - svgMark - 2
	at := map[string]float64{}
	for _, b := range t.Backups {
		x := p.x(b.Start)
		if from, same := at[b.Parent]; same && x-from >= 2*svgMark {
			p.put(`<path class="chain" d="M%.1f %.1fH%.1f"/>`+"\n", from, y, x)
		}
		at[b.ID] = x
	}
}

// heaps puts those together whose marks would lie on each other.
func (p *svg) heaps(t *Timeline) []heap {
	var heaps []heap
	for _, b := range t.Backups {
		x := p.x(b.Start)
		if n := len(heaps); n > 0 && x-heaps[n-1].x < 2*svgMark {
			heaps[n-1].backups = append(heaps[n-1].backups, b)
			continue
		}
		heaps = append(heaps, heap{x, []Backup{b}})
	}
	return heaps
}

// class says how the mark looks: one that has a full backup is filled.
func (h heap) class() string {
	class := "mark part"
	for _, b := range h.backups {
		switch {
		case b.Degraded || !b.leads():
			return "mark bad"
		case b.Parent == "":
			class = "mark"
		}
	}
	return class
}

// maxNamed bounds how many backups a mark names.
const maxNamed = 10

func (h heap) describe() string {
	var lines []string
	for i, b := range h.backups {
		if i == maxNamed {
			lines = append(lines, fmt.Sprintf("and %d more", len(h.backups)-maxNamed))
			break
		}
		line := fmt.Sprintf("backup %s, %s to %s", b.ID, b.Start, b.Stop)
		if b.Parent != "" {
			line += ", incremental to " + b.Parent
		}
		switch {
		case b.Unreadable != "":
			line += ": its record can't be read"
		case b.Unusable != "":
			line += ": it can't be restored"
		case b.Degraded:
			line += ": degraded"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// label is when the backup was taken, or its id.
func (b Backup) label() string {
	if b.StartTime.IsZero() {
		return b.ID
	}
	return b.StartTime.UTC().Format("01-02 15:04")
}

// labels writes the name of a timeline, and where its WAL ends.
func (p *svg) labels(t *Timeline) {
	y := p.y(t.Timeline)
	p.text("name", 24, y-4, t.name())
	line := y + 12
	switch {
	case t.HistoryMissing:
		p.text("small gaptext", 24, line, "no history file")
		line += 15
	case t.Parent != 0:
		p.text("small", 24, line, fmt.Sprintf("from timeline %d", uint32(t.Parent)))
		line += 15
	}
	p.text("small", 24, line, count(uint64(len(t.Backups)), "backup"))
	if len(t.Archived) == 0 {
		return
	}
	text := "ends at " + t.End.String()
	if !t.LastTime.IsZero() {
		text = "last transaction " + timeText(t.LastTime)
	}
	x, below := p.x(t.End), y+25
	if len(t.Gaps) > 0 {
		below += 15 // what is missing stands there
	}
	switch {
	case x+12+width(text, svgLetter) < svgWidth-10:
		p.text("small", x+12, y+4, text)
	case x-width(text, svgLetter) < svgLeft:
		p.text("small", svgLeft, below, text)
	default:
		p.text("small end", x, below, text)
	}
}

// legend says what the colours mean.
func (p *svg) legend() {
	y := float64(p.height - 24)
	x := 24.0
	entry := func(shape, text string) {
		p.put(shape+"\n", x, y)
		p.text("small", x+34, y, text)
		x += 34 + width(text, svgLetter) + 26
	}
	box := func(class string) string {
		return `<rect class="` + class + `" x="%.1f" y="%.1f" width="26" height="10" rx="2" transform="translate(0 -10)"/>`
	}
	entry(box("reach"), "can be reached")
	entry(box("kept"), "archived, no backup leads there")
	mark := func(class string) string { return `<path class="` + class + `" d="M%.1f %.1fm6 -12h14l-7 13z"/>` }
	drawn := p.out.String()
	for _, e := range []struct{ sign, shape, text string }{
		{" missing, ", `<path class="gap" d="M%.1f %.1fh26" transform="translate(0 -5)"/>`, "missing"},
		{`class="mark"`, mark("mark"), "backup"},
		{`class="mark part"`, mark("mark part"), "incremental backup"},
		{`class="mark bad"`, mark("mark bad"), "degraded backup"},
	} {
		if strings.Contains(drawn, e.sign) {
			entry(e.shape, e.text)
		}
	}
	if p.way != nil {
		entry(`<path class="way" d="M%.1f %.1fm3 0h20" transform="translate(0 -5)"/>`, "the restore's way")
	}
}
