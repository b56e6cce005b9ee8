package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var terminal, log bytes.Buffer
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	const mib = 1 << 20
	for _, m := range []*meter{
		{what: "restoring", out: &terminal},
		{what: "restoring", log: slog.New(slog.NewTextHandler(&log, nil))},
	} {
		m.at(start, 100*mib, 400*mib) // of which 100 were there
		m.at(start.Add(10*time.Second), 200*mib, 400*mib)
		m.at(start.Add(31*time.Second), 410*mib, 400*mib) // more than was thought
		m.end()
	}
	for _, want := range []string{"restoring: 200 MB of 400 MB (50 %), 10.0 MB/s, 20s left", "(100 %), 10.0 MB/s, 0s left\r\x1b[K"} {
		if !strings.Contains(terminal.String(), want) {
			t.Errorf("the terminal shows %q, want %q", terminal.String(), want)
		}
	}
	if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "bytes=429916160 of=419430400 bytes_per_second=10485760 left=0s") {
		t.Errorf("the log has %d lines:\n%s", got, log.String())
	}
}
