package restore

import (
	"fmt"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// TestGapBeforeLatest refuses to end before a gap unasked, and names what it
// takes to ask for that.
func TestGapBeforeLatest(t *testing.T) {
	l := typical(t)
	missing, last := wal.SegmentName(1, 4, smallSegment), wal.SegmentName(1, 5, smallSegment)
	if err := l.repository.Store.Delete(t.Context(), l.repository.FileKey(testSystem, missing)); err != nil {
		t.Fatal(err)
	}
	q := Request{Target: Target{Kind: TargetLatest}}
	p, err := MakePlan(t.Context(), Of(l.repository), q)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("the target can't be reached: WAL segment %s isn't in the repository, though later ones up to %s are: recovery would end at %s (its last commit is of transaction 706, at %s); "+
		"archive it with walship wal push if a server's pg_wal still has it; else --to-latest ends before it, and --to-lsn %s right behind that commit",
		missing, last, wal.LSN(4*smallSegment), FormatTime(minute(5)), l.at["f"])
	if err := p.Err(); err == nil || err.Error() != want || p.Reachable {
		t.Errorf("the plan says\n%v\nwant\n%s", err, want)
	}
	// What it advises.
	q.AcceptGap = true
	for _, target := range []Target{q.Target, {Kind: TargetLSN, LSN: l.at["f"]}} {
		q.Target = target
		p, err := MakePlan(t.Context(), Of(l.repository), q)
		if err != nil || p.Err() != nil || !p.Reachable || xidOf(p.LastIn) != 706 {
			t.Errorf("%s: %v, %v, last in %+v", target, err, p.Err(), p.LastIn)
		}
	}
	// A plain end of the archive is no gap.
	if err := l.repository.Store.Delete(t.Context(), l.repository.FileKey(testSystem, last)); err != nil {
		t.Fatal(err)
	}
	if p, err = MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}}); err != nil || p.Err() != nil || len(p.Warnings) != 0 {
		t.Errorf("the archive's end: %v, %v, warnings %q", err, p.Err(), p.Warnings)
	}
}
