package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"
)

// meter says how far something is that takes long: on a terminal in one line
// that is drawn again, elsewhere in a line of the log now and then.
type meter struct {
	what    string
	out     io.Writer // the terminal; nil: none
	log     *slog.Logger
	begun   time.Time
	first   int64 // what was done when it was first told
	started bool
	logged  time.Time
}

// meterInterval is the time between two lines of the log.
const meterInterval = 30 * time.Second

// newMeter makes a meter of something, as in "restoring".
func (e *environment) newMeter(what string) *meter {
	m := &meter{what: what, log: e.logger()}
	if file, ok := e.err.(*os.File); ok && term.IsTerminal(int(file.Fd())) && e.settings.Log.Format != "json" {
		m.out = file
	}
	return m
}

// at shows how many bytes are done of how many, at a time.
func (m *meter) at(now time.Time, done, total int64) {
	if !m.started {
		m.started, m.begun, m.first, m.logged = true, now, done, now
		return
	}
	rate := float64(done-m.first) / now.Sub(m.begun).Seconds()
	left := "unknown"
	if rate > 0 {
		left = time.Duration(float64(max(total-done, 0)) / rate * float64(time.Second)).Round(time.Second).String()
	}
	if m.out != nil {
		fmt.Fprintf(m.out, "\r\x1b[K%s: %s of %s (%d %%), %s/s, %s left", m.what, sizeText(done), sizeText(total), percent(done, total), sizeText(int64(rate)), left)
		return
	}
	if now.Sub(m.logged) >= meterInterval {
		m.logged = now
		m.log.Info(m.what, "bytes", done, "of", total, "bytes_per_second", int64(rate), "left", left)
	}
}

// end takes the line off the terminal.
func (m *meter) end() {
	if m.out != nil && m.started {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return min(done, total) * 100 / total
}
