package repo

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// WALFile is one file of a cluster's archived WAL.
type WALFile struct {
	Name     wal.FileName
	Key      string
	Size     int64 // bytes as stored
	Modified time.Time
}

// StatWAL describes an archived file; the error wraps storage.ErrNotExist
// when the storage says that it isn't there.
func (r *Repository) StatWAL(ctx context.Context, systemID uint64, name wal.FileName) (storage.Info, error) {
	return r.Store.Stat(ctx, r.FileKey(systemID, name))
}

// FileKey returns the whole key of an archived file of any kind.
func (r *Repository) FileKey(systemID uint64, name wal.FileName) string {
	if name.Kind == wal.KindTimelineHistory {
		return HistoryKey(systemID, name.Timeline)
	}
	return WALKey(systemID, name) + r.Suffix()
}

// ListWAL yields a cluster's archived files in the order of their keys:
// timeline by timeline, a timeline's history file first, then its segments
// with their partial and backup files. It starts at from, which may be the
// zero name for all. Its cost follows what the caller consumes.
func (r *Repository) ListWAL(ctx context.Context, systemID uint64, from wal.FileName) iter.Seq2[WALFile, error] {
	prefix, suffix := walPrefix(systemID), r.Suffix()
	after := ""
	if from != (wal.FileName{}) {
		// A stored key is greater than the same key without its suffix.
		after = WALKey(systemID, from)
		if from.Kind == wal.KindTimelineHistory {
			after = walPrefix(systemID) + fmt.Sprintf("%08X", uint32(from.Timeline))
		}
	}
	return func(yield func(WALFile, error) bool) {
		for info, err := range r.Store.List(ctx, prefix, after) {
			if err != nil {
				yield(WALFile{}, fmt.Errorf("list WAL of cluster %d: %w", systemID, err))
				return
			}
			name, ok := parseWALKey(info.Key, prefix, suffix)
			if !ok {
				continue
			}
			if !yield(WALFile{Name: name, Key: info.Key, Size: info.Size, Modified: info.Modified}, nil) {
				return
			}
		}
	}
}

// MaxHistory bounds the size of a timeline history file: PostgreSQL writes
// less than 100 bytes a timeline.
const MaxHistory = 1 << 20

// HistoryFile reads a timeline history file as PostgreSQL wrote it. The error
// wraps storage.ErrNotExist when there is none.
func (r *Repository) HistoryFile(ctx context.Context, systemID uint64, timeline wal.TimelineID) ([]byte, error) {
	data, err := readObject(ctx, r.Store, HistoryKey(systemID, timeline), MaxHistory)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", wal.HistoryName(timeline), err)
	}
	return data, nil
}

// History reads the way that leads to a timeline. Timeline 1 has no history
// file and no parents.
func (r *Repository) History(ctx context.Context, systemID uint64, timeline wal.TimelineID) (wal.History, error) {
	if timeline == 1 {
		return wal.History{Timeline: 1}, nil
	}
	data, err := r.HistoryFile(ctx, systemID, timeline)
	if err != nil {
		return wal.History{}, err
	}
	history, err := wal.ParseHistory(timeline, data)
	if err != nil {
		return wal.History{}, fmt.Errorf("read %s: %w", wal.HistoryName(timeline), err)
	}
	return history, nil
}

// Histories lists the timelines of a cluster that have a history file, in
// ascending order.
func (r *Repository) Histories(ctx context.Context, systemID uint64) ([]wal.TimelineID, error) {
	var timelines []wal.TimelineID
	prefix := walPrefix(systemID)
	after := ""
	for {
		found := false
		for info, err := range r.Store.List(ctx, prefix, after) {
			if err != nil {
				return nil, fmt.Errorf("list timelines of cluster %d: %w", systemID, err)
			}
			name, ok := parseWALKey(info.Key, prefix, r.Suffix())
			if !ok {
				continue
			}
			if name.Kind == wal.KindTimelineHistory {
				timelines = append(timelines, name.Timeline)
			}
			// Skip the timeline's segments, however many: their folders
			// sort before the next timeline's first key.
			if name.Timeline == ^wal.TimelineID(0) {
				return timelines, nil
			}
			after = prefix + fmt.Sprintf("%08X", uint32(name.Timeline)+1)
			found = true
			break
		}
		if !found {
			return timelines, nil
		}
	}
}

// Clusters lists the system identifiers that the repository has anything of,
// ordered as strings.
func (r *Repository) Clusters(ctx context.Context) ([]uint64, error) {
	var ids []uint64
	after := ""
	for {
		next, err := firstKey(ctx, r.Store, after)
		if errors.Is(err, errNone) {
			return ids, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		folder, _, nested := strings.Cut(next, "/")
		if id, err := strconv.ParseUint(folder, 10, 64); nested && err == nil && clusterPrefix(id) == folder+"/" {
			ids = append(ids, id)
		}
		after = next
		if nested {
			after = folder + "/" + lastSegment
		}
	}
}

// lastSegment sorts behind what a cluster's folder holds: wal/, parts/ and the
// others, none of which starts with a z.
const lastSegment = "z"

var errNone = errors.New("none")

func firstKey(ctx context.Context, store storage.Store, after string) (string, error) {
	for info, err := range store.List(ctx, "", after) {
		return info.Key, err
	}
	return "", errNone
}
