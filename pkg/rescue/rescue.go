// Package rescue brings single tables and schemas back from a backup while
// their server keeps running: it restores the cluster into a scratch directory,
// as it was at some moment, starts it out of everybody's reach, and has
// PostgreSQL's own pg_dump and pg_restore do the rest.
//
// The whole cluster is restored. A part of it would do for the table, but
// recovery replays WAL of all databases, and what is missing would have to be
// told apart from what is damaged.
package rescue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
)

// Request says what to bring back, and where to.
type Request struct {
	Database string
	Tables   []Name   // with or without Schemas, at least one of both
	Schemas  []string // whole ones
	// IntoSchema is the schema that the tables get into; "": their own.
	IntoSchema string
	// Into is the conninfo string or URL of the database that they are loaded
	// into, without a password; "": they are written to File, a new one.
	Into string
	File string

	dropped uint32 // the OID of the database in which BeforeDrop found them; 0: not known
}

// Options say how it is done.
type Options struct {
	Work     string          // an existing folder for everything; what it makes there is removed in the end
	Request  restore.Request // the target, and what to choose the backup by
	Private  func(directory string) (settings []byte, restoreCommand string, err error)
	Restore  restore.Options
	Programs string   // the folder of PostgreSQL's programs; "": the usual place of the major
	Users    []string // superusers of the cluster, in the order in which they are tried
	Log      *slog.Logger
}

// Result says what was brought back. Its JSON form is stable.
type Result struct {
	Plan   *restore.Plan  `json:"plan"`
	Tables []RescuedTable `json:"tables"`
	File   string         `json:"file,omitempty"` // where it was written to
	// Notes say what belonged to the tables and isn't brought back with them.
	Notes []string `json:"notes"`
}

// RescuedTable is a table with its rows.
type RescuedTable struct {
	Name string `json:"name"` // as it is called now, quoted where SQL needs it
	Rows int64  `json:"rows"`
}

// ExistsError says that what is to be loaded is there. Nothing was changed.
type ExistsError struct{ why string }

func (e *ExistsError) Error() string { return e.why }

// stopTimeout bounds the end of the scratch server, which is not asked to
// finish anything, interruptTimeout that of a program that is interrupted.
const (
	stopTimeout      = 3 * time.Second
	interruptTimeout = time.Second
)

// Run brings back what is asked for. Whatever happens, its server is stopped
// and its files are removed.
func Run(ctx context.Context, r *repo.Repository, q Request, o Options) (result *Result, err error) {
	if err := q.check(ctx); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(o.Work, "walship-rescue-")
	if err != nil {
		return nil, fmt.Errorf("rescue: make the scratch directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	plan, settings, err := o.plan(ctx, r, scratch)
	if err != nil {
		return nil, err
	}
	o.Restore.Settings = settings
	restored, err := restore.Run(ctx, r, plan, o.Restore)
	if err != nil {
		return nil, err
	}
	server, err := restore.Start(ctx, plan, restored, restore.StartOptions{
		Programs: o.Programs, Users: o.Users, Settings: scratchSettings(), Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, server.Stop(stop, true), os.RemoveAll(server.Socket))
	}()
	if !server.AsPromised {
		return nil, fmt.Errorf("rescue: recovery didn't end as planned: %s", strings.Join(server.Differences, "; "))
	}
	programs, err := postgres.Programs(ctx, plan.Backup.ServerVersion/10000, o.Programs)
	if err != nil {
		return nil, err
	}
	c := &carrier{request: q, server: server, programs: programs, scratch: scratch, log: o.Log, result: &Result{Plan: plan, Tables: []RescuedTable{}, File: q.File, Notes: []string{}}}
	if err := c.carry(ctx); err != nil {
		return nil, fmt.Errorf("rescue: %w", err)
	}
	return c.result, nil
}

// plan plans the restore into the scratch directory, with all tablespaces in
// it. Its server is promoted at the target: while recovery is paused, what was
// dropped right behind it is locked (rule 29).
func (o Options) plan(ctx context.Context, r *repo.Repository, scratch string) (*restore.Plan, []byte, error) {
	request := o.Request
	request.Directory, request.Action = filepath.Join(scratch, "data"), restore.ActionPromote
	settings, command, err := o.Private(request.Directory)
	if err != nil {
		return nil, nil, err
	}
	request.RestoreCommand = command
	plan, err := restore.MakePlan(ctx, restore.Of(r), request)
	if err != nil {
		return nil, nil, err
	}
	request.Tablespaces = map[string]string{}
	for _, t := range plan.Tablespaces {
		if oid := strconv.FormatUint(uint64(t.OID), 10); !t.InPlace {
			request.Tablespaces[oid] = filepath.Join(scratch, "tablespace-"+oid)
		}
	}
	if len(request.Tablespaces) > 0 {
		plan, err = restore.MakePlan(ctx, restore.Of(r), request)
	}
	return plan, settings, err
}

// scratchSettings are those of a server that is thrown away, on a machine that
// may have less memory than the original's.
func scratchSettings() []string {
	return []string{"fsync=off", "autovacuum=off", "shared_buffers=128MB", "huge_pages=off", "synchronous_commit=off", "jit=off"}
}
