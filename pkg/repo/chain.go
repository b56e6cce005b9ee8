package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// Parent names the backup that an incremental one is based on, as the key of
// that one's record does.
type Parent struct {
	ID       string         `json:"backup"`
	Timeline wal.TimelineID `json:"backup_timeline"`
	StartLSN wal.LSN        `json:"backup_start_lsn"`
	StopLSN  wal.LSN        `json:"backup_stop_lsn"`
}

// AsParent returns how b is named by the backups that are based on it.
func (b *Backup) AsParent() *Parent {
	return &Parent{ID: b.ID, Timeline: b.Timeline, StartLSN: b.StartLSN, StopLSN: b.StopLSN}
}

// RestoredSize is how many bytes the files of b have when they are restored.
func (b *Backup) RestoredSize() int64 {
	if b.Parent != nil {
		return b.DataSize
	}
	return b.PlainSize
}

// MaxChain is how many backups a chain has at most: enough for an incremental
// backup every half hour of a day, and few enough for a restore to check.
const MaxChain = 50

// Chain returns the records of the backups that b is put together from: the
// full one first, b last. read reads a record. It fails if a link is missing,
// is degraded, or isn't what the one behind it says.
func Chain(ctx context.Context, read func(context.Context, BackupRef) (*Backup, error), b *Backup) ([]*Backup, error) {
	chain := []*Backup{b}
	for link := b; link.Parent != nil; link = chain[len(chain)-1] {
		if len(chain) == MaxChain {
			return nil, fmt.Errorf("backup %s is based on more than %d others", b.ID, MaxChain-1)
		}
		p := link.Parent
		parent, err := read(ctx, BackupRef{ID: p.ID, SystemID: link.SystemID, Timeline: p.Timeline, StartLSN: p.StartLSN, StopLSN: p.StopLSN})
		if errors.Is(err, storage.ErrNotExist) {
			return nil, fmt.Errorf("backup %s is based on backup %s, which isn't in the repository any more: %w", link.ID, p.ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("backup %s is based on backup %s: %w", link.ID, p.ID, err)
		}
		if why := link.refuses(parent); why != "" {
			return nil, fmt.Errorf("backup %s is based on backup %s, which %s", link.ID, p.ID, why)
		}
		chain = append(chain, parent)
	}
	slices.Reverse(chain)
	return chain, nil
}

// refuses says why b can't be based on parent, or "".
func (b *Backup) refuses(parent *Backup) string {
	switch {
	case len(parent.Degraded) > 0:
		return "is degraded: " + parent.Degraded[0]
	case parent.ServerVersion/10000 != b.ServerVersion/10000:
		return fmt.Sprintf("is of PostgreSQL %d, not %d", parent.ServerVersion/10000, b.ServerVersion/10000)
	case parent.DataChecksums != b.DataChecksums:
		return "was taken with other page checksums, which were switched since"
	case parent.StopLSN > b.StartLSN:
		return fmt.Sprintf("ended at %s, behind the start at %s", parent.StopLSN, b.StartLSN)
	}
	return ""
}
