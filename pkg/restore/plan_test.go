package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

const testSystem = 7300000000000000001

// fakeCatalogue is a repository as the planner sees it.
type fakeCatalogue struct {
	clusters  []uint64
	backups   []*repo.Backup
	histories map[wal.TimelineID]string
	files     []string // names in pg_wal
	summaries map[string]wal.Summary
}

func (c *fakeCatalogue) Summary(_ context.Context, _ uint64, name wal.FileName) (wal.Summary, error) {
	if !slices.Contains(c.files, name.String()) {
		return wal.Summary{}, storage.ErrNotExist
	}
	return c.summaries[name.String()], nil
}

// Segment has no identity.
func (c *fakeCatalogue) Segment(_ context.Context, _ uint64, name wal.FileName, _ uint64) (io.ReadCloser, error) {
	return nil, fmt.Errorf("open %s: %w", name, crypto.ErrNoIdentity)
}

func (c *fakeCatalogue) ReadRollup(context.Context, *repo.Rollup) error { return storage.ErrNotExist }

func (c *fakeCatalogue) Prepared(context.Context, *repo.Backup) ([]uint32, error) {
	return nil, crypto.ErrNoIdentity
}

func (c *fakeCatalogue) Lost(context.Context, *repo.Backup) (string, error) { return "", nil }

func (c *fakeCatalogue) Clusters(context.Context) ([]uint64, error) { return c.clusters, nil }

func (c *fakeCatalogue) Now(context.Context) (time.Time, error) { return clock(11), nil }

func (c *fakeCatalogue) Backups(context.Context, uint64) ([]repo.BackupRef, error) {
	var refs []repo.BackupRef
	for _, b := range c.backups {
		refs = append(refs, b.Ref())
	}
	return refs, nil
}

func (c *fakeCatalogue) Backup(_ context.Context, ref repo.BackupRef) (*repo.Backup, error) {
	for _, b := range c.backups {
		if b.ID == ref.ID {
			return b, nil
		}
	}
	return nil, storage.ErrNotExist
}

func (c *fakeCatalogue) Histories(context.Context, uint64) ([]wal.TimelineID, error) {
	var all []wal.TimelineID
	for tli := range c.histories {
		all = append(all, tli)
	}
	slices.Sort(all)
	return all, nil
}

func (c *fakeCatalogue) History(_ context.Context, _ uint64, tli wal.TimelineID) (wal.History, error) {
	if tli == 1 {
		return wal.History{Timeline: 1}, nil
	}
	text, ok := c.histories[tli]
	if !ok {
		return wal.History{}, fmt.Errorf("read %s: %w", wal.HistoryName(tli), storage.ErrNotExist)
	}
	return wal.ParseHistory(tli, []byte(text))
}

func (c *fakeCatalogue) ListWAL(_ context.Context, _ uint64, from wal.FileName) iter.Seq2[repo.WALFile, error] {
	names := slices.Sorted(slices.Values(c.files))
	return func(yield func(repo.WALFile, error) bool) {
		for _, s := range names {
			name, err := wal.ParseFileName(s)
			if err == nil && s < from.String() {
				continue
			}
			if !yield(repo.WALFile{Name: name, Size: 1000}, err) {
				return
			}
		}
	}
}

const testSegment = 1 << 20

// segments names the segments of a timeline with the numbers first to last.
func segments(tli wal.TimelineID, first, last uint64) []string {
	var names []string
	for n := first; n <= last; n++ {
		names = append(names, wal.SegmentName(tli, n, testSegment).String())
	}
	return names
}

func at(segno uint64, offset uint64) wal.LSN { return wal.LSN(segno*testSegment + offset) }

func clock(hour int) time.Time { return time.Date(2026, 11, 20, hour, 0, 0, 0, time.UTC) }

// backup makes a record of a backup that ran through segment segno, and ended
// at the given hour when transactions below xmax but for those running had
// ended.
func backup(id string, tli wal.TimelineID, segno uint64, hour int, snapshot string) *repo.Backup {
	return &repo.Backup{
		Format: 1, ID: id, SystemID: testSystem, Label: "test", ServerVersion: 150018, Timeline: tli,
		StartLSN: at(segno, 0x28), Checkpoint: at(segno, 0x60), StopLSN: at(segno, 0x138), SegmentSize: testSegment,
		StartTime: clock(hour).Add(-time.Minute), StopTime: clock(hour), StopSnapshot: snapshot,
		Required: repo.RequiredSettings{MaxConnections: 100, MaxWorkerProcesses: 8, MaxWALSenders: 10, MaxLocksPerTransaction: 64},
		Parts:    []repo.Object{{Key: "part"}}, Files: 10, PlainSize: 5000, StoredSize: 900,
	}
}

// threeDeep is a cluster that was promoted three times, once from a branch
// that was given up: 1 → 2 at segment 6, 1 → 3 at segment 8, 3 → 4 at 10.
func threeDeep() *fakeCatalogue {
	files := slices.Concat(segments(1, 2, 8), segments(2, 6, 9), segments(3, 8, 10), segments(4, 10, 13),
		[]string{"000000010000000000000008.partial", "000000010000000000000002.00000028.backup"})
	return &fakeCatalogue{
		clusters: []uint64{testSystem},
		backups: []*repo.Backup{
			backup("20261120T010000Z", 1, 2, 1, "700:700:"),
			backup("20261120T050000Z", 1, 5, 5, "740:750:742,744"),
			backup("20261120T060000Z", 2, 7, 6, "760:760:"),
			backup("20261120T090000Z", 3, 9, 9, "800:800:"),
		},
		histories: map[wal.TimelineID]string{
			2: "1\t" + at(6, 0x100).String() + "\tno recovery target specified\n",
			3: "1\t" + at(8, 0x200).String() + "\tbefore 2026-11-20\n",
			4: "1\t" + at(8, 0x200).String() + "\tbefore\n\n3\t" + at(10, 0x300).String() + "\tno recovery target specified\n",
		},
		files: files,
	}
}

func plan(t *testing.T, c *fakeCatalogue, r Request) (*Plan, error) {
	t.Helper()
	return MakePlan(context.Background(), c, r)
}

// TestPlanFuture: a target time that the storage's clock hasn't reached is a
// problem, also where the WAL can't be read.
func TestPlanFuture(t *testing.T) {
	p, err := plan(t, threeDeep(), Request{Target: Target{Kind: TargetTime, Time: clock(12)}})
	if err != nil || p.Reachable || len(p.Problems) != 1 || !strings.HasPrefix(p.Problems[0], "the target time is in the future: by the clock of the storage it is 2026-11-20") {
		t.Errorf("plan: %+v, %v", p, err)
	}
}

// corrupted is a repository in which the header of one segment is corrupt.
type corrupted struct {
	*fakeCatalogue
	name string
}

func (c corrupted) Summary(ctx context.Context, systemID uint64, name wal.FileName) (wal.Summary, error) {
	if name.String() == c.name {
		return wal.Summary{}, fmt.Errorf("read header of %s: %w: its own digest doesn't match", name, object.ErrCorrupt)
	}
	return c.fakeCatalogue.Summary(ctx, systemID, name)
}

// TestPlanCorrupt: a segment whose object is seen to be corrupt is a problem, if
// the server is going to ask for it.
func TestPlanCorrupt(t *testing.T) {
	c := corrupted{threeDeep(), "000000010000000000000007"}
	p, err := MakePlan(t.Context(), c, Request{Target: Target{Kind: TargetLatest}, Backup: "20261120T050000Z"})
	if err != nil || len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "segment 000000010000000000000007 can't be fetched, and recovery ends with an error there, at "+at(7, 0).String()+":") {
		t.Errorf("through it: %q, %v", p.Problems, err)
	}
	if p, err = MakePlan(t.Context(), c, Request{Target: Target{Kind: TargetLSN, LSN: at(6, 0x100)}}); err != nil || len(p.Problems) > 0 {
		t.Errorf("before it: %q, %v", p.Problems, err)
	}
}

func TestPlanChoosesBackup(t *testing.T) {
	latest := Target{Kind: TargetLatest}
	for _, c := range []struct {
		name     string
		request  Request
		backup   string // "": refused
		timeline wal.TimelineID
		last     string
		says     string // in the refusal
	}{
		{"latest", Request{Target: latest}, "20261120T090000Z", 4, "00000004000000000000000D", ""},
		{"latest of the first timeline", Request{Target: latest, Timeline: "1"}, "20261120T050000Z", 1, "000000010000000000000008", ""},
		{"latest of the given-up branch", Request{Target: latest, Timeline: "2"}, "20261120T060000Z", 2, "000000020000000000000009", ""},
		{"current is the newest backup's", Request{Target: latest, Timeline: "current"}, "20261120T090000Z", 3, "00000003000000000000000A", ""},
		{"current of a backup", Request{Target: latest, Timeline: "current", Backup: "20261120T060000Z"}, "20261120T060000Z", 2, "000000020000000000000009", ""},
		{"immediate", Request{Target: Target{Kind: TargetImmediate}, Backup: "20261120T050000Z"}, "20261120T050000Z", 4, "000000010000000000000005", ""},
		{"time", Request{Target: Target{Kind: TargetTime, Time: clock(8)}}, "20261120T050000Z", 4, "00000004000000000000000D", ""},
		{"time of the end", Request{Target: Target{Kind: TargetTime, Time: clock(9)}}, "20261120T090000Z", 4, "00000004000000000000000D", ""},
		{"time before the end, exclusive", Request{Target: Target{Kind: TargetTime, Time: clock(9), Exclusive: true}}, "20261120T050000Z", 4, "00000004000000000000000D", ""},
		{"time before all backups", Request{Target: Target{Kind: TargetTime, Time: clock(0)}}, "", 0, "", "2026-11-20 01:00:00+00"},
		{"time before a named backup", Request{Target: Target{Kind: TargetTime, Time: clock(3)}, Backup: "20261120T050000Z"}, "", 0, "", "2026-11-20 05:00:00+00"},
		{"LSN", Request{Target: Target{Kind: TargetLSN, LSN: at(7, 0)}}, "20261120T050000Z", 4, "000000010000000000000007", ""},
		{"LSN of the end", Request{Target: Target{Kind: TargetLSN, LSN: at(9, 0x138), Exclusive: true}}, "20261120T090000Z", 4, "000000030000000000000009", ""},
		{"LSN before the end", Request{Target: Target{Kind: TargetLSN, LSN: at(9, 0x137)}}, "20261120T050000Z", 4, "000000030000000000000009", ""},
		{"LSN on the new timeline", Request{Target: Target{Kind: TargetLSN, LSN: at(10, 0x400)}}, "20261120T090000Z", 4, "00000004000000000000000A", ""},
		{"LSN before all", Request{Target: Target{Kind: TargetLSN, LSN: at(1, 0)}}, "", 0, "", "0/200138"},
		{"xid after all", Request{Target: Target{Kind: TargetXID, XID: 800}}, "20261120T090000Z", 4, "00000004000000000000000D", ""},
		{"xid that was running", Request{Target: Target{Kind: TargetXID, XID: 744}}, "20261120T050000Z", 4, "00000004000000000000000D", ""},
		{"xid that had ended", Request{Target: Target{Kind: TargetXID, XID: 743}}, "20261120T010000Z", 4, "00000004000000000000000D", ""},
		{"xid before all", Request{Target: Target{Kind: TargetXID, XID: 699}}, "", 0, "", "from 700 on"},
		{"name", Request{Target: Target{Kind: TargetName, Name: "release"}}, "20261120T090000Z", 4, "00000004000000000000000D", ""},
		{"backup off the path", Request{Target: latest, Backup: "20261120T060000Z", Timeline: "4"}, "", 0, "", "isn't on the way to timeline 4"},
		{"backup behind the fork", Request{Target: latest, Backup: "20261120T090000Z", Timeline: "2"}, "", 0, "", "isn't on the way to timeline 2"},
		{"unknown backup", Request{Target: latest, Backup: "20261120T080000Z"}, "", 0, "", "no backup 20261120T080000Z"},
		{"unknown timeline", Request{Target: latest, Timeline: "9"}, "", 0, "", "no history file in the repository: PostgreSQL can't follow it without; it can follow --timeline 1, 2, 3, 4"},
		{"no timeline", Request{Target: latest, Timeline: "0"}, "", 0, "", "not a timeline"},
		{"bad action", Request{Target: latest, Action: "stop"}, "", 0, "", "target action"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan(t, threeDeep(), c.request)
			if c.backup == "" {
				var usage *UsageError
				var refused *RefusedError
				if !errors.As(err, &usage) && !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("MakePlan: %v; want a refusal that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatalf("MakePlan: %v", err)
			}
			if p.Backup.ID != c.backup || p.Timeline != c.timeline || p.WAL.Last != c.last || len(p.Problems) > 0 {
				t.Errorf("backup %s, timeline %d, last %s, problems %q; want %s, %d, %s, none",
					p.Backup.ID, p.Timeline, p.WAL.Last, p.Problems, c.backup, c.timeline, c.last)
			}
		})
	}
}

// TestPlanFollowsForks is fault 31: the path is shown with each fork, and the
// fork's segment comes from the child.
func TestPlanFollowsForks(t *testing.T) {
	p, err := plan(t, threeDeep(), Request{Target: Target{Kind: TargetLatest}, Backup: "20261120T050000Z"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{1, at(5, 0x28).String(), at(8, 0x200).String(), "before"},
		{3, at(8, 0x200).String(), at(10, 0x300).String(), "no recovery target specified"},
		{4, at(10, 0x300).String(), "", ""},
	}
	if !slices.Equal(p.Path, want) {
		t.Errorf("path %v, want %v", p.Path, want)
	}
	if p.WAL.Needed != 9 || p.WAL.StoredSize != 9000 || p.WAL.Until != at(14, 0).String() {
		t.Errorf("WAL %+v, want 9 segments of 9000 bytes until %s", p.WAL, at(14, 0))
	}
	for _, name := range []string{"000000030000000000000008", "00000004000000000000000A"} {
		c := threeDeep()
		c.files = slices.DeleteFunc(c.files, func(f string) bool { return f == name })
		p, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}, Backup: "20261120T050000Z"})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.WAL.Missing, []string{name}) || len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "which PostgreSQL takes in its place") {
			t.Errorf("without %s: missing %v, problems %q; want it missing, and the parent's in its place", name, p.WAL.Missing, p.Problems)
		}
		c.files = slices.DeleteFunc(c.files, func(f string) bool { return f[8:] == name[8:] })
		if p, err = plan(t, c, Request{Target: Target{Kind: TargetLatest}, Backup: "20261120T050000Z"}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.WAL.Missing, []string{name}) || len(p.Problems) != 1 || len(p.Warnings) != 1 {
			t.Errorf("without %s and its parents: missing %v, problems %q, warnings %q; want it missing, a gap and a fork out of reach", name, p.WAL.Missing, p.Problems, p.Warnings)
		}
	}
}

func TestPlanSkipsAbandonedAncestor(t *testing.T) {
	// Timeline 3 was reached along 2, but left before 2 began.
	h := wal.History{Timeline: 3, Entries: []wal.HistoryEntry{{Timeline: 1, Switch: at(6, 0)}, {Timeline: 2, Switch: at(5, 0x80)}}}
	want := []Step{{1, at(2, 0x28).String(), at(5, 0x80).String(), ""}, {3, at(5, 0x80).String(), "", ""}}
	if got := pathFrom(h, at(2, 0x28)); !slices.Equal(got, want) {
		t.Errorf("path %v, want %v", got, want)
	}
}

func TestPlanMissing(t *testing.T) {
	without := func(names ...string) *fakeCatalogue {
		c := threeDeep()
		c.files = slices.DeleteFunc(c.files, func(f string) bool { return slices.Contains(names, f) })
		return c
	}
	stopOnSecond := without("000000010000000000000003")
	stopOnSecond.backups[0].StopLSN = at(3, 0x100)
	for _, c := range []struct {
		name     string
		of       *fakeCatalogue
		request  Request
		missing  []string
		partial  []string
		problems int
		warnings int
		last     string
	}{
		{"gap before the end of the backup", stopOnSecond,
			Request{Target: Target{Kind: TargetLatest}, Backup: "20261120T010000Z", Timeline: "1"},
			[]string{"000000010000000000000003"}, nil, 1, 0, "000000010000000000000008"},
		{"gap behind it", without("000000010000000000000004"),
			Request{Target: Target{Kind: TargetTime, Time: clock(2)}, Timeline: "1"},
			[]string{"000000010000000000000004"}, nil, 0, 1, "000000010000000000000003"},
		{"gap before the latest", without("000000010000000000000004"),
			Request{Target: Target{Kind: TargetLatest}, Timeline: "1", Backup: "20261120T010000Z"},
			[]string{"000000010000000000000004"}, nil, 1, 0, "000000010000000000000003"},
		{"gap that is accepted", without("000000010000000000000004"),
			Request{Target: Target{Kind: TargetLatest}, Timeline: "1", Backup: "20261120T010000Z", AcceptGap: true},
			[]string{"000000010000000000000004"}, nil, 0, 1, "000000010000000000000003"},
		{"gap for a standby", without("000000010000000000000004"),
			Request{Target: Target{Kind: TargetLatest}, Timeline: "1", Backup: "20261120T010000Z", Standby: true},
			[]string{"000000010000000000000004"}, nil, 0, 1, "000000010000000000000003"},
		{"gap before the LSN", without("000000010000000000000004"),
			Request{Target: Target{Kind: TargetLSN, LSN: at(5, 0)}, Timeline: "1", Backup: "20261120T010000Z"},
			[]string{"000000010000000000000004"}, nil, 1, 0, "000000010000000000000005"},
		{"LSN behind the archive", threeDeep(),
			Request{Target: Target{Kind: TargetLSN, LSN: at(1<<30, 0)}},
			[]string{"00000004000000000000000E"}, nil, 1, 0, "00000004000000000000000E"},
		{"partial at the end", without("000000010000000000000008"),
			Request{Target: Target{Kind: TargetLatest}, Timeline: "1"},
			[]string{}, []string{"000000010000000000000008.partial"}, 0, 0, "000000010000000000000007"},
		{"partial for an LSN", without("000000010000000000000008"),
			Request{Target: Target{Kind: TargetLSN, LSN: at(8, 0x100)}, Timeline: "1"},
			[]string{"000000010000000000000008"}, []string{"000000010000000000000008.partial"}, 1, 0, "000000010000000000000008"},
		{"nothing archived", &fakeCatalogue{clusters: []uint64{testSystem}, backups: threeDeep().backups[:1]},
			Request{Target: Target{Kind: TargetImmediate}},
			[]string{"000000010000000000000002"}, nil, 1, 0, "000000010000000000000002"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan(t, c.of, c.request)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(p.WAL.Missing, c.missing) || !slices.Equal(p.WAL.Partial, c.partial) ||
				len(p.Problems) != c.problems || len(p.Warnings) != c.warnings || c.problems == 0 && p.WAL.Last != c.last {
				t.Errorf("missing %v, partial %v, last %s, problems %q, warnings %q", p.WAL.Missing, p.WAL.Partial, p.WAL.Last, p.Problems, p.Warnings)
			}
			if err := p.Err(); (err != nil) != (c.problems > 0) {
				t.Errorf("Err: %v", err)
			}
		})
	}
}

func TestPlanWarnsOfMissingHistory(t *testing.T) {
	c := threeDeep()
	c.histories[6] = c.histories[4] + "4\t0/D000000\tx\n"
	p, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Timeline != 4 || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "timeline 5") {
		t.Errorf("timeline %d, warnings %q; want 4 and a warning of timeline 5", p.Timeline, p.Warnings)
	}
}

func TestPlanClusters(t *testing.T) {
	c := threeDeep()
	c.clusters = append(c.clusters, 42)
	if _, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}}); err == nil || !strings.Contains(err.Error(), "--system-id") {
		t.Errorf("two clusters, none chosen: %v", err)
	}
	if _, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}, SystemID: testSystem}); err != nil {
		t.Errorf("two clusters, one chosen: %v", err)
	}
	if _, err := plan(t, &fakeCatalogue{}, Request{Target: Target{Kind: TargetLatest}}); err == nil {
		t.Error("an empty repository was planned")
	}
}

func TestEndedBefore(t *testing.T) {
	for _, c := range []struct {
		snapshot string
		xid      uint64
		ok       bool
	}{
		{"700:710:705", 710, true},
		{"700:710:705", 705, true},
		{"700:710:705", 706, false},
		{"700:710:", 709, false},
		{"4294967300:4294967310:", 4294967310, true},
		{"4294967300:4294967310:", 4294967309, false},
		{"4294967300:4294967310:", 14, true},          // without its epoch
		{"4294967300:4294967310:", 13, false},         // without its epoch
		{"4294967300:4294967310:4294967301", 5, true}, // without its epoch
		{"4294967200:4294967290:", 100, true},         // the ids wrap
		{"4294967300:4294967310:", 4294967200, false}, // from before the wrap
		{"", 1000, false},                             // none recorded
		{"1:x:", 1000, false},                         // malformed
	} {
		if why := endedBefore(c.snapshot, c.xid); (why == "") != c.ok {
			t.Errorf("endedBefore(%q, %d) = %q", c.snapshot, c.xid, why)
		}
	}
}

// TestPlanLooksForTime is fault 43: a target behind the last archived commit.
func TestPlanLooksForTime(t *testing.T) {
	c := threeDeep()
	stamp := func(hour int) wal.Timestamp { return wal.TimestampOf(clock(hour)) }
	c.summaries = map[string]wal.Summary{}
	for _, name := range c.files {
		c.summaries[name] = wal.Summary{Ending: wal.EndingFull, Stops: 3, MinTime: stamp(6), MaxTime: stamp(6)}
	}
	c.summaries["00000003000000000000000A"] = c.summaries["000000030000000000000009"]
	c.summaries["00000004000000000000000B"] = wal.Summary{Ending: wal.EndingFull, Stops: 1, MinTime: stamp(7), MaxTime: stamp(8)}
	c.summaries["00000004000000000000000D"] = wal.Summary{Ending: wal.EndingFull}
	for _, test := range []struct {
		hour      int
		exclusive bool
		refused   bool
	}{{7, false, false}, {8, false, true}, {8, true, false}, {9, true, true}} {
		p, err := plan(t, c, Request{Backup: "20261120T050000Z", Target: Target{Kind: TargetTime, Time: clock(test.hour), Exclusive: test.exclusive}})
		if err != nil {
			t.Fatal(err)
		}
		refused := len(p.Problems) == 1 && strings.Contains(p.Problems[0], "to before 2026-11-20 08:00:00+00") && strings.Contains(p.Problems[0], "not verified")
		if refused != test.refused || !test.refused && len(p.Problems) > 0 || p.Reachable == test.refused {
			t.Errorf("%d h, exclusive %v: problems %q, want some: %v", test.hour, test.exclusive, p.Problems, test.refused)
		}
	}
	delete(c.summaries, "00000004000000000000000C")
	p, err := plan(t, c, Request{Target: Target{Kind: TargetTime, Time: clock(8)}})
	if err != nil || len(p.Warnings) > 0 {
		t.Errorf("with a segment that can't be looked into: %v, warnings %q, want none", err, p.Warnings)
	}
}

func TestPlanLooksForName(t *testing.T) {
	c := threeDeep()
	c.summaries = map[string]wal.Summary{}
	for _, name := range c.files {
		c.summaries[name] = wal.Summary{Ending: wal.EndingFull}
	}
	point := func(segment, name string, lsn wal.LSN) {
		c.summaries[segment] = wal.Summary{Ending: wal.EndingFull, RestorePointCount: 1, RestorePoints: []wal.RestorePoint{{LSN: lsn, Name: name}}}
	}
	point("000000010000000000000006", "early", at(6, 0x500))
	point("000000020000000000000008", "elsewhere", at(8, 0x500))
	point("00000004000000000000000B", "late", at(11, 0x500))
	for name, want := range map[string]string{"early": "20261120T050000Z", "late": "20261120T090000Z", "elsewhere": "20261120T090000Z"} {
		p, err := plan(t, c, Request{Target: Target{Kind: TargetName, Name: name}})
		if err != nil {
			t.Fatal(err)
		}
		if p.Backup.ID != want || (name == "elsewhere") != (len(p.Warnings) == 1) {
			t.Errorf("%s: backup %s, warnings %q; want %s", name, p.Backup.ID, p.Warnings, want)
		}
	}
	p, err := plan(t, c, Request{Target: Target{Kind: TargetName, Name: "early"}, Backup: "20261120T090000Z"})
	if err != nil || len(p.Warnings) != 1 {
		t.Errorf("a backup behind the restore point: %v, want a warning", err)
	}
	delete(c.summaries, "00000004000000000000000C")
	p, err = plan(t, c, Request{Target: Target{Kind: TargetName, Name: "nowhere"}})
	if err != nil || len(p.Warnings) > 0 || !strings.Contains(strings.Join(p.Notes, "\n"), "where the restore point lies isn't known") {
		t.Errorf("with a segment that can't be looked into: %v, warnings %q, notes %q; want a note", err, p.Warnings, p.Notes)
	}
}

// TestPlanRaisesSettings is rule 5: what changed behind the backup counts, as
// far as the WAL is replayed.
func TestPlanRaisesSettings(t *testing.T) {
	const unseen = "parameter settings are insufficient"
	c := threeDeep()
	c.summaries = map[string]wal.Summary{}
	for _, name := range c.files {
		c.summaries[name] = wal.Summary{Ending: wal.EndingFull}
	}
	c.summaries["00000003000000000000000A"] = c.summaries["000000030000000000000009"]
	c.summaries["00000004000000000000000B"] = wal.Summary{Ending: wal.EndingFull, Demands: wal.Demands{MaxConnections: 700, MaxWALSenders: 1}}
	c.summaries["00000004000000000000000D"] = wal.Summary{Ending: wal.EndingFull, Demands: wal.Demands{MaxLocksPerTransaction: 900, Minimal: true}}
	settings := func(p *Plan) map[string]string {
		set := map[string]string{}
		for _, s := range p.Settings {
			set[s.Name] = s.Value
		}
		return set
	}
	before, err := plan(t, c, Request{Target: Target{Kind: TargetImmediate}, Backup: "20261120T050000Z"})
	if err != nil {
		t.Fatal(err)
	}
	was := settings(before)
	for _, test := range []struct {
		target             Target
		connections, locks string
		warnings           int
	}{
		{Target{Kind: TargetLSN, LSN: at(9, 0x500)}, was["max_connections"], was["max_locks_per_transaction"], 0},
		{Target{Kind: TargetLSN, LSN: at(11, 0x500)}, "700", was["max_locks_per_transaction"], 0},
		{Target{}, "700", "900", 1},
	} {
		if test.target.Kind == "" {
			test.target.Kind = TargetLatest
		}
		p, err := plan(t, c, Request{Target: test.target, Backup: "20261120T050000Z"})
		if err != nil {
			t.Fatal(err)
		}
		set := settings(p)
		if set["max_connections"] != test.connections || set["max_locks_per_transaction"] != test.locks || set["max_wal_senders"] != was["max_wal_senders"] {
			t.Errorf("%s: settings %v; were %v", test.target, set, was)
		}
		if len(p.Warnings) != test.warnings || strings.Contains(strings.Join(p.Notes, "\n"), unseen) {
			t.Errorf("%s: warnings %q, notes %q", test.target, p.Warnings, p.Notes)
		}
	}
	delete(c.summaries, "00000004000000000000000C")
	p, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}})
	if err != nil || !strings.Contains(strings.Join(p.Notes, "\n"), unseen) {
		t.Errorf("with a segment that can't be looked into: %v, notes %q", err, p.Notes)
	}
}

// TestPlanFindsCreatedTablespaces names those that the recovery makes: not
// those that the backup has, nor those that are created behind the target.
func TestPlanFindsCreatedTablespaces(t *testing.T) {
	c := threeDeep()
	c.summaries = map[string]wal.Summary{}
	for _, name := range c.files {
		c.summaries[name] = wal.Summary{Ending: wal.EndingFull}
	}
	create := func(path string, positions ...wal.LSN) wal.Summary {
		s := wal.Summary{Ending: wal.EndingFull, TablespaceCount: uint64(len(positions))}
		for i, lsn := range positions {
			s.Tablespaces = append(s.Tablespaces, wal.CreatedTablespace{LSN: lsn, Path: fmt.Sprint(path, i)})
		}
		return s
	}
	c.summaries["000000030000000000000009"] = create("/srv/nine", at(9, 0x10), at(9, 0x80))
	c.summaries["00000004000000000000000B"] = create("/srv/eleven", at(11, 0x100), at(11, 0x200))
	unlisted := create("/srv/thirteen", at(13, 0x100))
	unlisted.TablespaceCount++
	c.summaries["00000004000000000000000D"] = unlisted
	for _, test := range []struct {
		target Target
		want   []string
		more   bool
	}{
		{Target{Kind: TargetImmediate}, []string{"/srv/nine1"}, false},
		{Target{Kind: TargetLSN, LSN: at(11, 0x100)}, []string{"/srv/eleven0", "/srv/nine1"}, false},
		{Target{Kind: TargetLatest}, []string{"/srv/eleven0", "/srv/eleven1", "/srv/nine1", "/srv/thirteen0"}, true},
	} {
		p, err := plan(t, c, Request{Target: test.target, Backup: "20261120T090000Z"})
		if err != nil {
			t.Fatal(err)
		}
		warnings := len(test.want)
		if test.more {
			warnings++
		}
		slices.Sort(p.created)
		if !slices.Equal(p.created, test.want) || len(p.Warnings) != warnings || p.createdUnlisted != test.more {
			t.Errorf("%s: tablespaces %q, warnings %q; want %q", test.target, p.created, p.Warnings, test.want)
		}
	}
}

func TestPlanLooksForLSN(t *testing.T) {
	c := threeDeep()
	c.summaries = map[string]wal.Summary{"00000004000000000000000D": {Ending: wal.EndingFull, Last: at(13, 0x500)}}
	for lsn, problems := range map[wal.LSN]int{at(13, 0x500): 0, at(13, 0x501): 1, at(12, 0x900): 0} {
		p, err := plan(t, c, Request{Target: Target{Kind: TargetLSN, LSN: lsn}})
		if err != nil || len(p.Warnings) > 0 || len(p.Problems) != problems {
			t.Errorf("%s: %v, warnings %q, problems %q; want %d problems", lsn, err, p.Warnings, p.Problems, problems)
		}
	}
}
