package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/walship/walship/pkg/restore"
)

// progressFlag chooses how a long command says how far it is.
func progressFlag() cli.Flag {
	return &cli.StringFlag{Name: "progress", Value: "auto",
		Usage: "`FORM` of what is said of the progress, on standard error: auto, a line on a terminal and else log lines now and then; json, an event each second; none"}
}

// progressInterval is the time between two log lines of progress.
const progressInterval = 30 * time.Second

// rateWindow is the number of the last reports, one a second, from which the
// speed is taken.
const rateWindow = 10

// progressEvent is how far a command is. It is the JSON form, too.
type progressEvent struct {
	Event      string    `json:"event"` // progress
	What       string    `json:"what"`
	ID         string    `json:"id,omitempty"` // of a backup
	Time       time.Time `json:"time"`
	Bytes      int64     `json:"bytes"`
	TotalBytes int64     `json:"total_bytes"` // 0: not known yet
	Rate       int64     `json:"bytes_per_second"`
	// SecondsLeft is missing while it can't be told.
	SecondsLeft *int64 `json:"seconds_left,omitempty"`
}

// meter shows the progress of one command. It isn't for several goroutines at
// once.
type meter struct {
	e      *environment
	what   string
	now    func() time.Time
	write  func(*meter, progressEvent)
	recent []progressEvent // at most rateWindow and one, the oldest first
	logged time.Time
	line   bool // there is a line on the terminal
}

// meter returns what shows the progress as the flag says.
func (e *environment) meter(c *cli.Context, what string) (*meter, error) {
	m := &meter{e: e, what: what, now: time.Now, logged: time.Now()}
	switch form := c.String("progress"); form {
	case "auto":
		m.write = (*meter).log
		if file, ok := e.err.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			m.write = (*meter).redraw
		}
	case "json":
		m.write = (*meter).event
	case "none":
		m.write = func(*meter, progressEvent) {}
	default:
		return nil, &usageError{fmt.Sprintf("--progress=%s: it is auto, json or none", form)}
	}
	return m, nil
}

// ofRestore shows the progress of a restore, whose files may be compared with
// what is there before.
func (m *meter) ofRestore(id string) func(restore.Progress) {
	what := m.what
	return func(p restore.Progress) {
		now := what
		if p.Comparing {
			now = "compare"
		}
		if now != m.what {
			m.what, m.recent = now, nil
		}
		m.show(id, p.Done, p.Total)
	}
}

// show is told once a second how far the command is.
func (m *meter) show(id string, bytes, total int64) {
	event := progressEvent{Event: "progress", What: m.what, ID: id, Time: m.now().UTC(), Bytes: bytes, TotalBytes: total}
	m.recent = append(m.recent, event)
	if len(m.recent) > rateWindow+1 {
		m.recent = m.recent[1:]
	}
	first := m.recent[0]
	if took := event.Time.Sub(first.Time).Seconds(); took > 0 {
		event.Rate = int64(float64(bytes-first.Bytes) / took)
	}
	if left := total - bytes; event.Rate > 0 && total > 0 {
		seconds := max(0, left+event.Rate-1) / event.Rate
		event.SecondsLeft = &seconds
	}
	m.write(m, event)
}

// end takes the line off the terminal.
func (m *meter) end() {
	if m.line {
		m.line = false
		fmt.Fprint(m.e.err, "\x1b[K")
	}
}

func (m *meter) event(p progressEvent) {
	line, err := json.Marshal(p)
	if err == nil { // numbers, text and times always can be
		fmt.Fprintf(m.e.err, "%s\n", line)
	}
}

// redraw leaves the cursor at the start of the line, so that a line of the log
// takes its place.
func (m *meter) redraw(p progressEvent) {
	m.line = true
	fmt.Fprintf(m.e.err, "%s\x1b[K\r", p)
}

func (m *meter) log(p progressEvent) {
	if p.Time.Sub(m.logged) < progressInterval {
		return
	}
	m.logged = p.Time
	m.e.log.Info(p.String())
}

// String is the line for people.
func (p progressEvent) String() string {
	text := p.What
	if p.ID != "" {
		text += " " + p.ID
	}
	text += ": " + sizeText(p.Bytes)
	if p.TotalBytes > 0 {
		text += fmt.Sprintf(" of %s (%d %%)", sizeText(p.TotalBytes), min(100, 100*p.Bytes/p.TotalBytes))
	}
	text += ", " + sizeText(p.Rate) + "/s"
	if p.SecondsLeft != nil {
		text += ", " + (time.Duration(*p.SecondsLeft) * time.Second).String() + " left"
	}
	return text
}
