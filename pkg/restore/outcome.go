package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
)

// hold holds where recovery ended against the plan. What neither the server
// nor its files tell any more is not held against anything.
func (w *waiting) hold(ctx context.Context) error {
	s, p := w.started, w.plan
	if s.State == StateStandby {
		return nil // it goes on
	}
	if s.State == StateShutDown {
		if err := w.readEnd(); err != nil {
			return err
		}
	}
	w.holdEnd()
	w.holdWords()
	if s.State == StateShutDown {
		return nil
	}
	conn, err := postgres.Connect(ctx, s.Conninfo("template1"))
	if err != nil {
		return err
	}
	return errors.Join(s.holdCommits(ctx, p, conn), conn.Close())
}

// holdEnd compares the LSN at which recovery ended.
func (w *waiting) holdEnd() {
	s, p := w.started, w.plan
	if p.EndsAt == 0 || s.Replayed == "" {
		return
	}
	s.Promised = p.EndsAt.String()
	if s.Replayed != s.Promised {
		s.differ("recovery ended at %s, the plan said %s", s.Replayed, s.Promised)
	}
}

// holdWords compares what the server said of its stop.
func (w *waiting) holdWords() {
	said, planned := w.started.Stopped, w.plan.stopWords()
	if said != "" && planned != "" && !strings.HasPrefix(said, planned) {
		w.started.differ("the server said %q, the plan %q", said, planned)
	}
}

func (s *Started) differ(format string, args ...any) {
	s.Differences = append(s.Differences, fmt.Sprintf(format, args...))
	s.AsPromised = false
}

// commits answers from a server's commit log.
type commits interface {
	Committed(ctx context.Context, xid uint32) (committed, known bool, err error)
}

// holdCommits asks the server whether the plan's last transaction is in, and
// the first that is to be out isn't. A server that was promoted may have given
// the latter's xid to a transaction of its own.
func (s *Started) holdCommits(ctx context.Context, p *Plan, server commits) error {
	if p.LastIn != nil {
		in, known, err := server.Committed(ctx, p.LastIn.XID)
		switch {
		case err != nil:
			return err
		case known && !in:
			s.differ("transaction %d isn't committed, which the plan said is the last in", p.LastIn.XID)
		case known:
			s.LastIn = p.LastIn
		}
	}
	if p.FirstOut != nil && s.State == StatePaused {
		in, _, err := server.Committed(ctx, p.FirstOut.XID)
		if err != nil {
			return err
		}
		if in {
			s.LastIn = nil
			s.differ("transaction %d is committed, which the plan said is the first out", p.FirstOut.XID)
		}
	}
	return nil
}

// readEnd reads where a server has stopped that shut down at its target. Where
// a restartpoint was made, and nothing was written behind it, pg_control may
// have an earlier LSN, which tells nothing (UpdateMinRecoveryPoint and
// CreateRestartPoint in src/backend/access/transam/xlog.c).
func (w *waiting) readEnd() error {
	root, err := os.OpenRoot(w.plan.Directory)
	if err != nil {
		return err
	}
	defer root.Close()
	control, err := pgdata.ReadControlFile(root)
	if err != nil {
		return err
	}
	if control.State == pgdata.StateShutDownInRecovery && w.plan.EndsAt != 0 && control.MinRecoveryPoint >= w.plan.EndsAt {
		w.started.Replayed = control.MinRecoveryPoint.String()
	}
	return nil
}

// stopWords is how the server begins what it says of the plan's stop, where
// that is the end of a transaction; else "".
func (p *Plan) stopWords() string {
	if p.Stop == nil || p.Stop.XID == 0 || p.Target.Kind != TargetTime && p.Target.Kind != TargetXID {
		return ""
	}
	side := "after"
	if p.Stop.Before {
		side = "before"
	}
	how, _, _ := strings.Cut(p.Stop.Kind, " ") // of "commit prepared" it says commit
	return fmt.Sprintf("recovery stopping %s %s of transaction %d,", side, how, p.Stop.XID)
}
