// Package bench measures walship beside other ways to archive WAL, on a real
// PostgreSQL. scripts/bench runs it; docs/benchmarks.md says how to read what it
// prints.
//
// What measures carries the build tag bench and runs as tests, so that whatever
// it has started ends with them. This file has the arithmetic, and the tables.
package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Better says which of two values is the better one.
type Better int

// The two kinds of values.
const (
	Less Better = iota // a time, a size
	More               // a speed
)

// Metric is one thing that is measured, and the table that shows it.
type Metric struct {
	Title    string // with the unit
	Decimals int    // of the values; ratios have two
	Better   Better
	Against  []string // names of rows to hold the others against
	Peers    bool     // whether to hold them against the best peer, too
	Aims     []Aim
}

// Aim is what a row is meant to reach, in the median: at least the limit where
// more is better, else at most.
type Aim struct {
	Row   string
	Of    string // the row that it is held against, TheBestPeer, or "": nothing
	Limit float64
}

// TheBestPeer stands for the row that BestPeer returns.
const TheBestPeer = "best peer"

// Row is what one contestant reached: a value for each round, in order.
type Row struct {
	Name   string
	Peer   bool // another tool that does the same job
	Values []float64
}

// Spread is the median of values, and the least and the largest of them.
type Spread struct{ Median, Min, Max float64 }

// SpreadOf returns the spread of values, which are NaN where there are none.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + median) / 2
	}
	return Spread{median, sorted[0], sorted[len(sorted)-1]}
}

// Ratios divides the values of two rows round by round, so that what slowed a
// whole round down cancels out.
func Ratios(values, base []float64) []float64 {
	rounds := min(len(values), len(base))
	ratios := make([]float64, rounds)
	for i := range rounds {
		ratios[i] = values[i] / base[i]
	}
	return ratios
}

// BestPeer returns the peer with the best median, or nil if there is none.
func BestPeer(rows []Row, better Better) *Row {
	var best *Row
	for i := range rows {
		row := &rows[i]
		if !row.Peer || len(row.Values) == 0 {
			continue
		}
		if best == nil {
			best = row
			continue
		}
		mine, other := SpreadOf(row.Values).Median, SpreadOf(best.Values).Median
		if better == Less && mine < other || better == More && mine > other {
			best = row
		}
	}
	return best
}

// WriteTable writes the rows of a metric as a Markdown table. A column of
// ratios follows for each row that the metric holds others against; each ratio
// is a median with its range. Rows without values are left out, and so is a
// table without rows.
func WriteTable(w io.Writer, m Metric, rows []Row) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return len(r.Values) == 0 })
	if len(rows) == 0 {
		return
	}
	head := []string{"", "median", "least – most"}
	bases := basesOf(m, rows)
	for _, base := range bases {
		head = append(head, "× "+base.Name)
	}
	fmt.Fprintf(w, "\n### %s\n\n", m.Title)
	writeLine(w, head)
	writeLine(w, append([]string{"---"}, slices.Repeat([]string{"---:"}, len(head)-1)...))
	for _, row := range rows {
		s := SpreadOf(row.Values)
		line := []string{row.Name, number(s.Median, m.Decimals), number(s.Min, m.Decimals) + " – " + number(s.Max, m.Decimals)}
		for _, base := range bases {
			line = append(line, ratio(row, base))
		}
		writeLine(w, line)
	}
}

func basesOf(m Metric, rows []Row) []Row {
	var bases []Row
	for _, row := range rows {
		if slices.Contains(m.Against, row.Name) {
			bases = append(bases, row)
		}
	}
	if best := BestPeer(rows, m.Better); m.Peers && best != nil {
		bases = append(bases, *best)
	}
	return bases
}

func ratio(row, base Row) string {
	s := SpreadOf(Ratios(row.Values, base.Values))
	if row.Name == base.Name || s.Min == s.Max {
		return number(s.Median, 2)
	}
	return fmt.Sprintf("%s (%s – %s)", number(s.Median, 2), number(s.Min, 2), number(s.Max, 2))
}

func number(value float64, decimals int) string {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return "–"
	}
	return fmt.Sprintf("%.*f", decimals, value)
}

func writeLine(w io.Writer, cells []string) {
	fmt.Fprintln(w, "| "+strings.Join(cells, " | ")+" |")
}

// WriteAims writes one line of a Markdown table for each aim of the metric: the
// aim, what was reached, and whether that is enough. Aims of rows that aren't
// there, or against rows that aren't, are left out.
func WriteAims(w io.Writer, m Metric, rows []Row) {
	for _, aim := range m.Aims {
		row, base := find(rows, aim.Row), find(rows, aim.Of)
		if aim.Of == TheBestPeer {
			base = BestPeer(rows, m.Better)
		}
		if row == nil || len(row.Values) == 0 || aim.Of != "" && (base == nil || len(base.Values) == 0) {
			continue
		}
		values, of, decimals := row.Values, "", m.Decimals
		if base != nil {
			values, of, decimals = Ratios(row.Values, base.Values), " × "+base.Name, 2
		}
		reached, sign, met := SpreadOf(values).Median, "≤", "yes"
		if m.Better == More {
			sign = "≥"
		}
		if m.Better == Less && reached > aim.Limit || m.Better == More && reached < aim.Limit {
			met = "no"
		}
		writeLine(w, []string{m.Title, aim.Row + of, sign + " " + number(aim.Limit, decimals), number(reached, decimals), met})
	}
}

func find(rows []Row, name string) *Row {
	for i := range rows {
		if rows[i].Name == name {
			return &rows[i]
		}
	}
	return nil
}

// WriteAimsHead writes what stands above the lines of WriteAims.
func WriteAimsHead(w io.Writer) {
	writeLine(w, []string{"", "", "aim", "reached", "met"})
	writeLine(w, []string{"---", "---", "---:", "---:", "---"})
}
