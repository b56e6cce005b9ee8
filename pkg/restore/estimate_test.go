package restore

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// endless has as much of every object as is asked for, a MiB in 100 ms; or
// nothing, until its caller gives up.
type endless struct {
	storage.Store
	hangs    bool
	requests int
	asked    int64
}

func (e *endless) Get(ctx context.Context, key string, _, length int64) (io.ReadCloser, storage.Info, error) {
	e.requests++
	e.asked += length
	if strings.Contains(key, "missing") {
		return nil, storage.Info{}, storage.ErrNotExist
	}
	if e.hangs {
		<-ctx.Done()
		return nil, storage.Info{}, ctx.Err()
	}
	return io.NopCloser(&slowly{ctx, length}), storage.Info{Key: key}, nil
}

type slowly struct {
	ctx  context.Context
	left int64
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), s.left)
	s.left -= n
	time.Sleep(time.Duration(n) * 100 * time.Millisecond >> 20)
	return int(n), s.ctx.Err()
}

// TestProbe: a probe is two requests, 8 MiB and 2 seconds at most, and a storage
// that doesn't answer leaves the estimate without a download.
func TestProbe(t *testing.T) {
	l := typical(t)
	p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}})
	if err != nil {
		t.Fatal(err)
	}
	p.DownloadSize = 100 << 20
	synctest.Test(t, func(t *testing.T) {
		store := &endless{}
		r := *l.repository
		r.Store = store
		if err := p.Probe(t.Context(), &r); err != nil || store.requests != 2 || store.asked > 8<<20 {
			t.Errorf("%v: %d requests, %d bytes", err, store.requests, store.asked)
		}
		if m := p.Estimate.Download; m == nil || m.Sample != store.asked || m.Seconds < 9.9 || m.Seconds > 10.1 || m.MeasuredBy != ByProbe {
			t.Errorf("100 MiB, of which one comes in 100 ms: %+v", m)
		}
		store.hangs = true
		begun := time.Now()
		if err := p.Probe(t.Context(), &r); err != nil || p.Estimate.Download != nil || time.Since(begun) > 2*time.Second {
			t.Errorf("a storage that hangs: %v, %+v after %v", err, p.Estimate.Download, time.Since(begun))
		}
		p.record.Parts[0].Key = "missing"
		if err := p.Probe(t.Context(), &r); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("a part that isn't there: %v", err)
		}
	})
}

// TestRates: what restores have measured is remembered, each by the last one that
// did, and goes before the backup's own speed.
func TestRates(t *testing.T) {
	l := typical(t)
	p, err := MakePlan(t.Context(), Of(l.repository), Request{Target: Target{Kind: TargetLatest}})
	if err != nil {
		t.Fatal(err)
	}
	p.chain[0].PlainSize = 30 << 20
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	estimate := func() *Estimate {
		t.Helper()
		rates, err := ReadRates(root)
		if err != nil {
			t.Fatal(err)
		}
		p.Estimate = p.estimate()
		p.UseRates(rates)
		return p.Estimate
	}
	if e := estimate(); e.Files.MeasuredBy != ByBackup || e.Replay != nil {
		t.Errorf("no restore has measured anything: %+v", e)
	}
	for _, c := range []struct {
		result  Result
		started *Started
	}{
		{Result{files: rateOf(1<<20, time.Hour, minute(1))}, &Started{replay: rateOf(int64(p.WAL.ReplaySize), 7*time.Second, minute(2))}},
		{Result{files: rateOf(10<<20, time.Second, minute(3))}, nil},
		{Result{}, &Started{}},
	} {
		if err := c.result.Remember(root, c.started); err != nil {
			t.Fatal(err)
		}
	}
	e := estimate()
	if want := (Measure{Bytes: 30 << 20, Seconds: 3, Rate: 10 << 20, MeasuredBy: ByRestore, MeasuredAt: minute(3), Sample: 10 << 20}); *e.Files != want {
		t.Errorf("files: %+v, want %+v", *e.Files, want)
	}
	if e.Replay == nil || e.Replay.Seconds < 6.9 || e.Replay.Seconds > 7.1 || !e.Replay.MeasuredAt.Equal(minute(2)) {
		t.Errorf("replay: %+v, want 7 s", e.Replay)
	}
	write(t, root.Name()+"/"+ratesName, `{"files": {"bytes": -1}, "replay": 7`)
	if e := estimate(); e.Files.MeasuredBy != ByBackup || e.Replay != nil {
		t.Errorf("what can't be understood is used: %+v", e)
	}
}
