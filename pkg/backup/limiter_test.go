package backup

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	var slept time.Duration
	l := newLimiter(1000)
	l.now = func() time.Time { return now }
	l.sleep = func(_ context.Context, d time.Duration) error {
		slept += d
		now = now.Add(d)
		return nil
	}
	take := func(n int) time.Duration {
		t.Helper()
		slept = 0
		if err := l.wait(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		return slept
	}
	for i, step := range []struct {
		idle  time.Duration
		take  int
		sleep time.Duration
	}{
		{0, 500, 0},
		{0, 1000, 500 * time.Millisecond},
		{0, 1000, time.Second},
		{400 * time.Millisecond, 100, 600 * time.Millisecond},
		{time.Hour, 3000, 0}, // an idle hour isn't saved up
		{0, 1, 3 * time.Second},
	} {
		now = now.Add(step.idle)
		if got := take(step.take); got.Round(time.Millisecond) != step.sleep {
			t.Errorf("step %d: slept %s, want %s", i, got, step.sleep)
		}
	}
}

func TestLimiterStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := newLimiter(1)
	if err := l.wait(ctx, 3600); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := l.wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for an hour ended with %v, want the context's end", err)
	}
	if err := newLimiter(0).wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("without a bound: %v, want the context's end", err)
	}
}
