// Package archive puts WAL into a repository and gets it back: what
// PostgreSQL's archive_command and restore_command do.
//
// Push returns without an error only when the file is durable in the
// repository, under its own name, every byte of it. Fetch returns ErrAbsent
// only when the storage said so with authority; a file that it delivers is
// whole and checked before it can be seen under its name.
package archive

import "errors"

// Errors that decide what PostgreSQL is told. Any other error means that
// trying again may help.
var (
	// ErrConflict: the repository has another file of that name. Another
	// server writes to it, or did.
	ErrConflict = errors.New("conflict")
	// ErrRefused: the file or the configuration is wrong; trying again
	// without a change won't help, and nothing was stored.
	ErrRefused = errors.New("refused")
	// ErrAbsent: the repository doesn't have the file, and said so.
	ErrAbsent = errors.New("not in the archive")
)
