package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// standbyPatience is how long a standby waits for an answer before it is
// told "not there": it asks again by itself, and must stay up for its
// queries.
const standbyPatience = 30 * time.Second

// FetchOptions says for whom a file is fetched.
type FetchOptions struct {
	SystemID uint64
	// Standby: the server has a standby.signal. It polls for ever, so that
	// a lasting failure to reach the storage is answered as absent.
	Standby bool
	// Unknown remembers, between calls of one recovery run, a segment whose
	// presence couldn't be learned. Without it a standby is told "not
	// there" only where no other timeline's segment could be taken instead.
	Unknown *UnknownRecord
	// Remembered opens the repository as an earlier call has seen it, without
	// a request; it returns nil when there is nothing to go by. What follows
	// from it is believed if it is a whole file; otherwise the repository is
	// opened. nil: that is done at once.
	Remembered func(ctx context.Context) *repo.Repository
	// Ahead answers for segments that were fetched ahead; nil for none.
	Ahead *Ahead
	Log   *slog.Logger
}

// Opener opens the repository. It is called again after an error, unless that
// wraps ErrRefused.
type Opener func(ctx context.Context) (*repo.Repository, error)

// Fetch gets a file from the repository and puts it at path, complete and
// checked; path is replaced. Nothing is left at path on an error. It tries
// again while that may help and ctx lasts: the caller's deadline is the one
// of ctx. The error wraps ErrAbsent when the file isn't in the repository, or
// when a standby is to ask again later; any other error must not be told to
// PostgreSQL as "not there".
func Fetch(ctx context.Context, open Opener, name wal.FileName, path string, o FetchOptions) error {
	f := &fetch{open: open, name: name, path: path, o: o}
	var err error
	switch {
	case name.Kind != wal.KindSegment:
		err = f.retrying(ctx)
	case o.Standby:
		err = f.forStandby(ctx)
	default:
		err = f.segment(ctx, 0)
	}
	if f.absent(err) {
		err = ErrAbsent
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	return nil
}

type fetch struct {
	open       Opener
	repository *repo.Repository // once it is open
	name       wal.FileName
	path       string
	o          FetchOptions
}

// absent says whether err is the storage's word that the file isn't there.
func (f *fetch) absent(err error) bool {
	return f.repository != nil && errors.Is(err, storage.ErrNotExist)
}

// forStandby answers a standby's request for a segment. A standby asks for
// the newest timeline's segment first, then for its parent's of the same
// place. If the first answer was unknown and it was given the parent's
// segment, it would replay the wrong branch: so until the child's segment is
// answered with authority, the parent's is answered as absent too.
func (f *fetch) forStandby(ctx context.Context) error {
	held, err := f.o.Unknown.holdsBack(f.name)
	if err != nil {
		return localError{err}
	}
	if held {
		return fmt.Errorf("%w: whether a newer timeline has this segment is not known yet; the server asks for that again", ErrAbsent)
	}
	err = f.segment(ctx, standbyPatience)
	if err == nil || f.absent(err) {
		if clearErr := f.o.Unknown.clear(f.name); clearErr != nil {
			return localError{clearErr}
		}
		return err
	}
	if !outage(err) {
		return err
	}
	if f.name.Timeline > 1 {
		if recordErr := f.o.Unknown.set(f.name); recordErr != nil {
			return localError{errors.Join(err, recordErr)}
		}
	}
	return fmt.Errorf("%w as far as the standby is told, which asks again: %w", ErrAbsent, err)
}

// segment gets a segment that was fetched ahead, or is on its way, or else
// fetches it, with that much patience if it isn't 0.
func (f *fetch) segment(ctx context.Context, patience time.Duration) error {
	asked := f.o.Ahead.take(ctx, f.name, f.path)
	if asked.taken {
		return nil
	}
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	err := f.retrying(ctx)
	f.o.Ahead.report(asked, f.name, err == nil, f.absent(err))
	return err
}

// outage says whether an error is the storage's, so that a standby may wait
// for it to pass.
func outage(err error) bool {
	if _, local := errors.AsType[localError](err); local {
		return false
	}
	for _, target := range []error{ErrRefused, object.ErrCorrupt, object.ErrUnsupported, crypto.ErrNoIdentity, storage.ErrInvalid, context.Canceled} {
		if errors.Is(err, target) {
			return false
		}
	}
	return true
}

// retrying fetches the file, again where that may help. An object that turns
// out to be damaged is read once more: the damage may have happened on the
// way.
func (f *fetch) retrying(ctx context.Context) error {
	damaged := 0
	return retry(ctx, f.o.Log, "fetch of "+f.name.String(), func() error {
		err := f.once(ctx)
		if errors.Is(err, object.ErrCorrupt) {
			if damaged++; damaged == 1 {
				return transient{err}
			}
		}
		return err
	})
}

// transient hides what an error wraps, so that it counts as passing.
type transient struct{ err error }

func (t transient) Error() string { return t.err.Error() }

// localError is a failure of the place where the file is to go.
type localError struct{ err error }

func (e localError) Error() string { return e.err.Error() }
func (e localError) Unwrap() error { return e.err }

// once fetches the file, and opens the repository before or after that.
func (f *fetch) once(ctx context.Context) error {
	var remembered *repo.Repository
	var err error
	if f.o.Remembered != nil {
		remembered = f.o.Remembered(ctx)
		f.o.Remembered = nil // it may be outdated
	}
	if remembered != nil {
		err = f.deliver(ctx, remembered)
		if !ofAnother(err) {
			return err
		}
	}
	if f.repository == nil {
		r, openErr := f.open(ctx)
		if openErr != nil {
			return openErr
		}
		f.repository = r
	}
	if remembered != nil && f.repository.Info.ID == remembered.Info.ID {
		return err
	}
	return f.deliver(ctx, f.repository)
}

// ofAnother says whether an error could come of taking one repository for
// another that was at the same place before.
func ofAnother(err error) bool {
	for _, target := range []error{storage.ErrNotExist, object.ErrCorrupt, object.ErrUnsupported, crypto.ErrNoIdentity} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// deliver fetches the file beside its destination and renames it.
func (f *fetch) deliver(ctx context.Context, r *repo.Repository) error {
	body, info, err := r.Store.Get(ctx, r.FileKey(f.o.SystemID, f.name), 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	root, err := os.OpenRoot(filepath.Dir(f.path))
	if err != nil {
		return localError{err}
	}
	defer root.Close()
	file, err := durable.Create(root, filepath.Base(f.path))
	if err != nil {
		return localError{err}
	}
	defer file.Discard()
	if err := copyContent(r, f.o.SystemID, f.name, localWriter{file}, body, info); err != nil {
		return err
	}
	// PostgreSQL makes durable what it keeps.
	if err := file.RenameVolatile(); err != nil {
		return localError{err}
	}
	return nil
}

// localWriter marks errors of writing as those of this machine.
type localWriter struct{ w io.Writer }

func (l localWriter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if err != nil {
		err = localError{err}
	}
	return n, err
}

// copyContent writes a stored file's content, opened and checked to its end.
func copyContent(r *repo.Repository, systemID uint64, name wal.FileName, w io.Writer, body io.Reader, info storage.Info) error {
	if name.Kind == wal.KindTimelineHistory {
		return copyHistory(name, w, body, info)
	}
	content, err := r.Opener.Open(body, repo.Header(systemID, name))
	if err != nil {
		return err
	}
	defer content.Close()
	tee := io.TeeReader(content, w)
	if name.Kind != wal.KindBackupHistory {
		_, err := wal.Check(tee, name, content.Header().PlainSize, systemID)
		if errors.Is(err, wal.ErrMismatch) {
			return fmt.Errorf("%w: object %s: %w", object.ErrCorrupt, info.Key, err)
		}
		if err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, tee) // to the end, where the digest is checked
	return err
}

func copyHistory(name wal.FileName, w io.Writer, body io.Reader, info storage.Info) error {
	if info.Size > repo.MaxHistory {
		return fmt.Errorf("%w: object %s has %d bytes, more than a history file may have", object.ErrCorrupt, info.Key, info.Size)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if _, err := wal.ParseHistory(name.Timeline, data); err != nil {
		return fmt.Errorf("%w: object %s: %w", object.ErrCorrupt, info.Key, err)
	}
	_, err = w.Write(data)
	return err
}
