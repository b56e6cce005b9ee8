package bench

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{5, 1, 3}, Spread{3, 1, 5}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		if got := SpreadOf(test.values); got != test.want {
			t.Errorf("SpreadOf(%v) = %v, want %v", test.values, got, test.want)
		}
	}
	if got := SpreadOf(nil); !math.IsNaN(got.Median) {
		t.Errorf("SpreadOf(nil) = %v, want not a number", got)
	}
}

func TestRatios(t *testing.T) {
	// Twice as much in each round, however the rounds differ.
	if got := Ratios([]float64{2, 20, 6}, []float64{1, 10, 3}); !slices.Equal(got, []float64{2, 2, 2}) {
		t.Errorf("Ratios = %v", got)
	}
	if got := Ratios([]float64{2, 20}, []float64{1}); !slices.Equal(got, []float64{2}) {
		t.Errorf("Ratios of rows of different lengths = %v, want those of the common rounds", got)
	}
}

func TestWriteTable(t *testing.T) {
	rows := []Row{
		{Name: "cp", Values: []float64{10, 20}},
		{Name: "never ran"},
		{Name: "subject", Values: []float64{5, 10}},
		{Name: "slow peer", Peer: true, Values: []float64{1, 2}},
		{Name: "quick peer", Peer: true, Values: []float64{4, 5}},
	}
	for _, test := range []struct {
		name   string
		metric Metric
		want   string
	}{
		{"speed", Metric{Title: "Drain, segments/s", Decimals: 1, Better: More, Against: []string{"cp", "never ran", "absent"}, Peers: true}, `
### Drain, segments/s

|  | median | least – most | × cp | × quick peer |
| --- | ---: | ---: | ---: | ---: |
| cp | 15.0 | 10.0 – 20.0 | 1.00 | 3.25 (2.50 – 4.00) |
| subject | 7.5 | 5.0 – 10.0 | 0.50 | 1.62 (1.25 – 2.00) |
| slow peer | 1.5 | 1.0 – 2.0 | 0.10 | 0.33 (0.25 – 0.40) |
| quick peer | 4.5 | 4.0 – 5.0 | 0.33 (0.25 – 0.40) | 1.00 |
`},
		{"without ratios", Metric{Title: "Requests"}, `
### Requests

|  | median | least – most |
| --- | ---: | ---: |
| cp | 15 | 10 – 20 |
| subject | 8 | 5 – 10 |
| slow peer | 2 | 1 – 2 |
| quick peer | 4 | 4 – 5 |
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got strings.Builder
			WriteTable(&got, test.metric, rows)
			if got.String() != test.want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), test.want)
			}
		})
	}
	var empty strings.Builder
	WriteTable(&empty, Metric{Title: "Nothing"}, []Row{{Name: "never ran"}})
	if empty.Len() > 0 {
		t.Errorf("a table without rows gave %q", empty.String())
	}
	if best := BestPeer(rows, Less); best == nil || best.Name != "slow peer" {
		t.Errorf("the best peer by the least value is %v", best)
	}
}

func TestWriteAims(t *testing.T) {
	rows := []Row{
		{Name: "never ran"},
		{Name: "cp", Values: []float64{10, 20}},
		{Name: "subject", Values: []float64{5, 10}},
		{Name: "peer", Peer: true, Values: []float64{4, 5}},
	}
	aims := []Aim{
		{Row: "subject", Of: "cp", Limit: 0.6},
		{Row: "subject", Of: TheBestPeer, Limit: 1.5},
		{Row: "subject", Limit: 7},
		{Row: "subject", Of: "absent", Limit: 1},
		{Row: "subject", Of: "never ran", Limit: 1},
		{Row: "absent", Limit: 1},
	}
	for _, test := range []struct {
		better Better
		want   string
	}{
		{Less, `
| M | subject × cp | ≤ 0.60 | 0.50 | yes |
| M | subject × peer | ≤ 1.50 | 1.62 | no |
| M | subject | ≤ 7.0 | 7.5 | no |
`},
		{More, `
| M | subject × cp | ≥ 0.60 | 0.50 | no |
| M | subject × peer | ≥ 1.50 | 1.62 | yes |
| M | subject | ≥ 7.0 | 7.5 | yes |
`},
	} {
		got := new(strings.Builder)
		WriteAims(got, Metric{Title: "M", Decimals: 1, Better: test.better, Aims: aims}, rows)
		if want := test.want[1:]; got.String() != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}
