package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// group is a set of commands that share the meaning of their exit codes.
type group int

// PostgreSQL runs the commands of two groups, and acts on their exit codes.
const (
	groupOther group = iota
	groupPush        // wal push, as archive_command
	groupFetch       // wal fetch, as restore_command
)

// groupOf finds the group of a command line, whether or not it can be parsed:
// fetch answers in its own codes even if its arguments are wrong.
func groupOf(args []string) group {
	for i, arg := range args {
		if arg != "wal" {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(args[i+1:]), func(s string) bool { return strings.HasPrefix(s, "-") })
		switch {
		case len(rest) > 0 && rest[0] == "push":
			return groupPush
		case len(rest) > 0 && rest[0] == "fetch":
			return groupFetch
		}
	}
	return groupOther
}

// errDegraded: the command did its work, and there is something to see to.
var errDegraded = errors.New("done, but not everything is as it should be")

// errUnsafe: the command refused, because it could destroy something.
var errUnsafe = errors.New("refused for safety")

// usageError says that a command line can't be understood.
type usageError struct{ why string }

func (e *usageError) Error() string { return e.why }

// outcome is one way for a command to end, and its exit code in each group.
type outcome struct {
	name  string // for the documentation
	codes [3]int // by group
	is    func(error) bool
}

// outcomes is the one table of exit codes: the first row that an error is of
// decides. The last row is of any error. docs/exit-codes.md has it too.
func outcomes() []outcome {
	return []outcome{
		{"success", [3]int{0, 0, 0}, func(err error) bool { return err == nil }},
		{"wrong usage or configuration", [3]int{2, 30, 255}, isUsage},
		{"the file isn't in the archive", [3]int{1, 10, 1}, wraps(archive.ErrAbsent)},
		{"conflict: another writer", [3]int{1, 20, 255}, wraps(archive.ErrConflict)},
		{"done, but degraded", [3]int{3, 10, 255}, wraps(errDegraded)},
		{"refused for safety", [3]int{4, 30, 255}, isUnsafe},
		{"refused: no further try will help", [3]int{1, 30, 255}, wraps(
			archive.ErrRefused, repo.ErrNotInitialised, repo.ErrNoRecipients, repo.ErrUnexpectedRecipients,
			crypto.ErrNoIdentity, object.ErrCorrupt, pgdata.ErrNoControlFile, storage.ErrDenied, storage.ErrNoStore, fs.ErrPermission)},
		{"failed: a later try may help", [3]int{1, 10, 255}, func(error) bool { return true }},
	}
}

// exitCode is the code of an error in a group.
func exitCode(g group, err error) int {
	for _, o := range outcomes() {
		if o.is(err) {
			return o.codes[g]
		}
	}
	return failure(g)
}

// failure is the code of an error of no particular kind.
func failure(g group) int {
	all := outcomes()
	return all[len(all)-1].codes[g]
}

func wraps(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

func isUsage(err error) bool {
	if _, is := errors.AsType[*usageError](err); is {
		return true
	}
	return wraps(config.ErrInvalid, storage.ErrInvalid)(err)
}

func isUnsafe(err error) bool {
	return wraps(errUnsafe, repo.ErrUnconditional)(err)
}
