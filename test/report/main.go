// Command report reads what `go test -json` writes and prints what matters: the
// whole output of each test that failed, the name of each that was skipped, and
// go test's own closing line of each package, and the tests that took longest. It
// fails if any test failed or was skipped, because a test that is skipped has
// proved nothing, and if none ran, unless the environment has REPORT_NONE=ok.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of test2json (cmd/test2json in Go's sources).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// report is what has been read so far.
type report struct {
	out     io.Writer
	pending map[test][]string // output of tests that haven't ended
	passed  int
	failed  int
	skipped []test
	took    []duration
}

type test struct{ pkg, name string }

// duration is what a test took with its subtests.
type duration struct {
	test
	seconds float64
}

// slowest is how many tests are named with what they took, and from how many
// seconds on.
const (
	slowest = 15
	slow    = 5
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Getenv("REPORT_NONE") == "ok"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, noneOK bool) error {
	r := report{out: out, pending: map[test][]string{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line) // from go itself
			} else {
				r.add(e)
			}
		}
		if err == io.EOF {
			return r.close(noneOK)
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (r *report) add(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.failed++
	case "output":
		if e.Test != "" {
			r.pending[id] = append(r.pending[id], e.Output)
		} else if e.Output != "PASS\n" && !strings.Contains(e.Output, "[no test files]") {
			fmt.Fprint(r.out, e.Output)
		}
	case "pass":
		delete(r.pending, id)
		if e.Test != "" {
			r.passed++
			r.time(id, e.Elapsed)
		}
	case "skip":
		delete(r.pending, id)
		if e.Test != "" { // a package without tests isn't a skipped test
			r.skipped = append(r.skipped, id)
		}
	case "fail":
		r.failed++
		r.time(id, e.Elapsed)
		r.print(id)
		if e.Test == "" {
			r.printUnended(e.Package)
		}
	}
}

func (r *report) time(id test, seconds float64) {
	if id.name != "" && !strings.Contains(id.name, "/") && seconds >= slow {
		r.took = append(r.took, duration{id, seconds})
	}
}

func (r *report) print(id test) {
	for _, line := range r.pending[id] {
		fmt.Fprint(r.out, line)
	}
	delete(r.pending, id)
}

// printUnended prints the tests that a panic or the time limit cut off, but those
// that had said nothing yet.
func (r *report) printUnended(pkg string) {
	var unended []test
	for id := range r.pending {
		if id.pkg == pkg && slices.ContainsFunc(r.pending[id], func(line string) bool { return !strings.HasPrefix(line, "=== ") }) {
			unended = append(unended, id)
		}
	}
	slices.SortFunc(unended, func(a, b test) int { return strings.Compare(a.name, b.name) })
	for _, id := range unended {
		r.print(id)
	}
}

func (r *report) close(noneOK bool) error {
	for _, id := range r.skipped {
		fmt.Fprintf(r.out, "skipped: %s %s\n", id.pkg, id.name)
	}
	slices.SortFunc(r.took, func(a, b duration) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, d := range r.took[:min(slowest, len(r.took))] {
		fmt.Fprintf(r.out, "slow: %.0f s %s %s\n", d.seconds, d.pkg, d.name)
	}
	fmt.Fprintf(r.out, "tests passed: %d, skipped: %d\n", r.passed, len(r.skipped))
	switch {
	case r.failed > 0:
		return fmt.Errorf("tests failed")
	case len(r.skipped) > 0:
		return fmt.Errorf("%d tests were skipped, and none may be", len(r.skipped))
	case r.passed == 0 && !noneOK:
		return fmt.Errorf("no test ran")
	}
	return nil
}
