package repo

import (
	"context"
	"fmt"
	"time"
)

// Now returns what time it is by the storage's clock, which all writers of a
// repository share.
func (r *Repository) Now(ctx context.Context) (time.Time, error) {
	info, err := r.Store.Stat(ctx, infoKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the storage's clock: %w", err)
	}
	return info.ServerTime.UTC(), nil
}
