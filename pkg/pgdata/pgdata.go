// Package pgdata knows what lies in a PostgreSQL data directory, and reads and
// writes it without a connection: the control file, the backup label and the
// tablespace map, the backup manifest, settings and signal files, and which
// files belong to a base backup at all. It knows PostgreSQL 13 to 18.
//
// Everything it parses may be hostile: sizes, counts and names are capped, and
// what PostgreSQL itself wouldn't have written is refused.
package pgdata

// Names of files in a data directory, relative to it.
const (
	ControlFileName        = "global/pg_control"
	VersionFileName        = "PG_VERSION"
	BackupLabelFileName    = "backup_label"
	TablespaceMapFileName  = "tablespace_map"
	BackupManifestFileName = "backup_manifest"
	AutoConfFileName       = "postgresql.auto.conf"
	ConfFileName           = "postgresql.conf"
	PostmasterPIDFileName  = "postmaster.pid"
	RecoverySignalFileName = "recovery.signal"
	StandbySignalFileName  = "standby.signal"
	TablespaceDir          = "pg_tblspc"
	WALDir                 = "pg_wal"
)

// WALDirs are the directories that a base backup of this major keeps of
// pg_wal, all of them empty, parents first.
func WALDirs(major int) []string {
	dirs := []string{WALDir, WALDir + "/archive_status"}
	if major >= 17 {
		dirs = append(dirs, WALDir+"/summaries")
	}
	return dirs
}
