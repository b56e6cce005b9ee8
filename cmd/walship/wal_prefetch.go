package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// prefetchCommand is what wal fetch starts in the background. It is hidden:
// nobody else has a use for it.
func (e *environment) prefetchCommand() *cli.Command {
	return &cli.Command{
		Name:      "prefetch",
		Usage:     "fetch segments ahead of a recovery; wal fetch starts it by itself",
		ArgsUsage: "LAST DEST",
		Hidden:    true,
		Flags:     []cli.Flag{clusterFlag()},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "LAST", "DEST")
			if err != nil {
				return err
			}
			return e.prefetchWAL(c, args[0], args[1])
		},
	}
}

// prefetchWAL fetches segments ahead of the recovery that wants them at dest
// and has the one called last.
func (e *environment) prefetchWAL(c *cli.Context, last, dest string) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	name, err := wal.ParseFileName(last)
	if err != nil {
		return err
	}
	s, err := e.findServer(c.String("system-id"), dest, settings)
	if err != nil {
		return err
	}
	state, err := e.state(s.systemID, s.dataDirectory)
	if err != nil {
		return err
	}
	defer state.Close()
	run := archive.RecoveryRun(s.dataDirectory)
	key, err := aheadKey(s, run, dest, settings)
	if err != nil {
		return err
	}
	open := func(ctx context.Context) (*repo.Repository, error) {
		if r := e.remembered(ctx, archive.Known{State: state, Place: e.place()}); r != nil {
			return r, nil // what comes of an outdated one isn't given out
		}
		return e.openToRead(ctx)
	}
	return archive.Prefetch(c.Context, open, archive.PrefetchOptions{
		SystemID:    s.systemID,
		SegmentSize: s.segmentSize,
		Segments:    settings.WAL.Prefetch,
		Workers:     min(max(runtime.GOMAXPROCS(0), 2), 8),
		State:       state,
		Key:         key,
		Folder:      filepath.Dir(dest),
		Last:        name,
		Over:        func() bool { return archive.RecoveryOver(s.dataDirectory, run) },
		Log:         e.logger(),
	})
}

// ahead is what answers a server's fetch from segments that were fetched ahead
// of it; nil where that can't be.
func (e *environment) ahead(s server, run, dest string, state *os.Root) *archive.Ahead {
	key, err := aheadKey(s, run, dest, e.settings)
	if err != nil {
		e.logger().Debug("nothing is fetched ahead", "error", err)
		return nil
	}
	return &archive.Ahead{
		State: state, Key: key, SegmentSize: s.segmentSize, Log: e.logger(),
		Start: func(last wal.FileName) error { return e.startPrefetch(s, last, dest, state) },
	}
}

// aheadKey tells what is fetched ahead for one recovery run, with the same
// program and settings, from everything else.
func aheadKey(s server, run, dest string, settings *config.Config) (string, error) {
	how := fmt.Sprintf("%q %q %q %d", version(), settings.Repository, settings.Encryption.IdentityFiles, settings.WAL.Prefetch)
	return archive.AheadKey(s.systemID, run, filepath.Dir(dest), how)
}

const (
	prefetchLog     = "prefetch.log"
	prefetchLogSize = 1 << 20 // it begins anew when it is larger
)

// startPrefetch starts the command prefetch with the settings of this one, as
// a process that outlives it. It has a session of its own, because the server
// signals whole groups of processes; it ends by itself with the server.
func (e *environment) startPrefetch(s server, last wal.FileName, dest string, state *os.Root) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var args []string
	if e.configFile != "" {
		args = append(args, "--config", e.configFile)
	}
	for _, k := range config.Keys() {
		if text, given := e.flags[k.Name]; given {
			args = append(args, "--"+k.Flag()+"="+text)
		}
	}
	args = append(args, "wal", "prefetch", "--system-id", strconv.FormatUint(s.systemID, 10), last.String(), dest)
	// The shell is for a container whose first process is the server. That one
	// adopts what this process leaves behind, and takes it for a crash of its
	// own when it is killed: so the shell waits for it and is well.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@"; exit 0`, "sh", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	log, err := openPrefetchLog(state)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	keepDescriptors()
	if err := cmd.Start(); err != nil {
		return err
	}
	e.logger().Debug("segments are fetched ahead", "process", cmd.Process.Pid)
	return cmd.Process.Release()
}

func openPrefetchLog(state *os.Root) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	info, err := state.Stat(prefetchLog)
	if err == nil && info.Size() > prefetchLogSize {
		flags |= os.O_TRUNC
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return state.OpenFile(prefetchLog, flags, 0o600)
}

// keepDescriptors keeps what the server left open for this process from its
// children.
func keepDescriptors() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
