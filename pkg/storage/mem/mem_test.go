package mem_test

import (
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return mem.New() })
}

func TestClock(t *testing.T) {
	s := mem.New()
	now := time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)
	s.Now = func() time.Time { return now }
	put, err := s.Put(t.Context(), "a", strings.NewReader("x"))
	if err != nil || !put.Modified.Equal(now) || !put.ServerTime.Equal(now) {
		t.Fatalf("Put = %+v, %v; want both times to be the clock's", put, err)
	}
	written := now
	now = now.Add(time.Hour)
	stat, err := s.Stat(t.Context(), "a")
	if err != nil || !stat.Modified.Equal(written) || !stat.ServerTime.Equal(now) {
		t.Fatalf("Stat = %+v, %v; want modified %v, server time %v", stat, err, written, now)
	}
}
