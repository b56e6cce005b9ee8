package repo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// infoKey is the object that makes a storage location a repository.
const infoKey = "repository.json"

// probePrefix holds the objects that a probe of the storage makes and removes.
const probePrefix = "probe/"

// WALKey returns the key, without the suffix of sealed objects, of a
// segment, a partial segment or a backup history file. Files of one timeline
// and log number share a folder: 4,096 MiB of WAL.
func WALKey(systemID uint64, name wal.FileName) string {
	return fmt.Sprintf("%s%08X%08X/%s", walPrefix(systemID), uint32(name.Timeline), name.Log, name)
}

// HistoryKey returns the key of a timeline history file, which is stored as
// PostgreSQL wrote it.
func HistoryKey(systemID uint64, timeline wal.TimelineID) string {
	return walPrefix(systemID) + wal.HistoryName(timeline).String()
}

// PartKey returns the key, without the suffix of sealed objects, of part n of
// a backup; n starts at 1.
func PartKey(systemID uint64, id string, n int) string {
	return partsPrefix(systemID, id) + partName(n)
}

// ManifestKey returns the key, without the suffix of sealed objects, of a
// backup's manifest.
func ManifestKey(systemID uint64, id string) string {
	return partsPrefix(systemID, id) + manifestName
}

// ConfigurationKey returns the key, without the suffix of sealed objects, of
// the configuration files that lie outside a backup's data directory.
func ConfigurationKey(systemID uint64, id string) string {
	return partsPrefix(systemID, id) + configurationName
}

// StartKey returns the key of the record that opens a backup's folder.
func StartKey(systemID uint64, id string) string {
	return partsPrefix(systemID, id) + "start.json"
}

const (
	manifestName      = "backup_manifest"
	configurationName = "configuration.tar"
)

func partName(n int) string { return fmt.Sprintf("%06d.tar", n) }

func clusterPrefix(systemID uint64) string { return strconv.FormatUint(systemID, 10) + "/" }

func walPrefix(systemID uint64) string { return clusterPrefix(systemID) + "wal/" }

func partsPrefix(systemID uint64, id string) string {
	return clusterPrefix(systemID) + "parts/" + id + "/"
}

func backupsPrefix(systemID uint64) string { return clusterPrefix(systemID) + "backups/" }

// Header returns what a sealed WAL file's context header must say: its kind
// and name. Timeline history files aren't sealed.
func Header(systemID uint64, name wal.FileName) object.Header {
	kind := object.KindSegment
	switch name.Kind {
	case wal.KindPartial:
		kind = object.KindPartial
	case wal.KindBackupHistory:
		kind = object.KindBackupHistory
	}
	return object.Header{Kind: kind, SystemID: systemID, Name: name.String(), PlainSize: -1}
}

// PartHeader returns what the context header of a backup's part says. Its
// size and digest stand in the backup's record.
func PartHeader(systemID uint64, id string, n int) object.Header {
	return object.Header{Kind: object.KindPart, SystemID: systemID, Name: id + "/" + partName(n), PlainSize: -1}
}

// ManifestHeader returns what the context header of a backup's manifest says.
func ManifestHeader(systemID uint64, id string) object.Header {
	return object.Header{Kind: object.KindManifest, SystemID: systemID, Name: id + "/" + manifestName, PlainSize: -1}
}

// ConfigurationHeader returns what the context header of a backup's
// configuration files says.
func ConfigurationHeader(systemID uint64, id string) object.Header {
	return object.Header{Kind: object.KindConfiguration, SystemID: systemID, Name: id + "/" + configurationName, PlainSize: -1}
}

// parseWALKey takes a key below a cluster's wal folder apart. ok is false for
// a key that walship wouldn't write.
func parseWALKey(key, prefix, suffix string) (name wal.FileName, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return wal.FileName{}, false
	}
	if folder, file, nested := strings.Cut(rest, "/"); nested {
		file, ok = strings.CutSuffix(file, suffix)
		if !ok {
			return wal.FileName{}, false
		}
		name, err := wal.ParseFileName(file)
		if err != nil || name.Kind == wal.KindTimelineHistory || folder != fmt.Sprintf("%08X%08X", uint32(name.Timeline), name.Log) {
			return wal.FileName{}, false
		}
		return name, true
	}
	name, err := wal.ParseFileName(rest)
	return name, err == nil && name.Kind == wal.KindTimelineHistory
}
