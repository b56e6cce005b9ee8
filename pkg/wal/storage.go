package wal

import (
	"fmt"
)

// StorageKind says what a record does to whole files: to a relation's
// storage, to a database or to a tablespace.
type StorageKind uint8

// The kinds of storage records.
const (
	StorageCreate             StorageKind = iota + 1 // a relation's file is created
	StorageTruncate                                  // a relation is cut
	StorageCreateDatabaseCopy                        // a database is made by copying files
	StorageCreateDatabaseLog                         // a database is made, its content follows in WAL; from 15 on
	StorageDropDatabase
	StorageCreateTablespace
	StorageDropTablespace
)

// StorageKind tells what a record does to whole files, or false for any other
// record. It looks at the record's header alone.
func (r *Record) StorageKind() (StorageKind, bool) {
	type key struct {
		resource ResourceManager
		info     uint8
	}
	switch (key{r.Resource, r.Info &^ recordFlags}) {
	case key{ResourceStorage, 0x10}: // XLOG_SMGR_CREATE
		return StorageCreate, true
	case key{ResourceStorage, 0x20}: // XLOG_SMGR_TRUNCATE
		return StorageTruncate, true
	case key{ResourceDatabase, 0x00}: // XLOG_DBASE_CREATE, XLOG_DBASE_CREATE_FILE_COPY
		return StorageCreateDatabaseCopy, true
	case key{ResourceDatabase, 0x10}:
		if r.magic < magic15 { // XLOG_DBASE_DROP until 14
			return StorageDropDatabase, true
		}
		return StorageCreateDatabaseLog, true // XLOG_DBASE_CREATE_WAL_LOG
	case key{ResourceDatabase, 0x20}: // XLOG_DBASE_DROP from 15 on
		return StorageDropDatabase, r.magic >= magic15
	case key{ResourceTablespace, 0x00}: // XLOG_TBLSPC_CREATE
		return StorageCreateTablespace, true
	case key{ResourceTablespace, 0x10}: // XLOG_TBLSPC_DROP
		return StorageDropTablespace, true
	}
	return 0, false
}

// Truncated is a part of a relation that a truncation cuts.
type Truncated uint32

// The parts of a relation, SMGR_TRUNCATE_… in
// src/include/catalog/storage_xlog.h.
const (
	TruncatedMain          Truncated = 1 << 0
	TruncatedVisibilityMap Truncated = 1 << 1
	TruncatedFreeSpaceMap  Truncated = 1 << 2
)

// Storage is what a storage record says. Which fields it has follows from
// Kind.
type Storage struct {
	Kind StorageKind

	Relation RelFile   // StorageCreate, StorageTruncate
	Fork     Fork      // StorageCreate
	Blocks   uint32    // StorageTruncate: that are left of the main fork
	Parts    Truncated // StorageTruncate

	Database           uint32   // OID, of every database kind
	Tablespaces        []uint32 // OIDs: where the database is, or the tablespace itself
	TemplateDatabase   uint32   // StorageCreateDatabaseCopy
	TemplateTablespace uint32   // StorageCreateDatabaseCopy

	Path string // StorageCreateTablespace: its directory
}

// Storage decodes a record for which StorageKind reports true; c is the
// record's contents. The layouts are those of storage_xlog.h in
// src/include/catalog, and dbcommands_xlog.h and tablespace.h in
// src/include/commands.
func (r *Record) Storage(c *Contents) (Storage, error) {
	kind, ok := r.StorageKind()
	if !ok {
		return Storage{}, fmt.Errorf("decode record at %s: %w", r.LSN, errNotThatRecord)
	}
	s := Storage{Kind: kind}
	cut := cutter{rest: c.Main}
	switch kind {
	case StorageCreate:
		s.Relation, s.Fork = cut.relFile(), Fork(cut.uint32())
	case StorageTruncate:
		s.Blocks, s.Relation, s.Parts = cut.uint32(), cut.relFile(), Truncated(cut.uint32())
	case StorageCreateDatabaseCopy:
		s.Database, s.Tablespaces = cut.uint32(), cut.numbers(1)
		s.TemplateDatabase, s.TemplateTablespace = cut.uint32(), cut.uint32()
	case StorageCreateDatabaseLog:
		s.Database, s.Tablespaces = cut.uint32(), cut.numbers(1)
	case StorageDropDatabase:
		s.Database = cut.uint32()
		s.Tablespaces = cut.numbers(cut.uint32())
	case StorageCreateTablespace:
		s.Tablespaces, s.Path = cut.numbers(1), cut.cstring()
	case StorageDropTablespace:
		s.Tablespaces = cut.numbers(1)
	}
	return s, r.decoded(cut)
}
