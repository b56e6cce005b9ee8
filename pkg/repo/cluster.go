package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walship/walship/pkg/storage"
)

// Cluster is cluster.json: what was seen of a cluster when its first backup
// was taken. It is for people and listings; what counts is what each segment
// and each backup says of itself, since the segment size can change.
type Cluster struct {
	Format      int       `json:"format"`
	SystemID    uint64    `json:"system_identifier,string"`
	Major       int       `json:"major"` // of PostgreSQL
	SegmentSize uint64    `json:"wal_segment_size"`
	Seen        time.Time `json:"seen"` // the server's clock
}

func clusterKey(systemID uint64) string { return clusterPrefix(systemID) + "cluster.json" }

// NoteCluster writes a cluster's record unless there is one.
func (r *Repository) NoteCluster(ctx context.Context, c Cluster) error {
	c.Format = Format
	data, err := marshal(c)
	if err != nil {
		return fmt.Errorf("note cluster %d: %w", c.SystemID, err)
	}
	_, err = r.Store.Put(ctx, clusterKey(c.SystemID), bytes.NewReader(data))
	if err != nil && !errors.Is(err, storage.ErrExist) {
		return fmt.Errorf("note cluster %d: %w", c.SystemID, err)
	}
	return nil
}
