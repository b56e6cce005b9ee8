package status

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

const (
	testSystem  = 7710420903573164485
	testSegment = 1 << 20
)

// lsn is a position in segments: 2.5 is the middle of segment 2.
func lsn(segments float64) wal.LSN { return wal.LSN(segments * testSegment) }

func at(hour int) time.Time { return time.Date(2026, 11, 20, hour, 0, 0, 0, time.UTC) }

// archived is a repository that a test fills.
type archived struct {
	*repo.Repository
	t *testing.T
}

func newArchived(t *testing.T) archived {
	info := repo.Info{Format: repo.Format, ID: strings.Repeat("5a", 16), Encryption: "none"}
	return archived{&repo.Repository{
		Store: mem.New(), Info: info,
		Sealer: &object.Sealer{Repository: info.ID}, Opener: &object.Opener{Repository: info.ID},
	}, t}
}

func (a archived) put(key string, content []byte) {
	a.t.Helper()
	if _, err := a.Store.Put(context.Background(), key, bytes.NewReader(content)); err != nil {
		a.t.Fatal(err)
	}
}

// segments archives those from one number through another.
func (a archived) segments(timeline wal.TimelineID, first, last uint64) {
	a.t.Helper()
	for n := first; n <= last; n++ {
		a.segment(wal.SegmentName(timeline, n, testSegment), nil)
	}
}

func (a archived) segment(name wal.FileName, fields []wal.Field) {
	a.t.Helper()
	header := repo.Header(testSystem, name)
	header.PlainSize, header.Fields = testSegment, fields
	var sealed bytes.Buffer
	w, err := a.Sealer.Seal(&sealed, header)
	if err == nil {
		_, err = w.Write(make([]byte, testSegment))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.put(a.FileKey(testSystem, name), sealed.Bytes())
}

func (a archived) history(timeline wal.TimelineID, lines ...string) {
	a.t.Helper()
	a.put(repo.HistoryKey(testSystem, timeline), []byte(strings.Join(lines, "\n")+"\n"))
}

func (a archived) backup(timeline wal.TimelineID, hour int, start, stop float64) (id string) {
	a.t.Helper()
	return a.backupOf(nil, timeline, hour, start, stop).ID
}

// backupOf is backup for one that is based on another; nil: for a full one.
func (a archived) backupOf(parent *repo.Backup, timeline wal.TimelineID, hour int, start, stop float64) *repo.Backup {
	a.t.Helper()
	id := at(hour).Format("20060102T150405Z")
	b := &repo.Backup{
		ID: id, SystemID: testSystem, Timeline: timeline, StartLSN: lsn(start), StopLSN: lsn(stop), SegmentSize: testSegment,
		StartTime: at(hour), StopTime: at(hour).Add(time.Minute),
		Parts: []repo.Object{{Key: repo.PartKey(testSystem, id, 1)}}, Manifest: repo.Object{Key: repo.ManifestKey(testSystem, id)},
	}
	if parent != nil {
		b.Parent = parent.AsParent()
	}
	a.put(b.Parts[0].Key, nil)
	a.put(b.Manifest.Key, nil)
	if err := a.CommitBackup(context.Background(), b); err != nil {
		a.t.Fatal(err)
	}
	return b
}

func TestOf(t *testing.T) {
	a := newArchived(t)
	a.segments(1, 1, 6) // and 7 and 8 are missing
	a.segments(1, 9, 10)
	first := a.backup(1, 9, 2.1, 2.2)
	a.history(2, fmt.Sprintf("1\t%s\tbefore it <was> dropped", lsn(5.5)))
	a.segments(2, 5, 9)
	second := a.backup(2, 12, 6.1, 6.2)
	a.history(4, fmt.Sprintf("1\t%s\tone", lsn(5.5)), fmt.Sprintf("2\t%s\tpromoted", lsn(8.5)))
	a.segments(3, 20, 20) // which has no history file
	broken := repo.BackupRef{ID: "20261120T230000Z", SystemID: testSystem, Timeline: 1, StartLSN: lsn(9.1), StopLSN: lsn(9.2)}
	a.put(broken.Key(), []byte("{"))

	got, err := Of(t.Context(), a.Repository, testSystem)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		timeline, parent wal.TimelineID
		begin            wal.LSN
		archived, gaps   string
		backups          string
		reachable        string
	}{
		{1, 0, 0, "0/100000-0/700000 0/900000-0/B00000", "0/700000-0/900000", first + " " + broken.ID, "0/233333-0/700000 from " + first},
		{2, 1, lsn(5.5), "0/500000-0/A00000", "", second, "0/580000-0/A00000 from " + first},
		{4, 2, lsn(8.5), "", "", "", ""},
		{3, 0, 0, "0/1400000-0/1500000", "", "", ""},
	}
	if len(got.Timelines) != len(want) || got.SegmentSize != testSegment {
		t.Fatalf("%d timelines, segments of %d bytes: %+v", len(got.Timelines), got.SegmentSize, got)
	}
	for i, w := range want {
		g := got.Timelines[i]
		var backups, reachable []string
		for _, b := range g.Backups {
			backups = append(backups, b.ID)
			if (b.Unreadable != "") != (b.ID == broken.ID) {
				t.Errorf("backup %s: unreadable: %q", b.ID, b.Unreadable)
			}
		}
		for _, s := range g.Reachable {
			reachable = append(reachable, fmt.Sprintf("%s-%s from %s", s.From, s.To, s.Backup))
		}
		if g.Timeline != w.timeline || g.Parent != w.parent || g.Begin != w.begin || runsText(g.Archived) != w.archived || runsText(g.Gaps) != w.gaps ||
			strings.Join(backups, " ") != w.backups || strings.Join(reachable, " ") != w.reachable {
			t.Errorf("timeline %d of %d, begins %s; archived %s; gaps %s; backups %s; reachable %s\nwant %+v",
				g.Timeline, g.Parent, g.Begin, runsText(g.Archived), runsText(g.Gaps), backups, reachable, w)
		}
		if g.HistoryMissing != (g.Timeline == 3) {
			t.Errorf("timeline %d: history missing: %v", g.Timeline, g.HistoryMissing)
		}
	}
	if reason := got.Timelines[1].Reason; reason != "before it <was> dropped" {
		t.Errorf("the reason of timeline 2 is %q", reason)
	}
}

// TestLostObjects: a backup that an object is gone of leads nowhere, and
// neither does what is based on it. Each backup costs one listing.
func TestLostObjects(t *testing.T) {
	a := newArchived(t)
	a.segments(1, 1, 9)
	whole := a.backupOf(nil, 1, 9, 2.1, 2.2)
	lost := a.backupOf(nil, 1, 8, 1.1, 1.2)
	child := a.backupOf(lost, 1, 10, 3.1, 3.2)
	grandchild := a.backupOf(child, 1, 11, 4.1, 4.2)
	if err := a.Store.Delete(t.Context(), lost.Parts[0].Key); err != nil {
		t.Fatal(err)
	}
	store := &listings{Store: a.Store}
	a.Repository.Store = store
	got, err := Of(t.Context(), a.Repository, testSystem)
	if err != nil || len(got.Timelines) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, b := range got.Timelines[0].Backups {
		want := map[string]string{
			lost.ID: lost.Parts[0].Key + " isn't in the repository any more", child.ID: "backup " + lost.ID + ", which it is based on, is gone or can't be restored",
			grandchild.ID: "backup " + child.ID + ", which it is based on, is gone or can't be restored",
		}[b.ID]
		if b.Unusable != want {
			t.Errorf("backup %s: unusable: %q, want %q", b.ID, b.Unusable, want)
		}
	}
	if reachable := got.Timelines[0].Reachable; len(reachable) != 1 || reachable[0].Backup != whole.ID {
		t.Errorf("reachable is %+v, want all from backup %s on", reachable, whole.ID)
	}
	if n := store.folders.Load(); n != 4 {
		t.Errorf("%d folders of 4 backups were listed", n)
	}
}

// TestMarkOrphans: what a backup is based on may have a later id, where the
// server's clock was set back.
func TestMarkOrphans(t *testing.T) {
	backups := []placed{
		{Backup: Backup{ID: "1", Parent: "3", Stop: 40}}, {Backup: Backup{ID: "2", Parent: "4", Stop: 50}},
		{Backup: Backup{ID: "3", Stop: 30}}, {Backup: Backup{ID: "4", Stop: 20, Unusable: "lost"}},
	}
	markOrphans(backups)
	for i, want := range []bool{true, false, true, false} {
		if got := backups[i].leads(); got != want {
			t.Errorf("backup %s can be restored: %t (%q), want %t", backups[i].ID, got, backups[i].Unusable, want)
		}
	}
}

// listings counts the listings of backups' folders.
type listings struct {
	storage.Store
	folders atomic.Int64
}

func (l *listings) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	if strings.Contains(prefix, "/parts/") {
		l.folders.Add(1)
	}
	return l.Store.List(ctx, prefix, after)
}

// TestWhole: a backup whose chain is cut leads nowhere.
func TestWhole(t *testing.T) {
	var got []string
	for _, b := range whole([]placed{
		{Backup: Backup{ID: "full"}}, {Backup: Backup{ID: "second", Parent: "full"}}, {Backup: Backup{ID: "third", Parent: "second"}},
		{Backup: Backup{ID: "orphan", Parent: "gone"}}, {Backup: Backup{ID: "broken", Unreadable: "why"}}, {Backup: Backup{ID: "lost", Unusable: "why"}}, {Backup: Backup{ID: "on-broken", Parent: "broken"}},
		{Backup: Backup{ID: "circle", Parent: "circle"}},
		{Backup: Backup{ID: "degraded", Degraded: true}}, {Backup: Backup{ID: "on-degraded", Parent: "degraded"}},
	}) {
		got = append(got, b.ID)
	}
	if want := []string{"full", "second", "third", "degraded"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v can be restored, want %v", got, want)
	}
}

func runsText(runs []Run) string {
	var texts []string
	for _, r := range runs {
		texts = append(texts, r.Start.String()+"-"+r.End.String())
	}
	return strings.Join(texts, " ")
}

// TestOwners holds which timeline owns which segments against the rule for one
// segment, for histories that go back, too.
func TestOwners(t *testing.T) {
	c := &Cluster{SegmentSize: testSegment}
	for _, forks := range [][]float64{{}, {3.5}, {3.5, 5.5}, {3.5, 3.7}, {5.5, 3.5}, {5.5, 3.5, 8}, {3, 3, 3}, {9.5, 7.5, 2.5}, {0.5, 4}} {
		h := wal.History{Timeline: wal.TimelineID(len(forks) + 1)}
		for i, fork := range forks {
			h.Entries = append(h.Entries, wal.HistoryEntry{Timeline: wal.TimelineID(i + 1), Switch: lsn(fork)})
		}
		var want, got [12]wal.TimelineID
		for n := range want {
			want[n] = h.SegmentTimeline(uint64(n), testSegment)
			for _, o := range c.owners(h) {
				if o.first <= uint64(n) && uint64(n) < o.end {
					got[n] = o.timeline
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("forks at %v: segments of timelines %v, want %v", forks, got, want)
		}
	}
}

// TestEnd: the last transaction of a timeline is looked for behind idle segments,
// and a segment whose header is corrupt is named.
func TestEnd(t *testing.T) {
	a := newArchived(t)
	end := func(number uint64, stops uint64) {
		name := wal.SegmentName(1, number, testSegment)
		s := wal.Summary{End: lsn(float64(number) + 0.5), Ending: wal.EndingSwitch, Stops: stops, MinTime: wal.TimestampOf(at(8)), MaxTime: wal.TimestampOf(at(int(number)))}
		a.segment(name, s.Fields())
	}
	end(4, 3)
	end(5, 2)
	for n := uint64(6); n < 10; n++ {
		end(n, 0)
	}
	read := func() Timeline {
		got, err := Of(t.Context(), a.Repository, testSystem)
		if err != nil || len(got.Timelines) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got.Timelines[0]
	}
	if got := read(); !got.LastTime.Equal(at(5)) || got.End != lsn(9.5) || got.Unreadable != "" {
		t.Errorf("the timeline ends at %s with %s", got.End, got.LastTime)
	}
	a.put(a.FileKey(testSystem, wal.SegmentName(1, 10, testSegment)), []byte("no object"))
	if got := read(); !got.LastTime.IsZero() || got.End != lsn(11) || got.Unreadable != "00000001000000000000000A" {
		t.Errorf("with a segment that can't be read, the timeline is %+v", got)
	}
}
