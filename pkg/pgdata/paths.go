package pgdata

import (
	"path"
	"strconv"
	"strings"
)

// Exclusion says what a base backup does with a path.
type Exclusion int

// The treatments of a path.
const (
	// Included files are copied, included directories are walked.
	Included Exclusion = iota
	// Excluded paths aren't part of a backup.
	Excluded
	// ExcludedContents is said of a directory that is part of a backup, but
	// always empty.
	ExcludedContents
)

// Exclude says what a base backup does with a path (relative to the data
// directory, with slashes), by its name alone, as sendDir does in
// src/backend/backup/basebackup.c. Two things a name doesn't tell: unlogged
// relations (see Path) and that pg_control is copied last.
func Exclude(name string, isDir bool) Exclusion {
	base := path.Base(name)
	if strings.HasPrefix(base, "pgsql_tmp") {
		return Excluded
	}
	switch base {
	case AutoConfFileName + ".tmp", "current_logfiles.tmp", BackupLabelFileName, TablespaceMapFileName,
		BackupManifestFileName, PostmasterPIDFileName, "postmaster.opts":
		return Excluded
	case "pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans":
		return ExcludedContents
	}
	if strings.HasPrefix(base, "pg_internal.init") {
		return Excluded
	}
	if name == WALDir {
		return ExcludedContents
	}
	if base[0] == 't' && !isDir && ClassifyPath(name).Temporary {
		return Excluded
	}
	return Included
}

// Kind is what a file in a data directory holds.
type Kind int

// The kinds of files.
const (
	KindOther     Kind = iota // configuration, logs, statistics, anything foreign
	KindRelation              // a segment of a relation's fork
	KindSLRU                  // pg_xact, pg_multixact, pg_commit_ts
	KindTwoPhase              // a prepared transaction
	KindLogical               // snapshots and mappings of logical decoding
	KindControl               // global/pg_control
	KindVersion               // PG_VERSION of the cluster or of a database
	KindRelMapper             // pg_filenode.map
)

// Fork is a fork of a relation (src/common/relpath.c).
type Fork int

// The forks of a relation.
const (
	ForkMain Fork = iota
	ForkFSM
	ForkVM
	ForkInit
)

// Path is what a file's name says.
type Path struct {
	Kind Kind
	// For KindRelation:
	Tablespace uint32 // OID; 1663 is pg_default, 1664 pg_global
	Database   uint32 // OID; 0 in global
	Relation   uint32 // relation file number, not an OID
	Fork       Fork
	Segment    uint32
	Temporary  bool // a temporary relation: no part of a backup
}

// OIDs of the built-in tablespaces (src/include/catalog/pg_tablespace.dat).
const (
	DefaultTablespace = 1663
	GlobalTablespace  = 1664
)

// InitFork is the name of the init fork of the relation that a file belongs to,
// in the same directory: when it exists, the relation is unlogged, and no other
// fork of it is part of a backup. It is "" when the file isn't another fork of a
// permanent relation in a database's directory.
func (p Path) InitFork() string {
	if p.Kind != KindRelation || p.Temporary || p.Fork == ForkInit || p.Database == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(p.Relation), 10) + "_init"
}

// MustExist tells of a path whether a backup fails when the file vanishes or
// shrinks while it is copied. Other files may: relations, SLRU and two-phase
// files are mended by WAL, the rest is of no consequence. A database's own
// PG_VERSION and pg_filenode.map vanish when the whole database does.
func MustExist(name string) bool {
	switch name {
	case ControlFileName, VersionFileName, "global/pg_filenode.map":
		return true
	}
	return false
}

// ClassifyPath says what a file is by its path relative to the data
// directory, with slashes; a tablespace's files are below pg_tblspc/OID. The
// names are those of src/common/relpath.c and of
// parse_filename_for_nontemp_relation in src/backend/storage/file/reinit.c.
func ClassifyPath(name string) Path {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case name == ControlFileName:
		return Path{Kind: KindControl}
	case base == VersionFileName:
		return Path{Kind: KindVersion}
	case base == "pg_filenode.map":
		return Path{Kind: KindRelMapper}
	case dir == "pg_xact" || dir == "pg_commit_ts" || dir == "pg_multixact/offsets" || dir == "pg_multixact/members":
		return Path{Kind: KindSLRU}
	case dir == "pg_twophase":
		return Path{Kind: KindTwoPhase}
	case dir == "pg_logical/snapshots" || dir == "pg_logical/mappings":
		return Path{Kind: KindLogical}
	}
	tablespace, database, ok := databaseDir(dir)
	if !ok {
		return Path{}
	}
	p := Path{Kind: KindRelation, Tablespace: tablespace, Database: database}
	if rest, t := strings.CutPrefix(base, "t"); t && database != 0 {
		backend, of, found := strings.Cut(rest, "_")
		if !found || backend == "" || strings.Trim(backend, "0123456789") != "" {
			return Path{}
		}
		base, p.Temporary = of, true
	}
	if !p.relationFile(base) {
		return Path{}
	}
	return p
}

// relationFile fills in what the name of a relation's file says: RELATION, then
// _FORK for another fork than the main one, then .SEGMENT for another segment than
// the first.
func (p *Path) relationFile(name string) (ok bool) {
	name, segment, segmented := strings.Cut(name, ".")
	if segmented {
		if p.Segment, ok = number(segment); !ok {
			return false
		}
	}
	name, fork, forked := strings.Cut(name, "_")
	if forked {
		switch fork {
		case "fsm":
			p.Fork = ForkFSM
		case "vm":
			p.Fork = ForkVM
		case "init":
			p.Fork = ForkInit
		default:
			return false
		}
	}
	p.Relation, ok = number(name)
	return ok
}

// databaseDir reads global, base/DB and pg_tblspc/OID/PG_x_y/DB.
func databaseDir(dir string) (tablespace, database uint32, ok bool) {
	top, below, _ := strings.Cut(dir, "/")
	switch top {
	case "global":
		return GlobalTablespace, 0, dir == top
	case "base":
		database, ok = number(below)
		return DefaultTablespace, database, ok
	case TablespaceDir:
		oid, below, _ := strings.Cut(below, "/")
		version, below, _ := strings.Cut(below, "/")
		if tablespace, ok = number(oid); !ok || !strings.HasPrefix(version, "PG_") {
			return 0, 0, false
		}
		database, ok = number(below)
		return tablespace, database, ok
	}
	return 0, 0, false
}

// number reads a number that is written as the server writes them: above 0, and
// without a sign or leading zeros.
func number(digits string) (uint32, bool) {
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && n != 0 && digits[0] != '0'
}
