// Package early answers a plain call of archive_command for a segment that an
// earlier call took along: there are 63 of those in a batch of 64. It does so
// when it is initialised, and ends the process. All that such a call has to do is
// to find a record; to initialise the packages that a push needs takes several
// times as long. Of the packages whose imports are initialised Go takes the one
// whose path sorts first, so this one comes before the libraries and most of the
// standard one, as long as it imports nothing that comes late: not even strings
// (see TestImports).
//
// It says yes or nothing: whatever isn't plain, isn't known, or fails, is left to
// main. That it looks in the right place is for speed only. Whether a record
// counts depends on all that a call goes by: see package done.
package early

import (
	"bytes"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/walship/walship/pkg/done"
)

// patience is how long the answer may take. What takes longer is stuck in a
// file system, and main knows when to give up.
const patience = 2 * time.Second

//nolint:gochecknoinits // see the package's comment
func init() {
	config, path, plain := plainPush(os.Args)
	if !plain {
		return
	}
	answer := make(chan bool, 1)
	go func() { answer <- answered(os.Args, os.Environ(), config, path, time.Now()) }()
	select {
	case yes := <-answer:
		if yes {
			os.Exit(0)
		}
	case <-time.After(patience):
	}
}

// answered tells whether the call that args are is answered: the segment at path
// is in the repository.
func answered(args, environ []string, config, path string, now time.Time) bool {
	settings, err := readSettings(config, environ)
	if err != nil {
		return false
	}
	directory, err := syscall.Getwd()
	if err != nil {
		return false
	}
	state := stateDirectory(settings, environ)
	if state == "" {
		return false
	}
	call := done.NewCall(args[:len(args)-1], environ, directory, settings)
	return take(state+"/"+done.Folder(directory), path, call, now) // PostgreSQL calls in the data directory
}

// plainPush takes a call apart whose flags all stand before "wal push PATH", and
// have their values in the same argument, apart from --config.
func plainPush(args []string) (config, path string, plain bool) {
	n := len(args)
	if n < 4 || args[n-3] != "wal" || args[n-2] != "push" || hasPrefix(args[n-1], "-") {
		return "", "", false
	}
	flags := args[1 : n-3]
	for len(flags) > 0 {
		name, value, has := cut(flags[0], '=')
		flags = flags[1:]
		if name == "--config" && !has && len(flags) > 0 {
			value, has, flags = flags[0], true, flags[1:]
		}
		if !has || !hasPrefix(name, "--") || name == "--config" && config != "" {
			return "", "", false
		}
		if name == "--config" {
			config = value
		}
	}
	return config, args[n-1], true
}

// take tells whether there is a record of the segment at path, left by such a
// call, and removes it.
func take(folder, path string, call done.Digest, now time.Time) bool {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return false
	}
	defer root.Close()
	if done.CheckPrivate(root) != nil {
		return false
	}
	name := path[bytes.LastIndexByte([]byte(path), '/')+1:]
	file, err := root.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, done.MaxSize+1))
	if err != nil {
		return false
	}
	segment, err := os.Stat(path)
	if err != nil {
		return false
	}
	record, ok := done.Decode(data)
	return ok && record.Call == call && record.Known(now) && record.Same(name, done.Identify(segment), now) &&
		root.Remove(name) == nil
}

func hasPrefix(text, prefix string) bool {
	return len(text) >= len(prefix) && text[:len(prefix)] == prefix
}

// cut is strings.Cut.
func cut(text string, separator byte) (before, after string, found bool) {
	for i := range len(text) {
		if text[i] == separator {
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}
