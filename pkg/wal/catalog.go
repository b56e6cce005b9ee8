package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// OIDs of catalogues, from src/include/catalog. Until it is rewritten, a
// catalogue's file has its OID as number; no other relation ever gets such a
// small one.
const (
	ClassOID     = 1259 // pg_class
	NamespaceOID = 2615 // pg_namespace
	IndexOID     = 2610 // pg_index
	DatabaseOID  = 1262 // pg_database
)

// Class is what a row of pg_class says of a relation, as FormData_pg_class in
// src/include/catalog/pg_class.h.
type Class struct {
	OID        uint32
	Name       string
	Namespace  uint32 // OID
	FileNumber uint32 // 0 for a relation without a file, and for one of the relation map
	Tablespace uint32 // OID; 0 for the database's default
	Pages      int32  // an estimate
	Rows       float32
	TOAST      uint32 // OID of its TOAST table, 0 for none
	Kind       byte   // r, i, S, t, m, v, c, f, p or I
	RewriteOf  uint32 // OID of the relation for whose rewrite this one was made; usually 0
}

const (
	nameSize = 64 // NAMEDATALEN
	// sizeOfClass is what every version's rows have at least.
	sizeOfClass = 132
)

var relationKinds = []byte("riStmvcfpI")

// Class decodes a row of pg_class, as the version of PostgreSQL writes it
// whose WAL r is of. It reports false for bytes that can't be one.
func (r *Record) Class(row Row) (Class, bool) { return parseClass(row, r.magic) }

func parseClass(row Row, magic uint16) (Class, bool) {
	if len(row) < sizeOfClass+4 {
		return Class{}, false
	}
	number := func(offset int) uint32 { return binary.LittleEndian.Uint32(row[offset:]) }
	c := Class{
		OID:        number(0),
		Namespace:  number(68),
		FileNumber: number(88),
		Tablespace: number(92),
		Pages:      int32(number(96)),
		Rows:       math.Float32frombits(number(100)),
	}
	tail := row[108:] // from reltoastrelid on
	if magic >= magic18 {
		tail = row[112:] // behind relallfrozen
	}
	c.TOAST = binary.LittleEndian.Uint32(tail)
	c.Kind = tail[7]
	c.RewriteOf = binary.LittleEndian.Uint32(tail[20:])
	var ok bool
	c.Name, ok = parseName(row[4:])
	return c, ok && c.OID != 0 && bytes.IndexByte(relationKinds, c.Kind) >= 0
}

// parseName reads a NameData: a name, filled up with zeros.
func parseName(data []byte) (string, bool) {
	if len(data) < nameSize {
		return "", false
	}
	name, rest, _ := bytes.Cut(data[:nameSize], []byte{0})
	return string(name), len(name) > 0 && len(name) < nameSize && len(bytes.Trim(rest, "\x00")) == 0
}

// ParseNamespace decodes a row of pg_namespace: a schema's OID and name, as
// FormData_pg_namespace in src/include/catalog/pg_namespace.h.
func ParseNamespace(row Row) (oid uint32, name string, ok bool) {
	if len(row) < 4+nameSize {
		return 0, "", false
	}
	name, ok = parseName(row[4:])
	return binary.LittleEndian.Uint32(row), name, ok
}

// ParseIndex decodes a row of pg_index: the OIDs of an index and of its table,
// as FormData_pg_index in src/include/catalog/pg_index.h.
func ParseIndex(row Row) (index, table uint32, ok bool) {
	if len(row) < 8 {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint32(row), binary.LittleEndian.Uint32(row[4:]), true
}

// ForcesSync tells whether a commit record says that the transaction's commit
// had to be durable at once, as that of DROP DATABASE has to
// (XACT_COMPLETION_FORCE_SYNC_COMMIT in src/include/access/xact.h); c is the
// record's contents.
func (r *Record) ForcesSync(c *Contents) bool {
	if action, ok := r.TransactionAction(); !ok || action == ActionPrepare || r.Info&transactionHasInfo == 0 || len(c.Main) < 12 {
		return false
	}
	return binary.LittleEndian.Uint32(c.Main[8:])&(1<<31) != 0
}

// DoomedDatabase decodes a row of pg_database, of the version whose WAL r is
// of, and reports true if it is one that DROP DATABASE has marked as not to be
// used any more: it does so before it begins (DATCONNLIMIT_INVALID_DB in
// src/include/catalog/pg_database.h; minor releases since August 2023).
func (r *Record) DoomedDatabase(row Row) (oid uint32, ok bool) {
	limit := 80 // the offset of datconnlimit
	if r.magic < magic15 {
		limit = 208
	}
	if len(row) < limit+4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(row), int32(binary.LittleEndian.Uint32(row[limit:])) == -2
}

// RelationMap says which files hold the catalogues that pg_class can't say it
// of, as RelMapFile in src/backend/utils/cache/relmapper.c.
type RelationMap struct {
	Database uint32 // OID, 0 for the shared catalogues
	Files    map[uint32]uint32
}

const (
	relationMapMagic = 0x592717 // RELMAPPER_FILEMAGIC
	maxRelationMap   = 64       // MAX_MAPPINGS, the greater one of two
)

// RelationMap decodes a record of the resource manager RelMap; c is its
// contents.
func (r *Record) RelationMap(c *Contents) (RelationMap, error) {
	if r.Resource != ResourceRelationMap || r.Info&^recordFlags != 0 { // XLOG_RELMAP_UPDATE
		return RelationMap{}, fmt.Errorf("decode record at %s: %w", r.LSN, errNotThatRecord)
	}
	cut := cutter{rest: c.Main}
	m := RelationMap{Database: cut.uint32(), Files: map[uint32]uint32{}}
	cut.bytes(8) // tablespace, length
	magic, count := cut.uint32(), cut.uint32()
	if magic != relationMapMagic || count > maxRelationMap {
		return RelationMap{}, fmt.Errorf("decode record at %s: it holds no relation map", r.LSN)
	}
	for range count {
		oid := cut.uint32()
		m.Files[oid] = cut.uint32()
	}
	return m, r.decoded(cut)
}
