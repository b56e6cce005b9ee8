package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

// settleEnd sees to the end of a backup that was taken from a standby, which
// writes nothing when a backup ends: the copy is consistent where the control
// file, copied last, says that the standby had replayed to.
func (r *run) settleEnd(control pgdata.ControlFile) error {
	b := &r.record
	if !b.Standby {
		return nil
	}
	if control.State != pgdata.StateInArchiveRecovery {
		return fmt.Errorf("the standby was promoted during the backup (its %s says: %s): take it again, from the new primary or from another standby", pgdata.ControlFileName, control.State)
	}
	if control.MinRecoveryTimeline != b.Timeline {
		return fmt.Errorf("the standby began to replay timeline %d during the backup, which started on timeline %d: take it again when the standby has made a restartpoint on the new one",
			uint32(control.MinRecoveryTimeline), uint32(b.Timeline))
	}
	if control.MinRecoveryPoint <= b.StartLSN || control.MinRecoveryPoint > b.StopLSN {
		return fmt.Errorf("the standby's %s is consistent from %s on, which isn't between the start of the backup, %s, and its end, %s",
			pgdata.ControlFileName, control.MinRecoveryPoint, b.StartLSN, b.StopLSN)
	}
	return nil
}

// settleLocalEnd is settleEnd for a copy that walship made itself, whose end is
// exactly where it is consistent.
func (r *run) settleLocalEnd(copied controlFile) error {
	if !r.record.Standby {
		return nil
	}
	control, err := pgdata.ParseControlFile(copied.content)
	if err != nil {
		return err
	}
	if err := r.settleEnd(control); err != nil {
		return err
	}
	r.record.StopLSN = control.MinRecoveryPoint
	return nil
}

// runningState is what the control file of a running server says.
func runningState(standby bool) pgdata.State {
	if standby {
		return pgdata.StateInArchiveRecovery
	}
	return pgdata.StateInProduction
}

// Primary is the server that a standby follows.
type Primary interface {
	// CheckPrimary returns an error if SwitchWAL wouldn't work.
	CheckPrimary(ctx context.Context, systemID uint64) error
	// SwitchWAL ends the current segment, so that it is archived, and returns
	// an error if the server isn't of that cluster or takes no writes.
	SwitchWAL(ctx context.Context, systemID uint64) (wal.LSN, error)
}

// checkPrimary finds what can't work before anything is copied.
func (r *run) checkPrimary(ctx context.Context) error {
	switch {
	case r.deps.Primary == nil:
		return nil
	case !r.record.Standby: // after a failover, say, by the standby's old timer
		r.log.Warn("--primary isn't used: the server isn't a standby, and ends its segments itself")
		return nil
	}
	return r.deps.Primary.CheckPrimary(ctx, r.record.SystemID)
}

// switchWAL has the primary end the segment that a backup from a standby needs
// as its last: a standby can't.
func (r *run) switchWAL(ctx context.Context) error {
	if !r.record.Standby || r.deps.Primary == nil {
		return nil
	}
	at, err := r.deps.Primary.SwitchWAL(ctx, r.record.SystemID)
	if err != nil {
		return err
	}
	if at < r.record.StopLSN {
		return errors.New("the primary is behind its standby: --primary leads to another server")
	}
	r.log.Info("the primary began a new segment", "id", r.record.ID, "at", at)
	return nil
}

// waitHint says what ends the wait for WAL that a standby needs.
func (r *run) waitHint() string {
	if r.record.Standby && r.deps.Primary == nil {
		return "; a standby can't end a segment: where the primary writes little, run SELECT pg_switch_wal() there, or let walship do so with --primary"
	}
	return ""
}
