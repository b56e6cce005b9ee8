package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// The large archive that TestPlanScale plans on: 2,000,000 segments on five
// timelines, each of which was left in the middle of a block of segments.
const (
	largeSegments = 2_000_000
	largeBackups  = 1000
	largeLatency  = 20 * time.Millisecond
	perBackup     = largeSegments / largeBackups
)

// largeForks are the segments where a timeline begins.
var largeForks = []uint64{1, 400_077, 800_200, 1_200_011, 1_600_130}

// large is a repository that makes up its objects when it is asked for them.
// It counts requests, and takes its time for each.
type large struct {
	storage.Store // the small things: history files and backups
	repository    *repo.Repository
	requests      atomic.Int64
	latency       time.Duration
	made          sync.Map // objects, by key
}

func timelineOf(n uint64) wal.TimelineID {
	tli := 1
	for i, fork := range largeForks {
		if n >= fork {
			tli = i + 1
		}
	}
	return wal.TimelineID(tli)
}

// endings returns when a segment's two transactions ended: 20 seconds apart,
// but for a clock that goes wrong now and then, by up to an hour.
func endings(n uint64) [2]time.Time {
	base := clock(0).AddDate(-2, 0, 0).Add(time.Duration(n) * 20 * time.Second)
	if n%10_007 < 40 { // for some segments it is ahead
		base = base.Add(time.Hour)
	}
	if n%997 == 5 { // and for one it goes back
		base = base.Add(-10 * time.Minute)
	}
	return [2]time.Time{base, base.Add(10 * time.Second)}
}

func segmentXID(n uint64) uint32 { return uint32(1000 + 2*n) }

// largeWAL makes a segment.
func largeWAL(n uint64) []byte {
	s := newServer(timelineOf(n), n, smallSegment)
	s.Prev = wal.LSN((n-1)*smallSegment + 40 + 2*40)
	for i, at := range endings(n) {
		s.commit(segmentXID(n)+uint32(i), at)
	}
	s.SwitchSegment()
	return s.Data
}

// largeSummary is what wal.Check says of it.
func largeSummary(n uint64) wal.Summary {
	start, times := wal.LSN(n*smallSegment), endings(n)
	return wal.Summary{
		Records: 3, First: start + 40, Prev: start - smallSegment + 120, Last: start + 120, End: start + smallSegment, Ending: wal.EndingSwitch,
		Commits: 2, Stops: 2, MinTime: wal.TimestampOf(times[0]), MaxTime: wal.TimestampOf(times[1]),
		Transactions: wal.Transactions{Known: true, Least: segmentXID(n), Most: segmentXID(n) + 1},
	}
}

func newLarge(t *testing.T) *large {
	t.Helper()
	r := makeRepository()
	l := &large{Store: r.Store, repository: r}
	ctx := context.Background()
	var history strings.Builder
	for i, fork := range largeForks[1:] {
		fmt.Fprintf(&history, "%d\t%s\tno recovery target specified\n", i+1, wal.LSN(fork*smallSegment))
		if _, err := l.Store.Put(ctx, repo.HistoryKey(testSystem, wal.TimelineID(i+2)), strings.NewReader(history.String())); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(largeBackups) {
		n := 10 + i*perBackup
		stop := wal.LSN(n*smallSegment + 40)
		started := endings(n)[0]
		id := started.Format("20060102T150405Z")
		b := &repo.Backup{
			ID: id, SystemID: testSystem, ServerVersion: 150018, Timeline: timelineOf(n), StartLSN: wal.LSN((n-1)*smallSegment + 40),
			Checkpoint: wal.LSN((n-1)*smallSegment + 80), StopLSN: stop, SegmentSize: smallSegment,
			StartTime: started, StopTime: started.Add(5 * time.Second), StopSnapshot: fmt.Sprintf("%d:%d:", segmentXID(n), segmentXID(n)),
			Parts: []repo.Object{{Key: repo.PartKey(testSystem, id, 1)}}, Manifest: repo.Object{Key: repo.ManifestKey(testSystem, id)},
		}
		commitEmpty(t, r, b)
	}
	r.Store = l
	return l
}

func (l *large) request() {
	l.requests.Add(1)
	time.Sleep(l.latency) // the storage's, which the test is about
}

func (l *large) Stat(ctx context.Context, key string) (storage.Info, error) {
	l.request()
	return l.Store.Stat(ctx, key)
}

func (l *large) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, storage.Info, error) {
	l.request()
	kept, known := l.made.Load(key)
	data, _ := kept.([]byte)
	var err error
	if !known {
		if data, err = l.object(key); err == nil {
			l.made.Store(key, data)
		}
	}
	if data == nil && err == nil {
		return l.Store.Get(ctx, key, offset, length)
	}
	size := int64(len(data))
	if length >= 0 {
		data = data[:min(size, length)]
	}
	return io.NopCloser(bytes.NewReader(data)), storage.Info{Key: key, Size: size}, err
}

// object makes a segment or a roll-up; nil for anything else.
func (l *large) object(key string) ([]byte, error) {
	rest, ok := strings.CutPrefix(key, fmt.Sprintf("%d/wal/", uint64(testSystem)))
	if _, file, segment := strings.Cut(rest, "/"); ok && segment {
		name, err := wal.ParseFileName(strings.TrimSuffix(file, ".zst"))
		n := name.SegmentNumber(smallSegment)
		if err != nil || n < 1 || n > largeSegments || name.Timeline != timelineOf(n) {
			return nil, storage.ErrNotExist
		}
		return l.seal(name, n)
	}
	name, ok := strings.CutPrefix(key, fmt.Sprintf("%d/summaries/", uint64(testSystem)))
	if !ok {
		return nil, nil
	}
	first, err := wal.ParseFileName(name[:24])
	if err != nil {
		return nil, storage.ErrNotExist
	}
	return l.rollup(key, first, name[24:] == fmt.Sprintf("-%d.zst", smallSegment))
}

func (l *large) seal(name wal.FileName, n uint64) ([]byte, error) {
	content := largeWAL(n)
	h := repo.Header(testSystem, name)
	h.PlainSize, h.Digest, h.Fields = smallSegment, object.DigestOf(content), largeSummary(n).Fields()
	var stored bytes.Buffer
	w, err := l.repository.Sealer.Seal(&stored, h)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	return stored.Bytes(), err
}

// rollup makes one of a block that is whole, on one timeline.
func (l *large) rollup(key string, name wal.FileName, whole bool) ([]byte, error) {
	length := uint64(repo.SmallRollupSegments)
	if whole {
		length = repo.RollupSegments
	}
	first := name.SegmentNumber(smallSegment)
	x := &repo.Rollup{SystemID: testSystem, Timeline: name.Timeline, SegmentSize: smallSegment, Length: length, Block: first / length}
	if last := first + length - 1; first == 0 || last > largeSegments || timelineOf(first) != name.Timeline || timelineOf(last) != name.Timeline {
		return nil, storage.ErrNotExist
	}
	for n := first; n < first+length; n++ {
		x.Segments = append(x.Segments, largeSummary(n))
	}
	made := makeRepository()
	if err := made.WriteRollup(context.Background(), x); err != nil {
		return nil, err
	}
	body, _, err := made.Store.Get(context.Background(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(body)
}

func (l *large) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	walPrefix := fmt.Sprintf("%d/wal/", uint64(testSystem))
	source := l.Store.List(ctx, prefix, after)
	if prefix == walPrefix {
		source = l.listWAL(walPrefix, after)
	}
	return func(yield func(storage.Info, error) bool) {
		page := 0
		l.request()
		for info, err := range source {
			if page++; page > 1000 { // a page of S3's listing
				l.request()
				page = 1
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// listWAL lists history files and segments in the order of their keys.
func (l *large) listWAL(prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for i, fork := range largeForks {
			tli, end := wal.TimelineID(i+1), uint64(largeSegments+1)
			if i+1 < len(largeForks) {
				end = largeForks[i+1]
			}
			if history := repo.HistoryKey(testSystem, tli); i > 0 && history > after && !yield(storage.Info{Key: history, Size: 50}, nil) {
				return
			}
			key := func(n uint64) string { return repo.WALKey(testSystem, wal.SegmentName(tli, n, smallSegment)) + ".zst" }
			skip := uint64(0)
			for low, high := uint64(0), end-fork; low < high; skip = low { // the first key behind after
				if middle := (low + high) / 2; key(fork+middle) > after {
					high = middle
				} else {
					low = middle + 1
				}
			}
			for n := fork + skip; n < end; n++ {
				if k := key(n); k > after && !yield(storage.Info{Key: k, Size: 500}, nil) {
					return
				}
			}
		}
	}
}

// TestPlanScale plans on an archive of 2,000,000 segments, 1,000 backups and
// five timelines, where clocks go back now and then: few requests, little time
// and little memory, and the stop that a walk along all commits finds.
func TestPlanScale(t *testing.T) {
	l := newLarge(t)
	if got, err := wal.Check(bytes.NewReader(largeWAL(7)), wal.SegmentName(1, 7, smallSegment), smallSegment, testSystem); err != nil {
		t.Fatal(err)
	} else if got.Chain = (wal.ChainDigest{}); fmt.Sprint(got) != fmt.Sprint(largeSummary(7)) {
		t.Fatalf("a segment's summary is\n%+v, made up is\n%+v", got, largeSummary(7))
	}
	rng := rand.New(rand.NewPCG(4, 2))
	targets := []uint64{largeForks[2] + 3, largeForks[3] - 2, largeForks[4] + 200, largeSegments - 3, 10_007*7 + 60, 997*333 + 6}
	for range 4 {
		targets = append(targets, 20+rng.Uint64N(largeSegments-40))
	}
	for _, n := range targets {
		target := Target{Kind: TargetTime, Time: endings(n)[0].Add(time.Second)}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			// With a clock that runs only while all wait for the storage.
			synctest.Test(t, func(t *testing.T) { l.plan(t, target, largeLatency) })
			begun := time.Now()
			held := heldBy(func() { l.plan(t, target, 0) })
			t.Logf("%v without the storage's latency, %d MiB", time.Since(begun).Round(time.Millisecond), held>>20)
			if held > 64<<20 {
				t.Errorf("%d bytes of memory, at most 64 MiB", held)
			}
			l.made.Clear()
		})
	}
}

// TestPlanScaleRecords plans for LSNs and transactions on the same archive, of
// which no timeline is given.
func TestPlanScaleRecords(t *testing.T) {
	l := newLarge(t)
	for _, n := range []uint64{largeForks[2] + 3, largeSegments / 2, largeForks[4] + 200, largeSegments - 3} {
		for _, target := range []Target{{Kind: TargetLSN, LSN: wal.LSN(n*smallSegment + 40)}, {Kind: TargetXID, XID: uint64(segmentXID(n))}} {
			l.requests.Store(0)
			p, err := MakePlan(t.Context(), Of(l.repository), Request{SystemID: testSystem, Target: target})
			if err != nil {
				t.Fatal(err)
			}
			if requests := l.requests.Load(); requests > 200 || p.Stop == nil || p.Stop.XID != segmentXID(n) || !p.Reachable {
				t.Errorf("%s: %d requests, at most 200; it stops at %+v, problems %q", target, requests, p.Stop, p.Problems)
			} else {
				t.Logf("%s: %d requests", target, requests)
			}
		}
	}
}

// plan plans for a target, and checks the stop and what it cost.
func (l *large) plan(t *testing.T, target Target, latency time.Duration) {
	l.latency = latency
	r := Request{SystemID: testSystem, Target: target}
	begun := time.Now()
	l.requests.Store(0)
	c := Of(l.repository)
	candidate := &Plan{SystemID: testSystem, target: target}
	if err := candidate.chooseBackup(t.Context(), c, r, ^wal.LSN(0)); err != nil {
		t.Fatal(err)
	}
	found, err := candidate.candidate(t.Context(), candidate.wayFrom(c))
	if took, requests := time.Since(begun), l.requests.Load(); err != nil || found == none || requests > 60 || took > 3*time.Second {
		t.Errorf("candidate %d, %v: %d requests, %v; at most 60 and 3 s", found, err, requests, took)
	} else if latency > 0 {
		t.Logf("candidate: %d requests, %v", requests, took)
	}
	begun = time.Now()
	l.requests.Store(0)
	p, err := MakePlan(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	took, requests := time.Since(begun), l.requests.Load()
	if latency > 0 {
		t.Logf("certified: %d requests, %v, %d segments before the stop", requests, took, p.WAL.Needed)
	}
	if want := firstBehind(p.record.StartLSN, target.Time); p.Stop == nil || p.Stop.XID != want || !p.Certified || !p.Reachable {
		t.Errorf("it stops at %+v, certified %v, problems %q; want transaction %d", p.Stop, p.Certified, p.Problems, want)
	}
	if requests > 200 || took > 10*time.Second {
		t.Errorf("%d requests, %v; at most 200 and 10 s", requests, took)
	}
}

// firstBehind walks along all commits from an LSN on.
func firstBehind(redo wal.LSN, target time.Time) uint32 {
	for n := uint64(redo) / smallSegment; n <= largeSegments; n++ {
		for i, at := range endings(n) {
			if at.After(target) {
				return segmentXID(n) + uint32(i)
			}
		}
	}
	return 0
}

// heldBy returns how much memory was in use at most while do ran, beside what
// was before.
func heldBy(do func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // or garbage would count
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	done, most := make(chan struct{}), uint64(0)
	var watch sync.WaitGroup
	watch.Go(func() {
		for ticker := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-ticker.C:
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			case <-done:
				ticker.Stop()
				return
			}
		}
	})
	do()
	close(done)
	watch.Wait()
	return most - min(most, before.HeapAlloc)
}
