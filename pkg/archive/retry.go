package archive

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/storage"
)

// The pauses between tries grow from firstPause to lastPause; each is chosen
// at random from the upper half of its length, so that many clients don't
// come back at once.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
)

// retry calls try until it succeeds, fails for good, or ctx ends; the last
// error of try is returned then, because it says what was wrong.
func retry(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	pause := firstPause
	for {
		err := try()
		if err == nil || lasting(err) || ctx.Err() != nil {
			return err
		}
		wait := pause/2 + rand.N(pause/2)
		log.Warn("trying again", "what", what, "in", wait.Round(time.Millisecond), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}

// lasting says whether an error won't go away by itself within a deadline.
func lasting(err error) bool {
	for _, target := range []error{
		ErrConflict, ErrRefused, ErrAbsent,
		storage.ErrExist, storage.ErrNotExist,
		object.ErrCorrupt, object.ErrUnsupported, crypto.ErrNoIdentity,
		context.Canceled,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	if _, here := errors.AsType[localError](err); here || storage.Lasting(err) {
		return true
	}
	_, here := errors.AsType[*fs.PathError](err)
	return here
}
