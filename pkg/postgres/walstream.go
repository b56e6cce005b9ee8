package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walship/walship/pkg/wal"
)

// ReserveWAL makes a slot that lives as long as this session and keeps the WAL
// from the redo point of the last checkpoint on. It returns the slot's name.
func (r *Replication) ReserveWAL(ctx context.Context) (slot string, err error) {
	slot = fmt.Sprintf("walship_%d", r.pg.PID())
	if _, err := r.command(ctx, "CREATE_REPLICATION_SLOT "+slot+" TEMPORARY PHYSICAL RESERVE_WAL"); err != nil {
		return "", fmt.Errorf("create a temporary replication slot: %w", err)
	}
	return slot, nil
}

// WALReceiver takes WAL as it comes: data starts at the LSN at, and is valid
// during the call. It returns up to where it keeps the WAL safely, from which
// on a slot must keep it; done ends the stream.
type WALReceiver func(at wal.LSN, data []byte) (safe wal.LSN, done bool, err error)

// errEnded: the server ended a stream by itself, which it does at the end of a
// timeline that isn't its own any more.
var errEnded = errors.New("the server ended the stream of WAL: its timeline has changed, it was promoted or follows another primary")

// StreamWAL receives the WAL of a timeline from an LSN on until take is done.
// The slot, unless it is "", keeps what take hasn't made safe.
func (r *Replication) StreamWAL(ctx context.Context, slot string, from wal.LSN, timeline wal.TimelineID, take WALReceiver) error {
	if slot != "" {
		slot = "SLOT " + slot + " "
	}
	// A standby of 14 doesn't stream before it was asked.
	if _, err := r.IdentifySystem(ctx); err != nil {
		return err
	}
	s := &walStream{session: r, ctx: ctx, safe: from}
	defer r.guard(ctx)()
	if err := s.run(fmt.Sprintf("START_REPLICATION %sPHYSICAL %s TIMELINE %d", slot, from, uint32(timeline)), take); err != nil {
		return fmt.Errorf("stream WAL from %s on timeline %d: %w", from, uint32(timeline), err)
	}
	return nil
}

// Clock is the server's clock, in UTC, to the microsecond. A session of the
// replication protocol can't ask for it, but whoever streams WAL is told it.
func (r *Replication) Clock(ctx context.Context) (time.Time, error) {
	at, err := r.IdentifySystem(ctx)
	if err != nil {
		return time.Time{}, err
	}
	s := &walStream{session: r, ctx: ctx, safe: at.LSN, onlyClock: true}
	defer r.guard(ctx)()
	if err := s.run(fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", at.LSN, uint32(at.Timeline)), nil); err != nil {
		return time.Time{}, fmt.Errorf("read the server's clock: %w", err)
	}
	return s.clock.Time(), nil
}

// walStream is one START_REPLICATION.
type walStream struct {
	session   *Replication
	ctx       context.Context // of the one command that this is
	safe      wal.LSN
	clock     wal.Timestamp // the server's, by its last message
	onlyClock bool          // end with the first message
}

// run streams until take is done. Whatever fails once the context has ended, a
// message that is being sent for one, fails because of that.
func (s *walStream) run(command string, take WALReceiver) error {
	err := s.stream(command, take)
	if err != nil && s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return err
}

func (s *walStream) stream(command string, take WALReceiver) error {
	if err := s.session.begin(command); err != nil {
		return err
	}
	message, err := s.session.receive(s.ctx)
	if err != nil {
		return err
	}
	if _, ok := message.(*pgproto3.CopyBothResponse); !ok {
		return fmt.Errorf("the server sent %T instead of WAL", message)
	}
	// An answer is asked for, because an idle server would send none.
	if err := s.report(true); err != nil {
		return err
	}
	for done := false; !done; {
		message, err := s.session.receive(s.ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			if done, err = s.message(m.Data, take); err != nil {
				return err
			}
		case *pgproto3.CopyDone:
			return errEnded
		default:
			return fmt.Errorf("the server sent %T in the middle of WAL", message)
		}
	}
	return s.end()
}

// The lengths of the messages' heads (src/backend/replication/walsender.c).
const (
	walDataHead   = 1 + 8 + 8 + 8 // kind, start of the data, end of WAL, clock
	keepaliveSize = 1 + 8 + 8 + 1 // kind, end of WAL, clock, answer wanted
)

func (s *walStream) message(m []byte, take WALReceiver) (done bool, err error) {
	switch {
	case len(m) >= walDataHead && m[0] == 'w':
		s.clock = wal.Timestamp(binary.BigEndian.Uint64(m[17:]))
		if s.onlyClock {
			return true, nil
		}
		safe, done, err := take(wal.LSN(binary.BigEndian.Uint64(m[1:])), m[walDataHead:])
		if err != nil || safe == s.safe {
			return done, err
		}
		s.safe = safe
		return done, s.report(false)
	case len(m) == keepaliveSize && m[0] == 'k':
		s.clock = wal.Timestamp(binary.BigEndian.Uint64(m[9:]))
		if s.onlyClock {
			return true, nil
		}
		if m[17] != 0 {
			return false, s.report(false)
		}
		return false, nil
	}
	return false, errors.New("the server sent a malformed message among the WAL")
}

// report sends a standby status update.
func (s *walStream) report(answer bool) error {
	m := make([]byte, 0, 34)
	m = append(m, 'r')
	for range 3 { // written, flushed, applied
		m = binary.BigEndian.AppendUint64(m, uint64(s.safe))
	}
	m = binary.BigEndian.AppendUint64(m, uint64(wal.TimestampOf(time.Now())))
	m = append(m, 0)
	if answer {
		m[len(m)-1] = 1
	}
	s.session.pg.Frontend().Send(&pgproto3.CopyData{Data: m})
	return s.session.pg.Frontend().Flush()
}

// end ends the stream and passes over what is still on the way.
func (s *walStream) end() error {
	s.session.pg.Frontend().Send(&pgproto3.CopyDone{})
	if err := s.session.pg.Frontend().Flush(); err != nil {
		return err
	}
	for {
		message, err := s.session.receive(s.ctx)
		if err != nil {
			return err
		}
		if _, ok := message.(*pgproto3.ReadyForQuery); ok {
			return nil
		}
	}
}
