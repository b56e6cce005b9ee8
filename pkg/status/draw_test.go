package status

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// forked is a cluster with a gap, and a branch.
func forked() *Cluster {
	return &Cluster{SystemID: testSystem, SegmentSize: testSegment, Timelines: []Timeline{
		{
			Timeline: 1, Archived: []Run{{lsn(1), lsn(7), 6}, {lsn(9), lsn(11), 2}}, Gaps: []Run{{lsn(7), lsn(9), 2}}, End: lsn(10.5), LastTime: at(14),
			Backups:   []Backup{{ID: "A", Start: lsn(2), Stop: lsn(2.2), StartTime: at(9)}},
			Reachable: []Stretch{{lsn(2.2), lsn(7), "A"}},
		}, {
			Timeline: 2, Parent: 1, Begin: lsn(5.5), Reason: `</title><script>alert("1")</script>`, Archived: []Run{{lsn(5), lsn(8), 3}}, End: lsn(8),
			Backups: []Backup{
				{ID: "B", Start: lsn(6), Stop: lsn(6.2), StartTime: at(12), Parent: "A"},
				{ID: "C", Start: lsn(7.2), Stop: lsn(7.3), StartTime: at(13), Parent: "B", Degraded: true},
			},
			Reachable: []Stretch{{lsn(5.5), lsn(8), "A"}},
		},
	}}
}

func wayTo(target string) *Way {
	return &Way{Backup: "A", From: lsn(2), To: lsn(6.5), Target: target, LastIn: "transaction 894", Legs: []Leg{{1, lsn(2), lsn(5.5)}, {2, lsn(5.5), lsn(6.5)}}}
}

func TestWriteTimeline(t *testing.T) {
	var out strings.Builder
	WriteTimeline(&out, forked(), nil, 80)
	lines := strings.Split(out.String(), "\n")
	if len(lines) < 5 || !strings.HasPrefix(lines[1], "timeline 1  ─") || !strings.HasPrefix(lines[2], "timeline 2   ") {
		t.Fatalf("it draws:\n%s", out.String())
	}
	first, second := []rune(lines[1]), []rune(lines[2])
	// What follows from left to right on each line.
	if got := squeeze(first[12:]); got != "─▲━╳─" {
		t.Errorf("timeline 1 is drawn as %s:\n%s", got, out.String())
	}
	if got := squeeze(second[12:]); got != " ╰━△━▽━" {
		t.Errorf("timeline 2 is drawn as %s:\n%s", got, out.String())
	}
	if fork := strings.IndexRune(lines[2], markFork); first[fork] != markReachable {
		t.Errorf("timeline 2 begins below %c:\n%s", first[fork], out.String())
	}
	for i, line := range lines {
		if n := len([]rune(line)); n > 80 && i < 3 {
			t.Errorf("line %d has %d columns", i+1, n)
		}
	}
	out.Reset()
	WriteTimeline(&out, forked(), wayTo("time 12:00\x1b[31m"), 10)
	lines = strings.Split(out.String(), "\n")
	if squeeze([]rune(lines[2])[12:]) != "─▲═━╳─" || squeeze([]rune(lines[3])[12:]) != " ╰═△═◆━▽━" || !strings.Contains(lines[1], "time 12:00?[31m ▼") {
		t.Errorf("with a way it draws:\n%s", out.String())
	}
	WriteTimeline(&out, &Cluster{SystemID: 1}, nil, 80) // which has nothing
}

// squeeze writes each run of one character as one.
func squeeze(line []rune) string {
	var out []rune
	for _, r := range line {
		if len(out) == 0 || out[len(out)-1] != r {
			out = append(out, r)
		}
	}
	return string(out)
}

// picture is what an SVG has: elements by name and class, and all texts.
type picture struct {
	elements map[string]int
	texts    []string
}

func drawn(t *testing.T, c *Cluster, way *Way) (picture, []byte) {
	t.Helper()
	var out bytes.Buffer
	if err := WriteSVG(&out, c, way, at(15)); err != nil {
		t.Fatal(err)
	}
	p := picture{elements: map[string]int{}}
	decoder := xml.NewDecoder(bytes.NewReader(out.Bytes()))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return p, out.Bytes()
		}
		if err != nil {
			t.Fatalf("the picture isn't XML: %v\n%s", err, out.String())
		}
		switch token := token.(type) {
		case xml.StartElement:
			name := token.Name.Local
			for _, attribute := range token.Attr {
				if attribute.Name.Local == "class" {
					name += "." + attribute.Value
				}
				if strings.Contains(attribute.Value, "NaN") || strings.Contains(attribute.Value, "%!") {
					t.Errorf("%s has %s=%q", name, attribute.Name.Local, attribute.Value)
				}
			}
			p.elements[name]++
		case xml.CharData:
			p.texts = append(p.texts, string(token))
		}
	}
}

func (p picture) has(text string) bool {
	for _, t := range p.texts {
		if strings.Contains(t, text) {
			return true
		}
	}
	return false
}

func TestWriteSVG(t *testing.T) {
	p, _ := drawn(t, forked(), wayTo(`time <"12:00">`))
	for element, want := range map[string]int{
		"rect.reach": 3, "rect.kept": 4, "path.gap": 2, "path.fork": 1, "path.mark": 2, "path.mark part": 2, "path.mark bad": 2, "path.chain": 1, // each once in the legend, too
		"path.way": 2, "circle.flag": 1, "script": 0,
	} {
		if p.elements[element] != want {
			t.Errorf("%d elements %s, want %d", p.elements[element], element, want)
		}
	}
	for _, text := range []string{
		"timeline 1", "timeline 2", "from timeline 1", "2 missing", "11-20 09:00", "incremental to A", "last transaction 2026-11-20 14:00:00+00:00",
		`time <"12:00">`, "recovery ends at 0/680000, the last one in is transaction 894", `left timeline 1 at 0/580000: </title><script>alert("1")</script>`, "2026-11-20 15:00:00+00:00",
	} {
		if !p.has(text) {
			t.Errorf("the picture doesn't say %q", text)
		}
	}
	if p, _ := drawn(t, &Cluster{SystemID: 1}, nil); !p.has("nothing is archived") {
		t.Error("the picture of nothing doesn't say so")
	}
}

// TestManyBackups draws 1,000 backups and a hundred gaps: marks that would lie
// on each other are one, and labels don't.
func TestManyBackups(t *testing.T) {
	c := &Cluster{SystemID: testSystem, SegmentSize: testSegment, Timelines: []Timeline{{Timeline: 1, End: lsn(20_000)}}}
	one := &c.Timelines[0]
	for i := range 1000 {
		one.Backups = append(one.Backups, Backup{ID: fmt.Sprintf("backup-%d", i), Start: lsn(float64(20*i + 1)), Stop: lsn(float64(20*i + 2)), StartTime: at(i)})
	}
	for i := range 100 {
		one.Archived = append(one.Archived, Run{lsn(float64(200 * i)), lsn(float64(200*i + 190)), 190})
		one.Gaps = append(one.Gaps, Run{lsn(float64(200*i + 190)), lsn(float64(200*i + 200)), 10})
		one.Reachable = append(one.Reachable, Stretch{lsn(float64(200*i + 2)), lsn(float64(200*i + 190)), "backup"})
	}
	p, data := drawn(t, c, nil)
	if marks := p.elements["path.mark"]; marks < 20 || marks > 100 {
		t.Errorf("%d marks for 1,000 backups", marks)
	}
	if labels := p.elements["text.small mid"]; labels > 50 {
		t.Errorf("%d labels", labels)
	}
	if !p.has("backups") || len(data) > 200_000 {
		t.Errorf("no heap of backups is counted, or %d bytes are too many", len(data))
	}
}

func TestScale(t *testing.T) {
	s := newScale(forked(), wayTo("x"))
	last := -1.0
	for n := range 220 {
		x := s.at(wal.LSN(n) * testSegment / 20)
		if x < last || x < 0 || x > 1 {
			t.Fatalf("%s lies at %f, and what is before it at %f", wal.LSN(n)*testSegment/20, x, last)
		}
		last = x
	}
	if s.at(lsn(1)) != 0 || s.at(lsn(10.5)) != 1 {
		t.Errorf("it goes from %f to %f", s.at(lsn(1)), s.at(lsn(10.5)))
	}
}
