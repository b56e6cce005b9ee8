package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/walship/walship/pkg/wal"
)

// alreadyPushed answers the plainest call of archive_command, "walship
// [--config FILE] wal push PATH", for a segment that an earlier push took
// along. There are 63 of those in a batch of 64, and to set up the command line
// takes a tenth of their time. Whatever isn't as plain, or fails, it leaves to
// the command itself, which takes the same steps and says what is wrong.
func (e *environment) alreadyPushed(ctx context.Context, args []string) bool {
	config, path, plain := plainPush(args)
	if !plain {
		return false
	}
	name, err := wal.ParseFileName(filepath.Base(path))
	if err != nil {
		return false
	}
	e.configFile = config
	settings, err := e.config()
	if err != nil {
		return false
	}
	_, cancel := e.deadline(ctx, settings.WAL.PushDeadline.Duration)
	defer cancel()
	s, err := e.findServer("", path, settings)
	if err != nil {
		return false
	}
	memory := e.remember(s, settings)
	defer memory.close()
	return memory.taken(path, name)
}

// plainPush takes such a call apart.
func plainPush(args []string) (config, path string, plain bool) {
	rest := args[min(1, len(args)):]
	if len(rest) > 1 && rest[0] == "--config" {
		config, rest = rest[1], rest[2:]
	}
	if len(rest) != 3 || rest[0] != "wal" || rest[1] != "push" || strings.HasPrefix(rest[2], "-") {
		return "", "", false
	}
	return config, rest[2], true
}
