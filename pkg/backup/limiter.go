package backup

import (
	"context"
	"sync"
	"time"
)

// limiter bounds the sum of what several readers take per second. It
// schedules: whoever takes n bytes moves the next moment by the time that n
// bytes may last, and waits for its own.
type limiter struct {
	rate  int64 // bytes per second; 0 is without a bound
	now   func() time.Time
	sleep func(context.Context, time.Duration) error

	mu   sync.Mutex
	next time.Time
}

func newLimiter(rate int64) *limiter {
	return &limiter{rate: rate, now: time.Now, sleep: sleep}
}

// wait returns when n more bytes may be taken.
func (l *limiter) wait(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.rate <= 0 {
		return nil
	}
	l.mu.Lock()
	now := l.now()
	// Time that nobody used isn't saved up.
	if l.next.Before(now) {
		l.next = now
	}
	pause := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	if pause <= 0 {
		return nil
	}
	return l.sleep(ctx, pause)
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
