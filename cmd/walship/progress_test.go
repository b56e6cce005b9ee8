package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/restore"
)

// newMeter is a meter whose clock ticks once for each report.
func newMeter(write func(*meter, progressEvent)) (*meter, *strings.Builder) {
	var out strings.Builder
	e := newEnvironment(stdio{err: &out})
	e.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	now := time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)
	m := &meter{e: e, what: "backup", logged: now, write: write}
	m.now = func() time.Time { now = now.Add(time.Second); return now }
	return m, &out
}

func TestProgressLine(t *testing.T) {
	m, out := newMeter((*meter).redraw)
	m.show("X", 0, 0)
	m.show("X", 100<<20, 1000<<20)
	m.show("X", 300<<20, 1000<<20)
	m.show("X", 1100<<20, 1000<<20) // the cluster has grown
	m.end()
	m.end()
	want := []string{
		"backup X: 0 B, 0 B/s",
		"backup X: 100 MB of 1000 MB (10 %), 100 MB/s, 9s left",
		"backup X: 300 MB of 1000 MB (30 %), 150 MB/s, 5s left",
		"backup X: 1.1 GB of 1000 MB (100 %), 366 MB/s, 0s left",
		"",
	}
	if got := strings.Join(want, "\x1b[K\r") + "\x1b[K"; out.String() != got {
		t.Errorf("on the terminal is %q, want %q", out.String(), got)
	}
}

func TestProgressLog(t *testing.T) {
	m, out := newMeter((*meter).log)
	for i := range int64(60) {
		m.show("X", i<<20, 100<<20)
	}
	m.end()
	want := `level=INFO msg="backup X: 29.0 MB of 100 MB (29 %), 1.0 MB/s, 1m11s left"` + "\n" +
		`level=INFO msg="backup X: 59.0 MB of 100 MB (59 %), 1.0 MB/s, 41s left"` + "\n"
	if out.String() != want {
		t.Errorf("the log is\n%s\nwant\n%s", out, want)
	}
}

// TestProgressOfRestore: the comparing that may come first has a name and a
// speed of its own.
func TestProgressOfRestore(t *testing.T) {
	m, out := newMeter((*meter).redraw)
	m.what = "restore"
	show := m.ofRestore("X")
	show(restore.Progress{Comparing: true, Total: 1000 << 20})
	show(restore.Progress{Comparing: true, Done: 500 << 20, Total: 1000 << 20})
	show(restore.Progress{Done: 500 << 20, Kept: 500 << 20, Total: 1000 << 20})
	show(restore.Progress{Done: 600 << 20, Kept: 500 << 20, Total: 1000 << 20})
	want := []string{
		"compare X: 0 B of 1000 MB (0 %), 0 B/s",
		"compare X: 500 MB of 1000 MB (50 %), 500 MB/s, 1s left",
		"restore X: 500 MB of 1000 MB (50 %), 0 B/s",
		"restore X: 600 MB of 1000 MB (60 %), 100 MB/s, 4s left",
		"",
	}
	if got := strings.Join(want, "\x1b[K\r"); out.String() != got {
		t.Errorf("on the terminal is %q, want %q", out.String(), got)
	}
}

func TestProgressEvents(t *testing.T) {
	m, out := newMeter((*meter).event)
	m.show("X", 10, 100)
	m.show("X", 20, 100)
	m.end()
	var events []map[string]any
	for line := range strings.Lines(out.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, event)
	}
	if len(events) != 2 || events[0]["seconds_left"] != nil || events[1]["seconds_left"] != 8.0 || events[1]["bytes_per_second"] != 10.0 ||
		events[1]["event"] != "progress" || events[1]["id"] != "X" || events[1]["total_bytes"] != 100.0 || events[1]["time"] != "2026-11-20T14:25:02Z" {
		t.Errorf("the events are %v", events)
	}
}
