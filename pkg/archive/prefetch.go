package archive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/wal"
)

// RecoveryFile is the name under which PostgreSQL wants segments in recovery
// (src/backend/access/transam/xlogrecovery.c); nobody else asks for it.
const RecoveryFile = "RECOVERYXLOG"

// What fetching ahead keeps in a server's state folder.
const (
	prefetchFolder = "prefetch"
	prefetchSocket = prefetchFolder + "/socket"
	prefetchLock   = prefetchFolder + "/lock"
	prefetchStreak = prefetchFolder + "/fetched.json"
)

// A fetch asks the process that fetches ahead over a Unix socket, a line each
// way: the key and the segment's name, then
//
//	take NAME        the segment is complete and checked under this temporary
//	                 name, until the asker hangs up
//	wait             it is on its way; another line follows within a second
//	none             it isn't there: the asker fetches it, and says
//	have, absent     how that ended, or nothing
const (
	replyTake, replyWait, replyNone = "take", "wait", "none"
	reportHave, reportAbsent        = "have", "absent"
)

const (
	// waitEvery is how often a fetch that waits for a segment hears of it,
	// and askTimeout how long it believes in silence.
	waitEvery  = time.Second
	askTimeout = 5 * time.Second
	// startPause is how soon after its start another process may be started
	// that fetches ahead: the first one may have failed.
	startPause = 10 * time.Second
	// startWait is how long a fetch waits for the process that it has started,
	// so that the next one finds it.
	startWait = 300 * time.Millisecond
)

// Ahead answers the fetches of one recovery run from segments that were
// fetched ahead of it by Prefetch, in another process, and has that started
// when recovery streams: when it got two consecutive segments, with no miss
// in between. Whatever goes wrong with it, a fetch does without. So does nil.
type Ahead struct {
	// State is the private state folder of this server.
	State *os.Root
	// Key tells this recovery run, its folder for WAL and its settings from
	// others: see AheadKey.
	Key         string
	SegmentSize uint64 // bytes
	// Start starts Prefetch with the same key in a process of its own, to go
	// on behind the segment last.
	Start func(last wal.FileName) error
	Log   *slog.Logger
}

// asked is a question to the process that fetches ahead.
type asked struct {
	conn  net.Conn // nil: there is no such process
	taken bool
}

// take puts a segment that was fetched ahead at its destination. It waits
// while the segment is on its way.
func (a *Ahead) take(ctx context.Context, name wal.FileName, dest string) asked {
	if a == nil {
		return asked{}
	}
	conn, err := dialState(ctx, a.State)
	if err != nil {
		a.Log.Debug("nothing is fetched ahead", "reason", err)
		return asked{}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	reply, err := a.question(conn, name)
	if err == nil && reply[0] == replyTake {
		if err = takeFile(reply, dest, a.SegmentSize); err == nil {
			_ = conn.Close()
			a.Log.Debug("the segment was fetched ahead", "segment", name.String())
			return asked{taken: true}
		}
	}
	if err != nil {
		a.Log.Debug("a segment that was fetched ahead can't be had", "segment", name.String(), "error", err)
		_ = conn.Close()
		return asked{}
	}
	return asked{conn: conn}
}

// question asks for a segment and returns the words of the last reply.
func (a *Ahead) question(conn net.Conn, name wal.FileName) ([]string, error) {
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%s %s\n", a.Key, name); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 2 && words[0] == replyTake, len(words) == 1 && words[0] == replyNone:
			return words, nil
		case len(words) != 1 || words[0] != replyWait:
			return nil, fmt.Errorf("unknown reply %q", lines.Text())
		}
		if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, errors.New("the process that fetches ahead has hung up")
}

func takeFile(reply []string, dest string, size uint64) error {
	root, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return err
	}
	defer root.Close()
	return durable.Take(root, path.Base(reply[1]), filepath.Base(dest), int64(size))
}

// report tells how a fetch ended for which there was nothing: the process
// that fetches ahead goes on from there, or is started.
func (a *Ahead) report(q asked, name wal.FileName, have, absent bool) {
	if a == nil {
		return
	}
	if q.conn == nil {
		if err := a.noteStreak(name, have, absent); err != nil {
			a.Log.Debug("fetching ahead can't be started", "error", err)
		}
		return
	}
	err := sayHow(q.conn, have, absent)
	if err = errors.Join(err, q.conn.Close()); err != nil {
		a.Log.Debug("the process that fetches ahead didn't hear how a fetch ended", "error", err)
	}
}

func sayHow(conn net.Conn, have, absent bool) error {
	if !have && !absent {
		return nil
	}
	word := reportHave
	if absent {
		word = reportAbsent
	}
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(conn, word)
	return err
}

// streak is the last segment that a recovery run got while nothing was
// fetched ahead.
type streak struct {
	Key     string
	Name    string
	Started time.Time // when a process was last started
}

// noteStreak remembers a fetched segment, and starts to fetch ahead if it is
// the second in a row. A miss ends the row.
func (a *Ahead) noteStreak(name wal.FileName, have, absent bool) error {
	if absent {
		if err := a.State.Remove(prefetchStreak); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if !have {
		return nil
	}
	var last streak
	// One that can't be read, or is torn, says nothing.
	if data, err := a.State.ReadFile(prefetchStreak); err != nil || json.Unmarshal(data, &last) != nil || last.Key != a.Key {
		last = streak{Key: a.Key}
	}
	before, err := wal.ParseFileName(last.Name)
	since := time.Since(last.Started)
	start := err == nil && before.Next(a.SegmentSize) == name && (since < 0 || since > startPause)
	last.Name = name.String()
	if start {
		last.Started = time.Now()
	}
	if err := a.writeStreak(last); err != nil {
		return err
	}
	if !start {
		return nil
	}
	if err := a.Start(name); err != nil {
		return err
	}
	return a.awaitStart()
}

// awaitStart waits until somebody answers who fetches ahead.
func (a *Ahead) awaitStart() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	const pause = 2 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if conn, err := dialState(ctx, a.State); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return errors.New("nobody answers yet who fetches ahead")
		case <-tick.C:
		}
	}
}

func (a *Ahead) writeStreak(s streak) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := makePrefetchFolder(a.State); err != nil {
		return err
	}
	file, err := durable.Create(a.State, prefetchStreak)
	if err != nil {
		return err
	}
	defer file.Discard()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.RenameVolatile()
}

func makePrefetchFolder(state *os.Root) error {
	if err := state.Mkdir(prefetchFolder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder for fetching ahead: %w", err)
	}
	return nil
}

// inState calls use with a short path of a file in the state folder: the
// address of a socket has room for about 100 bytes.
func inState(state *os.Root, name string, use func(path string) error) error {
	dir, err := state.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}

func dialState(ctx context.Context, state *os.Root) (conn net.Conn, err error) {
	err = inState(state, prefetchSocket, func(path string) error {
		conn, err = (&net.Dialer{Timeout: askTimeout}).DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}
