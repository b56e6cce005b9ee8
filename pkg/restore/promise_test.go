package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/pkg/wal/waltest"
)

const smallSegment = 1 << 20

// minute is a moment of the test's clock.
func minute(n int) time.Time { return clock(10).Add(time.Duration(n) * time.Minute) }

// life is a cluster whose WAL the tests of promises look into.
type life struct {
	*server
	repository *repo.Repository
	at         map[string]wal.LSN // of records, by what they are about
	taken      repo.Backup        // the latest one
}

// archiveFork archives a life and the child that left it at fork, timeline 2.
func (l *life) archiveFork(t *testing.T, child *server, fork wal.LSN) {
	t.Helper()
	l.archive(t, l.repository, 2)
	child.archive(t, l.repository, 3)
	history := "1\t" + fork.String() + "\tno recovery target specified\n"
	if _, err := l.repository.Store.Put(t.Context(), repo.HistoryKey(testSystem, 2), strings.NewReader(history)); err != nil {
		t.Fatal(err)
	}
}

// newLife takes a backup of a new server, in segment 2.
func newLife(t *testing.T) *life {
	t.Helper()
	l := &life{newServer(1, 2, smallSegment), makeRepository(), map[string]wal.LSN{}, repo.Backup{}}
	l.backup(t, "20261120T095900Z", minute(-1))
	return l
}

// backup takes a backup that begins in the server's segment and ends in it.
func (l *life) backup(t *testing.T, id string, ended time.Time) {
	t.Helper()
	l.Page()
	redo := l.Position()
	checkpoint := l.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 88))
	checkpoint = max(checkpoint, l.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 88)))
	l.at["backup record"] = l.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 8))
	b := &repo.Backup{
		Format: 1, ID: id, SystemID: testSystem, ServerVersion: 150018, Timeline: l.Timeline,
		StartLSN: redo, Checkpoint: checkpoint, StopLSN: l.Position(), SegmentSize: l.SegmentSize,
		StartTime: ended.Add(-time.Second), StopTime: ended, StopSnapshot: "700:700:",
		Parts: []repo.Object{{Key: repo.PartKey(testSystem, id, 1)}}, Manifest: repo.Object{Key: repo.ManifestKey(testSystem, id)},
	}
	commitEmpty(t, l.repository, b)
	l.taken = *b
}

// crossing writes a commit that a segment's end cuts, as many bytes before it.
func (l *life) crossing(left int, xid uint32, at time.Time) wal.LSN {
	end := wal.LSN((uint64(l.Position())/l.SegmentSize + 1) * l.SegmentSize)
	l.fillTo(end - waltest.BlockSize)
	l.noopTo(end - wal.LSN(left))
	return l.commit(xid, at)
}

// typical writes transactions of all sorts into four segments. The clock goes
// back in the middle.
func typical(t *testing.T) *life {
	l := newLife(t)
	l.at["a"] = l.commit(701, minute(1), 801, 802)
	l.at["b"] = l.abort(702, minute(2))
	l.at["point"] = l.RestorePoint("here", minute(2))
	l.at["c"] = l.crossing(24, 703, minute(3))
	l.prepare(704, minute(4), "first")
	l.at["e"] = l.commit(705, minute(8)) // the clock is ahead
	l.at["f"] = l.commit(706, minute(5))
	l.SwitchSegment()
	l.prepare(707, minute(5), "second")
	l.at["g"] = l.finish(704, minute(6), "first")
	l.RestorePoint("here", minute(6))
	l.fillTo(5*smallSegment - 100)
	l.SwitchSegment()
	l.at["h"] = l.abort(709, minute(7))
	l.at["i"] = l.commit(708, minute(9))
	l.at["tail"] = l.Record(wal.ResourceXLOG, 0x20, 0, make([]byte, 8))
	l.SwitchSegment()
	l.archive(t, l.repository, 2)
	return l
}

// TestPromise is rules 9 to 12: where recovery stops, and what is in.
func TestPromise(t *testing.T) {
	l := typical(t)
	timed := func(at time.Time, exclusive bool) Target {
		return Target{Kind: TargetTime, Time: at, Exclusive: exclusive}
	}
	lsn := func(lsn wal.LSN, exclusive bool) Target {
		return Target{Kind: TargetLSN, LSN: lsn, Exclusive: exclusive}
	}
	xid := func(xid uint64, exclusive bool) Target {
		return Target{Kind: TargetXID, XID: xid, Exclusive: exclusive}
	}
	for name, c := range map[string]struct {
		target   Target
		stop     string // the record; "": none
		before   bool
		in, out  uint32
		prepared string
		problem  string
	}{
		"time between":             {timed(minute(1).Add(time.Second), false), "b", true, 701, 703, "", ""},
		"time of a commit":         {timed(minute(1), false), "b", true, 701, 703, "", ""},
		"time of a commit, before": {timed(minute(1), true), "a", true, 0, 701, "", ""},
		"an abort counts":          {timed(minute(2), true), "b", true, 701, 703, "", ""},
		"a commit that is cut":     {timed(minute(2), false), "c", true, 701, 703, "", ""},
		"its own time":             {timed(minute(3), false), "e", true, 703, 705, "first", ""},
		"the clock was ahead":      {timed(minute(6), false), "e", true, 703, 705, "first", ""},
		"behind that":              {timed(minute(8), false), "i", true, 704, 708, "second", ""},
		"the last commit, before":  {timed(minute(9), true), "i", true, 704, 708, "second", ""},
		"the last commit":          {timed(minute(9), false), "", false, 708, 0, "second", "to before 2026-11-20 10:09:00+00 can be reached"},
		"idle at the end":          {timed(minute(10), false), "", false, 708, 0, "second", "its last commit is of transaction 708, at 2026-11-20 10:09:00+00"},

		"LSN":                     {lsn(l.at["a"], false), "a", false, 701, 703, "", ""},
		"LSN, before":             {lsn(l.at["a"], true), "a", true, 0, 701, "", ""},
		"LSN inside a record":     {lsn(l.at["a"]+1, false), "b", false, 701, 703, "", ""},
		"LSN of a cut record":     {lsn(l.at["c"], false), "c", false, 703, 705, "", ""},
		"LSN of the backup's end": {lsn(l.at["backup record"], false), "backup record", false, 0, 701, "", ""},
		"LSN of the last record":  {lsn(l.at["i"]+1, false), "tail", false, 708, 0, "second", ""},
		"LSN behind it":           {lsn(6*smallSegment-8, false), "", false, 708, 0, "second", "no record starts at or behind the target"},
		"LSN behind the archive":  {lsn(7*smallSegment-8, false), "", false, 708, 0, "second", "000000010000000000000006 isn't in the repository; the way to 0/6FFFF8 leads through it; the WAL that is there ends at 0/600000: its last commit is of transaction 708"},
		"xid":                     {xid(703, false), "c", false, 703, 705, "", ""},
		"xid, before":             {xid(703, true), "c", true, 701, 703, "", ""},
		"xid of an abort":         {xid(709, false), "h", false, 704, 708, "second", ""},
		"prepared xid":            {xid(704, false), "g", false, 704, 708, "second", ""},
		"prepared xid, before":    {xid(704, true), "g", true, 706, 704, "first second", ""},
		"subtransaction":          {xid(802, false), "", false, 708, 0, "second", "subtransaction of 701, which committed at 2026-11-20 10:01:00+00: recovery doesn't stop at it; take --to-xid 701"},
		"never ended":             {xid(900, false), "", false, 708, 0, "second", "no transaction 900 ended"},
		"left prepared":           {xid(707, false), "", false, 708, 0, "second", `was prepared at 2026-11-20 10:05:00+00, as "second"`},
		"name":                    {Target{Kind: TargetName, Name: "here"}, "point", false, 701, 703, "", ""},
		"no such name":            {Target{Kind: TargetName, Name: "there"}, "", false, 708, 0, "second", `it has "here" (2026-11-20 10:06:00+00), "here" (2026-11-20 10:02:00+00)`},
		"immediate":               {Target{Kind: TargetImmediate}, "a", true, 0, 701, "", ""},
		"latest":                  {Target{Kind: TargetLatest}, "", false, 708, 0, "second", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := MakePlan(context.Background(), Of(l.repository), Request{Target: c.target, Backup: "20261120T095900Z"})
			if err != nil {
				t.Fatal(err)
			}
			if (p.Stop != nil) != (c.stop != "") || p.Stop != nil && (p.Stop.LSN != l.at[c.stop] || p.Stop.Before != c.before) {
				t.Errorf("it stops at %+v, want %q at %s", p.Stop, c.stop, l.at[c.stop])
			}
			if p.Stop != nil && p.EndsAt != map[bool]wal.LSN{true: p.Stop.LSN, false: p.Stop.EndLSN}[c.before] {
				t.Errorf("it ends at %s, and stops at %+v", p.EndsAt, p.Stop)
			}
			if xidOf(p.LastIn) != c.in || xidOf(p.FirstOut) != c.out {
				t.Errorf("last in %+v, first out %+v; want %d and %d", p.LastIn, p.FirstOut, c.in, c.out)
			}
			var gids []string
			for _, pending := range p.PendingPrepared {
				gids = append(gids, pending.GID)
			}
			if got := strings.Join(gids, " "); got != c.prepared || !p.PreparedKnown || !p.Certified {
				t.Errorf("prepared %q (%v), certified %v; want %q", got, p.PreparedKnown, p.Certified, c.prepared)
			}
			if err := p.Err(); (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) || p.Reachable != (c.problem == "") {
				t.Errorf("reachable %v, %v; want %q", p.Reachable, err, c.problem)
			}
		})
	}
}

// TestImmediateAtEnd: a server notices that the backup is consistent at a record
// of a transaction, and else when it comes to the next record. The backup of a
// standby can end with the last record that is archived.
func TestImmediateAtEnd(t *testing.T) {
	for name, c := range map[string]struct {
		write   func(*life) (stop wal.LSN) // of the backup
		stop    string                     // "": none
		before  bool
		segment string // the last one that is needed
	}{
		"nothing behind": {func(l *life) wal.LSN {
			l.SwitchSegment()
			return l.Position()
		}, "", false, "000000010000000000000002"},
		"the next segment": {func(l *life) wal.LSN {
			l.SwitchSegment()
			stop := l.Position()
			l.Page()
			l.at["next"] = l.RestorePoint("next", minute(2))
			l.SwitchSegment()
			return stop
		}, "next", true, "000000010000000000000003"},
		"a commit": {func(l *life) wal.LSN {
			l.at["next"] = l.commit(701, minute(1))
			stop := l.Position()
			l.SwitchSegment()
			return stop
		}, "next", false, "000000010000000000000002"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			b := l.taken
			b.ID = "20261120T095930Z"
			b.Parts = []repo.Object{{Key: repo.PartKey(testSystem, b.ID, 1)}}
			b.Manifest = repo.Object{Key: repo.ManifestKey(testSystem, b.ID)}
			b.Standby, b.StopLSN = true, c.write(l)
			l.archive(t, l.repository, 2)
			commitEmpty(t, l.repository, &b)
			q := Request{Target: Target{Kind: TargetImmediate}, Backup: b.ID, Timeline: TimelineCurrent}
			p, err := MakePlan(t.Context(), Of(l.repository), q)
			if err != nil {
				t.Fatal(err)
			}
			if (p.Stop != nil) != (c.stop != "") || p.Stop != nil && (p.Stop.LSN != l.at[c.stop] || p.Stop.Before != c.before || p.Stop.Kind != "consistency") {
				t.Errorf("it stops at %+v, want %q at %s", p.Stop, c.stop, l.at[c.stop])
			}
			if p.EndsAt != b.StopLSN || p.WAL.Last != c.segment {
				t.Errorf("it ends at %s and needs %s, want %s and %s", p.EndsAt, p.WAL.Last, b.StopLSN, c.segment)
			}
			if err := p.Err(); (err == nil) != (c.stop != "") || err != nil && !strings.Contains(err.Error(), "--to-latest leads to the same end") {
				t.Errorf("the plan says %v", err)
			}
			q.Export = true
			if p, err = MakePlan(t.Context(), Of(l.repository), q); err != nil || p.Err() != nil {
				t.Errorf("an export, which has no target, is refused: %v, %v", err, p.Err())
			}
		})
	}
}

func xidOf(e *Ending) uint32 {
	if e == nil {
		return 0
	}
	return e.XID
}

// TestBranches is fault 31: a time that several timelines hold is shown for
// each of them, and asked for; one that lies before the fork isn't.
func TestBranches(t *testing.T) {
	l := newLife(t)
	l.commit(701, minute(1))
	l.SwitchSegment()
	l.commit(702, minute(2))
	fork := l.Position()
	child := l.server.fork(2)
	l.commit(703, minute(4)) // nobody was to see that
	l.commit(704, minute(8))
	l.SwitchSegment()
	child.commit(803, minute(6))
	child.commit(804, minute(9))
	child.SwitchSegment()
	l.archiveFork(t, child, fork)
	for name, c := range map[string]struct {
		at       time.Time
		timeline string
		in       uint32
		problem  string
	}{
		"before the fork":       {minute(1), "", 701, ""},
		"the same on both":      {minute(3), "", 702, ""},
		"on both":               {minute(7), "", 803, "lies on several timelines: --timeline 2 ends with transaction 803, committed at 2026-11-20 10:06:00+00; --timeline 1, which leaves the other at " + fork.String() + ", ends with transaction 703"},
		"on both, chosen":       {minute(7), "1", 703, ""},
		"on both, the latest":   {minute(7), TimelineLatest, 803, ""},
		"on one":                {minute(8), "", 803, ""},
		"on none":               {minute(9), "", 804, "--to-latest"},
		"not on the chosen one": {minute(8), "1", 704, "to before 2026-11-20 10:08:00+00"},
	} {
		p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetTime, Time: c.at}, Timeline: c.timeline})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := p.Err(); xidOf(p.LastIn) != c.in || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: last in %+v, %v; want %d and %q", name, p.LastIn, err, c.in, c.problem)
		}
		if (len(p.Choices) == 2) != (name == "on both") {
			t.Errorf("%s: choices %+v", name, p.Choices)
		}
	}
}

// TestSameOutcome: of two plans without a commit since their backups it is known
// only from the backup whether they end with the same.
func TestSameOutcome(t *testing.T) {
	plan := func(backup string, last *Ending) *Plan {
		return &Plan{Promise: Promise{Certified: true, LastIn: last}, record: &repo.Backup{ID: backup}}
	}
	one, again, two := &Ending{LSN: 1, Timeline: 1}, &Ending{LSN: 1, Timeline: 1}, &Ending{LSN: 1, Timeline: 2}
	for _, c := range []struct {
		a, b *Plan
		same bool
	}{
		{plan("1", one), plan("2", again), true},
		{plan("1", one), plan("1", two), false},
		{plan("1", one), plan("1", nil), false},
		{plan("1", nil), plan("1", nil), true},
		{plan("1", nil), plan("2", nil), false},
	} {
		if c.a.sameOutcome(c.b) != c.same || c.b.sameOutcome(c.a) != c.same {
			t.Errorf("backup %s, %v and backup %s, %v: want %t", c.a.record.ID, c.a.LastIn, c.b.record.ID, c.b.LastIn, c.same)
		}
	}
}

// TestBranchesOfRecords is fault 31 for targets that name a record: an LSN, a
// transaction or a restore point that several timelines have behind the fork is
// asked for; one that only another timeline than the latest has is taken there.
func TestBranchesOfRecords(t *testing.T) {
	l := newLife(t)
	l.commit(701, minute(1))
	l.RestorePoint("early", minute(1))
	l.SwitchSegment()
	shared := l.commit(702, minute(2))
	fork := l.Position()
	child := l.server.fork(2)
	for _, s := range []*server{l.server, child} {
		s.commit(703, minute(3))
		l.at["both"] = s.commit(704, minute(4))
		s.RestorePoint("both", minute(4))
	}
	l.RestorePoint("early", minute(5))
	l.RestorePoint("parent's", minute(5))
	l.at["parent's"] = l.commit(705, minute(6))
	l.noopTo(l.Position() + 1024)
	l.at["parent's end"] = l.commit(706, minute(7))
	l.SwitchSegment()
	child.abort(705, minute(6))
	child.commit(707, minute(6))
	child.SwitchSegment()
	l.archiveFork(t, child, fork)
	lsn := func(at wal.LSN) Target { return Target{Kind: TargetLSN, LSN: at} }
	xid := func(xid uint64) Target { return Target{Kind: TargetXID, XID: xid} }
	name := func(name string) Target { return Target{Kind: TargetName, Name: name} }
	const several = "lies on several timelines: --timeline 2 ends with transaction "
	for _, c := range []struct {
		target           Target
		timeline, backup string
		in               uint32
		on               wal.TimelineID
		problem          string
		choices          int
	}{
		{target: lsn(shared), in: 702, on: 2},
		{target: lsn(l.at["both"]), in: 704, on: 2, problem: several + "704, committed at 2026-11-20 10:04:00+00; --timeline 1, which leaves the other at " + fork.String() + ", ends with transaction 704", choices: 2},
		{target: lsn(l.at["both"]), timeline: "1", in: 704, on: 1},
		{target: lsn(l.at["both"]), timeline: TimelineLatest, in: 704, on: 2},
		{target: Target{Kind: TargetLSN, LSN: fork, Exclusive: true}, in: 702, on: 2},
		{target: lsn(l.at["parent's end"]), in: 707, on: 2, problem: "it lies on another timeline: --timeline 1, which leaves the other at " + fork.String(), choices: 2},
		{target: lsn(9 * smallSegment), in: 707, on: 2, problem: "isn't in the repository"},
		{target: xid(702), in: 702, on: 2},
		{target: xid(703), in: 703, on: 2, problem: several + "703", choices: 2},
		{target: xid(705), in: 704, on: 2, problem: several + "704", choices: 2},
		// The next transaction of timeline 2 has that id, too, and may not be archived yet.
		{target: xid(706), in: 707, on: 2, problem: "it lies on another timeline: --timeline 1", choices: 2},
		{target: xid(706), timeline: TimelineLatest, in: 707, on: 2, problem: "no transaction 706 ended"},
		{target: xid(707), in: 707, on: 2},
		{target: name("both"), in: 704, on: 2, problem: several, choices: 2},
		{target: name("parent's"), in: 707, on: 2, problem: "it lies on another timeline: --timeline 1", choices: 2},
		{target: name("early"), in: 701, on: 2}, // from that backup, the first one of that name
		{target: name("none"), in: 707, on: 2, problem: "there is no restore point"},
	} {
		p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: c.target, Timeline: c.timeline})
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
			continue
		}
		if err := p.Err(); xidOf(p.LastIn) != c.in || p.Timeline != c.on || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: timeline %d, last in %+v, %v; want %d, %d and %q", c.target, p.Timeline, p.LastIn, err, c.on, c.in, c.problem)
		}
		if len(p.Choices) != c.choices {
			t.Errorf("%s: choices %+v", c.target, p.Choices)
		}
	}
	// With a gap on the latest timeline it isn't certain that it has no such target.
	if err := l.repository.Store.Delete(t.Context(), l.repository.FileKey(testSystem, wal.SegmentName(2, 3, smallSegment))); err != nil {
		t.Fatal(err)
	}
	child.commit(708, minute(8))
	child.SwitchSegment()
	child.archive(t, l.repository, 4)
	p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: xid(706)})
	if err != nil {
		t.Fatal(err)
	}
	if p.Timeline != 2 || p.Err() == nil || !strings.Contains(p.Err().Error(), "; it lies on another timeline: --timeline 1") {
		t.Errorf("with a gap: timeline %d, %v", p.Timeline, p.Err())
	}
}

// TestStandIn is rule 14: where a fork's segment isn't archived in the child's
// name, PostgreSQL takes the parent's. Up to the fork that is the way; what it
// has behind is not.
func TestStandIn(t *testing.T) {
	l := newLife(t)
	l.commit(701, minute(1))
	l.SwitchSegment()
	shared := l.commit(702, minute(2))
	l.commit(703, minute(3))
	fork := l.Position()
	child := l.server.fork(2)
	behind := l.commit(704, minute(4)) // nobody was to see that
	l.RestorePoint("astray", minute(4))
	l.SwitchSegment()
	child.commit(804, minute(5))
	child.SwitchSegment()
	child.commit(805, minute(6))
	child.SwitchSegment()
	l.archiveFork(t, child, fork)
	own := wal.SegmentName(2, 3, smallSegment)
	if err := l.repository.Store.Delete(t.Context(), l.repository.FileKey(testSystem, own)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target  Target
		in      uint32
		problem string
	}{
		{Target{Kind: TargetTime, Time: minute(2)}, 702, ""},
		{Target{Kind: TargetLSN, LSN: shared}, 702, ""},
		{Target{Kind: TargetXID, XID: 703}, 703, ""},
		{Target{Kind: TargetXID, XID: 703, Exclusive: true}, 702, ""},
		{Target{Kind: TargetTime, Time: minute(3)}, 703, "in the WAL up to " + fork.String() + ", where the archived WAL ends"},
		{Target{Kind: TargetLSN, LSN: behind}, 703, "the archived WAL ends at " + fork.String()},
		{Target{Kind: TargetLSN, LSN: 4*smallSegment + 100}, 703, "WAL segment " + own.String() + " isn't in the repository; the way to 0/400064 leads through it"},
		{Target{Kind: TargetXID, XID: 704}, 703, "no transaction 704 ended"},
		{Target{Kind: TargetName, Name: "astray"}, 703, "it has none"},
		{Target{Kind: TargetLatest}, 703, "000000010000000000000003 is, which PostgreSQL takes in its place: recovery would go on behind the fork at " + fork.String() +
			" with what timeline 1 wrote afterwards, which isn't on the way; --timeline 1 --to-lsn " + fork.String() + " --exclusive ends at the fork"},
	} {
		p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: c.target, Timeline: "2", Deep: c.problem == ""})
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
			continue
		}
		if err := p.Err(); xidOf(p.LastIn) != c.in || !p.Certified || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: last in %+v, certified %v, %v; want %d and %q", c.target, p.LastIn, p.Certified, err, c.in, c.problem)
		}
		if c.problem == "" && (len(p.WAL.Missing) > 0 || p.WAL.Last != wal.SegmentName(1, 3, smallSegment).String() || p.WAL.Until != fork.String()) ||
			c.problem != "" && !slices.Equal(p.WAL.Missing, []string{own.String()}) {
			t.Errorf("%s: WAL %+v", c.target, p.WAL)
		}
		if p.Range != nil && !p.Range.ToTime.Equal(minute(3)) {
			t.Errorf("%s: times to before %s can be reached, want %s", c.target, p.Range.ToTime, minute(3))
		}
		if p.EndsAt > fork || p.EndsAt == 0 {
			t.Errorf("%s: it ends at %s, behind the fork at %s", c.target, p.EndsAt, fork)
		}
	}
	// The fork itself, as the plan advises.
	p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLSN, LSN: fork, Exclusive: true}, Timeline: "1"})
	if err != nil || p.Err() != nil || xidOf(p.LastIn) != 703 || p.EndsAt != fork {
		t.Errorf("the fork itself: %+v, %v", p, err)
	}
}

// TestPlanBeforeAll is fault 43: a target before the oldest backup is refused,
// with what can be reached.
func TestPlanBeforeAll(t *testing.T) {
	l := typical(t)
	for _, target := range []Target{{Kind: TargetTime, Time: minute(-5)}, {Kind: TargetLSN, LSN: 2 * smallSegment}} {
		_, err := MakePlan(t.Context(), Of(l.repository), Request{Target: target})
		if _, refused := errors.AsType[*RefusedError](err); !refused || !strings.Contains(err.Error(), "; the first commit behind the oldest is of transaction 701, at 2026-11-20 10:01:00+00") {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestDeep reads what a listing only sees: damage, and WAL of somewhere else.
func TestDeep(t *testing.T) {
	plan := func(l *life) (*Plan, error) {
		return MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}, Deep: true})
	}
	l := typical(t)
	if p, err := plan(l); err != nil || p.WAL.Verified != 4 || !p.Reachable {
		t.Fatalf("%d segments verified, %v", p.WAL.Verified, err)
	}
	key := l.repository.FileKey(testSystem, wal.SegmentName(1, 4, smallSegment))
	body, _, err := l.repository.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	stored[len(stored)-20] ^= 1
	if err := l.repository.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := l.repository.Store.Put(t.Context(), key, bytes.NewReader(stored)); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("WAL segment %s can't be fetched, and recovery ends with an error there, at %s: ", wal.SegmentName(1, 4, smallSegment), wal.LSN(4*smallSegment))
	end := fmt.Sprintf("; the WAL before it ends at %s: its last commit is of transaction 706, at %s", wal.LSN(4*smallSegment), FormatTime(minute(5)))
	p, err := plan(l)
	if err != nil || p.Reachable || len(p.Problems) != 1 || !strings.HasPrefix(p.Problems[0], want) || !strings.HasSuffix(p.Problems[0], end) || xidOf(p.LastIn) != 706 || p.Range == nil || p.WAL.Verified != 2 {
		t.Errorf("a damaged segment: %v, %+v", err, p)
	}
	// Where the plan itself comes upon it, and where it needn't.
	for _, c := range []struct {
		target Target
		in     uint32
	}{
		{Target{Kind: TargetXID, XID: 704}, 706}, {Target{Kind: TargetXID, XID: 701}, 701},
		{Target{Kind: TargetLSN, LSN: l.at["g"]}, 706}, {Target{Kind: TargetXID, XID: 706}, 706}, {Target{Kind: TargetImmediate}, 0},
	} {
		p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: c.target})
		refused := c.target.XID == 704 || c.target.Kind == TargetLSN
		if err != nil || p.Reachable == refused || xidOf(p.LastIn) != c.in || refused && (len(p.Problems) != 1 || !strings.HasPrefix(p.Problems[0], want)) {
			t.Errorf("%s: %v, %+v", c.target, err, p)
		}
	}
}

// TestBrokenWAL ends before a segment that doesn't continue the one before it.
func TestBrokenWAL(t *testing.T) {
	l := typical(t)
	other := newLife(t)
	other.crossing(24, 903, minute(1))
	other.commit(904, minute(2))
	other.SwitchSegment()
	other.commit(905, minute(20))
	other.SwitchSegment()
	name := wal.SegmentName(1, 4, smallSegment)
	if err := l.repository.Store.Delete(t.Context(), l.repository.FileKey(testSystem, name)); err != nil {
		t.Fatal(err)
	}
	other.Data = other.Data[:3*smallSegment]
	other.archive(t, l.repository, 4)
	p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}})
	if err != nil || p.Reachable || len(p.Problems) != 1 || !strings.Contains(p.Problems[0], name.String()+" doesn't continue") {
		t.Errorf("unasked: %v, problems %q", err, p.Problems)
	}
	p, err = MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}, AcceptGap: true})
	if err != nil || p.Err() != nil || p.EndsAt != 4*smallSegment || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], name.String()+" doesn't continue") {
		t.Errorf("it ends at %s, %v, warnings %q", p.EndsAt, err, p.Warnings)
	}
}

// TestPreparedAtFork names a transaction that keeps PostgreSQL from replaying a
// fork with hot_standby on.
func TestPreparedAtFork(t *testing.T) {
	for _, checkpoint := range []bool{true, false} {
		l := newLife(t)
		l.commit(701, minute(1))
		l.SwitchSegment()
		l.prepare(702, minute(2), "pending")
		fork := l.Position()
		child := l.server.fork(2)
		if checkpoint {
			child.Record(wal.ResourceXLOG, 0x00, 0, make([]byte, 88))
		}
		child.commit(803, minute(6))
		child.SwitchSegment()
		l.archiveFork(t, child, fork)
		c := withoutPrepared{Of(l.repository)}
		for _, action := range []Action{ActionPause, ActionPromote} {
			p, err := MakePlan(t.Context(), c, Request{Target: Target{Kind: TargetLatest}, Action: action})
			if err != nil {
				t.Fatal(err)
			}
			off := slices.Contains(p.Settings, Setting{"hot_standby", "off"})
			if named := strings.Contains(strings.Join(append(p.Problems, p.Notes...), " "), `"pending"`); named != checkpoint ||
				off != (checkpoint && action == ActionPromote) || p.Reachable != (action == ActionPromote || !checkpoint) {
				t.Errorf("checkpoint %v, %s: problems %q, notes %q, hot_standby off %v", checkpoint, action, p.Problems, p.Notes, off)
			}
		}
	}
}

// TestBranchWithProblem asks for a timeline also where one that has the target
// can't be restored to: it is no less the one that may be meant.
func TestBranchWithProblem(t *testing.T) {
	l := newLife(t)
	l.commit(701, minute(1))
	l.SwitchSegment()
	l.prepare(702, minute(2), "pending")
	fork := l.Position()
	second, third := l.server.fork(2), l.server.fork(3)
	second.Record(wal.ResourceXLOG, 0x00, 0, make([]byte, 88)) // a checkpoint, which can't be replayed
	for _, child := range []*server{second, third} {
		child.commit(803, minute(6))
		child.SwitchSegment()
	}
	l.archiveFork(t, second, fork)
	third.archive(t, l.repository, 3)
	history := "1\t" + fork.String() + "\tno recovery target specified\n"
	if _, err := l.repository.Store.Put(t.Context(), repo.HistoryKey(testSystem, 3), strings.NewReader(history)); err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), withoutPrepared{Of(l.repository)}, Request{Target: Target{Kind: TargetXID, XID: 803}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Choices) != 2 || !p.Choices[0].Reachable || p.Choices[1].Reachable || p.Choices[1].Timeline != 2 ||
		!strings.Contains(p.Err().Error(), "--timeline 2, which leaves the other at "+fork.String()+", ends with transaction 803, committed at 2026-11-20 10:06:00+00, but can't be restored to as it is") {
		t.Errorf("choices %+v, %v", p.Choices, p.Err())
	}
}

// TestPreparedBeforeFork refuses to promote where PostgreSQL would look for a
// transaction's state under the name of a segment that wasn't fetched.
func TestPreparedBeforeFork(t *testing.T) {
	l := newLife(t)
	l.commit(701, minute(1))
	l.SwitchSegment()
	l.prepare(702, minute(2), "pending")
	l.commit(703, minute(3))
	fork := l.Position()
	child := l.server.fork(2)
	child.commit(803, minute(6))
	child.SwitchSegment()
	l.archiveFork(t, child, fork)
	for _, action := range []Action{ActionPause, ActionPromote} {
		p, err := MakePlan(t.Context(), withoutPrepared{Of(l.repository)}, Request{Target: Target{Kind: TargetXID, XID: 703}, Timeline: "2", Action: action})
		if err != nil {
			t.Fatal(err)
		}
		said := p.Warnings
		if action == ActionPromote {
			said = p.Problems
		}
		if !strings.Contains(strings.Join(said, " "), `"pending"`) || p.Reachable != (action == ActionPause) {
			t.Errorf("%s: reachable %v, problems %q, warnings %q", action, p.Reachable, p.Problems, p.Warnings)
		}
	}
}

// withoutPrepared is a catalogue whose backups have no manifest, but allow for
// prepared transactions.
type withoutPrepared struct{ Catalogue }

func (c withoutPrepared) Prepared(context.Context, *repo.Backup) ([]uint32, error) { return nil, nil }

func (c withoutPrepared) Backup(ctx context.Context, ref repo.BackupRef) (*repo.Backup, error) {
	b, err := c.Catalogue.Backup(ctx, ref)
	if err == nil {
		b.Required.MaxPreparedTransactions = 5
	}
	return b, err
}
