package repo

import (
	"context"
	"time"
)

// leftoverAge is from which age on what a write left behind is taken for
// abandoned: no object takes a day to write.
const leftoverAge = 24 * time.Hour

// SweepLeftovers removes what killed writes left behind among a cluster's
// objects (temporary files, uploads in parts), and returns how many there were.
// In a directory it costs a walk through all of the cluster's folders, in S3 a
// listing of the uploads that are open.
func (r *Repository) SweepLeftovers(ctx context.Context, systemID uint64) (int, error) {
	now, err := r.Now(ctx)
	if err != nil {
		return 0, err
	}
	return r.Store.Sweep(ctx, clusterPrefix(systemID), now.Add(-leftoverAge))
}
