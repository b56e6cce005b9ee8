package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/walship/walship/pkg/postgres"
)

// DefaultPatience is how long a server in recovery may show no progress before
// it is given up.
const DefaultPatience = 5 * time.Minute

// StartOptions say how a restored cluster is started.
type StartOptions struct {
	Programs string        // the folder of PostgreSQL's programs; "": the usual place of the major
	Users    []string      // whom to connect as, in the order in which they are tried
	Settings []string      // name=value, for the server's command line
	Patience time.Duration // 0: DefaultPatience
	Log      *slog.Logger
}

// States of a server that was started.
const (
	StatePaused   = "paused"    // at the target
	StatePromoted = "promoted"  // it takes writes
	StateShutDown = "shut down" // at the target
	StateStandby  = "standby"   // it replays, and goes on
)

// Started says what became of the recovery. Its JSON form is stable.
type Started struct {
	State  string `json:"state"`
	PID    int    `json:"pid,omitempty"`    // of the server; missing when it is shut down
	Socket string `json:"socket,omitempty"` // the folder of its socket
	Port   int    `json:"port,omitempty"`
	User   string `json:"user,omitempty"` // whom walship connected as
	Log    string `json:"log"`
	// Stopped is what the server said of where it stopped; empty at the end of
	// the WAL, and for a standby.
	Stopped string `json:"stopped,omitempty"`
	// Replayed is the LSN behind the last record that was replayed, LastEnding
	// when the last transaction ended that was, by its own record. Missing
	// where they can't be asked for.
	Replayed   string    `json:"replayed_lsn,omitempty"`
	LastEnding time.Time `json:"last_transaction_time,omitzero"`
	// LastIn is the plan's last transaction in, if the server has it as
	// committed and, where that can be asked, the first out not.
	LastIn *Ending `json:"last_in,omitempty"`
	// Promised is where the plan said that recovery ends; missing where it
	// couldn't tell. Differences say what isn't as the plan said, AsPromised
	// that there are none.
	Promised    string   `json:"promised_lsn,omitempty"`
	AsPromised  bool     `json:"as_promised"`
	Differences []string `json:"differences"`

	server *postgres.PrivateServer
	replay *Rate // how fast WAL was replayed; nil where it isn't known
}

// Conninfo is how to connect to the server's database.
func (s *Started) Conninfo(database string) string { return s.server.Conninfo(s.User, database) }

// Stop stops the server; at once where its data directory isn't needed again.
func (s *Started) Stop(ctx context.Context, atOnce bool) error { return s.server.Stop(ctx, atOnce) }

// Start starts what Run has restored, out of everybody's reach but its own
// user's, and waits until recovery is where the plan wants it. How long that
// takes nobody knows beforehand, so it is given up only when nothing moves any
// more, neither the server's log, its WAL, nor what was replayed. A server that
// doesn't get there is stopped, unless it has ended.
func Start(ctx context.Context, p *Plan, r *Result, o StartOptions) (*Started, error) {
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	programs, err := postgres.Programs(ctx, p.record.ServerVersion/10000, o.Programs)
	if err != nil {
		return nil, err
	}
	s := &Started{Log: filepath.Join(r.StateDirectory, "server.log"), Port: postgres.PrivatePort, AsPromised: true, Differences: []string{}}
	if s.Socket, err = socketFolder(r.StateDirectory); err != nil {
		return nil, err
	}
	begun := logSize(s.Log)
	s.server, err = postgres.StartPrivate(postgres.PrivateOptions{
		Programs: programs, DataDirectory: p.Directory, Socket: s.Socket, Log: s.Log, Settings: append(r.options, o.Settings...),
	})
	if err != nil {
		return nil, err
	}
	s.PID = s.server.PID
	o.Log.Info("started the server", "pid", s.PID, "log", s.Log)
	now := time.Now()
	w := &waiting{plan: p, started: s, options: o, logFrom: begun, moved: now}
	err = w.wait(ctx)
	if s.State != StateStandby && p.EndsAt != 0 {
		s.replay = rateOf(p.WAL.ReplaySize, time.Since(now), now)
	}
	if err == nil {
		err = w.hold(ctx)
	}
	if err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("start the restored server: %w", err), s.server.Stop(stop, true))
	}
	return s, nil
}

const (
	pollInterval = 100 * time.Millisecond
	stopTimeout  = 30 * time.Second
)

// socketFolder makes the folder of the server's socket, in the state directory
// unless its path is too long for one.
func socketFolder(state string) (string, error) {
	folder := filepath.Join(state, postgres.PrivateFolder)
	if len(folder) > postgres.MaxSocket {
		return os.MkdirTemp("", postgres.PrivateFolderPrefix)
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the folder of the server's socket: %w", err)
	}
	return folder, nil
}

// waiting waits for a server's recovery.
type waiting struct {
	plan    *Plan
	started *Started
	options StartOptions
	logFrom int64 // where this server's messages begin
	moved   time.Time
	trace   string // changes when the server does something
	user    string // who could connect
}

func (w *waiting) wait(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.started.server.Exited():
			return w.ended()
		case <-ticker.C:
		}
		done, trace, err := w.look(ctx)
		if done || err != nil {
			return err
		}
		if trace != w.trace {
			w.trace, w.moved = trace, time.Now()
		}
		if time.Since(w.moved) > w.options.Patience {
			return fmt.Errorf("nothing has moved for %s: the last lines of %s are:\n%s", w.options.Patience, w.started.Log, w.lastLines())
		}
	}
}

// look asks the server how far it is, and returns what tells whether it moves.
func (w *waiting) look(ctx context.Context) (done bool, trace string, err error) {
	trace = w.traces()
	r, err := w.ask(ctx)
	if err != nil {
		return false, trace, nil // it isn't consistent yet, or starts up
	}
	s := w.started
	s.Replayed, s.LastEnding, s.User = r.Replayed, r.LastEnding, w.user
	switch {
	case !r.Running:
		s.State = StatePromoted
	case w.plan.standby():
		s.State = StateStandby
	case r.Paused:
		s.State = StatePaused
	default:
		return false, trace + r.Replayed, nil
	}
	log := w.log()
	if s.State == StatePaused && strings.Contains(log, "insufficient parameter settings") {
		return false, "", errors.New("recovery has paused before the target, because of settings that are too low: " + w.lastLines())
	}
	s.Stopped = stoppedLine(log)
	return true, trace, nil
}

// ask connects as the first of the users who is let in.
func (w *waiting) ask(ctx context.Context) (postgres.Recovery, error) {
	users := w.options.Users
	if w.user != "" {
		users = []string{w.user}
	}
	var failed error
	for _, user := range users {
		conn, err := postgres.Connect(ctx, w.started.server.Conninfo(user, "template1"))
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		r, err := conn.Recovery(ctx)
		if err = errors.Join(err, conn.Close()); err == nil {
			w.user = user
		}
		return r, err
	}
	return postgres.Recovery{}, failed
}

// ended says why the server has.
func (w *waiting) ended() error {
	s, log := w.started, w.log()
	if s.Stopped = stoppedLine(log); s.Stopped != "" && w.plan.Target.Action == ActionShutdown && strings.Contains(log, "database system is shut down") {
		s.State, s.PID, s.Socket, s.Port = StateShutDown, 0, "", 0
		return nil
	}
	return fmt.Errorf("it has ended: the last lines of %s are:\n%s", s.Log, w.lastLines())
}

// traces are what a server in recovery changes: its log and its WAL.
func (w *waiting) traces() string {
	var all strings.Builder
	fmt.Fprint(&all, logSize(w.started.Log), " ")
	for _, name := range []string{"pg_wal", "global/pg_control"} {
		if info, err := os.Stat(filepath.Join(w.plan.Directory, name)); err == nil {
			fmt.Fprint(&all, info.ModTime().UnixNano(), " ")
		}
	}
	return all.String()
}

func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// maxLog bounds what is read of a server's messages, from their end.
const maxLog = 1 << 20

// log returns what this server has said.
func (w *waiting) log() string {
	file, err := os.Open(w.started.Log)
	if err != nil {
		return ""
	}
	defer file.Close()
	from := max(w.logFrom, logSize(w.started.Log)-maxLog)
	data, _ := io.ReadAll(io.NewSectionReader(file, from, maxLog))
	return string(data)
}

// lastLines returns the last messages of the server.
func (w *waiting) lastLines() string {
	const most = 8
	lines := strings.Split(strings.TrimSpace(w.log()), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// stoppedLine finds what the server said of where recovery stopped
// (recoveryStopsBefore and recoveryStopsAfter in
// src/backend/access/transam/xlogrecovery.c).
func stoppedLine(log string) string {
	stopped := regexp.MustCompile(`LOG:  (recovery stopping .*)`)
	found := ""
	lines := bufio.NewScanner(strings.NewReader(log))
	lines.Buffer(nil, maxLog)
	for lines.Scan() {
		if match := stopped.FindStringSubmatch(lines.Text()); match != nil {
			found = match[1]
		}
	}
	return found
}
