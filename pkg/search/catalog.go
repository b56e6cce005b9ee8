package search

import (
	"iter"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/wal"
)

// catalog follows the catalogues' own changes through WAL, and so knows which
// relations a transaction changed, and what they were called. Rows become
// known by the full image that WAL holds of each page that is changed after a
// checkpoint, and by every later change of it: what it knows of a row is
// exact, and other rows it doesn't know.
type catalog struct {
	files map[catalogFile]uint32                               // the OID of the catalogue that a file holds
	pages map[catalogFile]map[uint32]map[uint16]wal.RowVersion // by block, by line pointer
	bytes int                                                  // of the rows in pages

	doomed       map[uint32]wal.LSN  // where databases were marked as to be dropped, by OID
	transactions map[uint32]*changes // under way, by the xid in the records, a subtransaction's own
	contents     wal.Contents
}

// maxCatalog bounds the bytes of rows that are kept. Where there would be
// more, all are forgotten.
const maxCatalog = 128 << 20

// catalogFile is a relation file by its database and number.
type catalogFile struct{ database, number uint32 }

type catalogPage struct {
	file  catalogFile
	block uint32
}

// changes are what one transaction did to rows of catalogues, in order.
type changes struct {
	classes    []classChange
	namespaces map[uint32]string // that it deleted or renamed, as they were called before
	truncated  map[uint32]bool   // OIDs of tables, as a record of TRUNCATE lists them
	emptied    map[uint32]bool   // numbers of files that it cut to nothing
	remapped   map[uint32]bool   // OIDs of databases whose relation map it wrote
	database   bool              // a row of pg_database is deleted
	unread     bool              // some change couldn't be understood
}

// classChange is a change of a row of pg_class. A nil old or new one isn't
// there, or couldn't be read.
type classChange struct {
	lsn      wal.LSN
	kind     wal.HeapKind // an insert, a delete or an update
	database uint32
	old, new *wal.Class
}

func newCatalog() *catalog {
	return &catalog{
		files:        map[catalogFile]uint32{},
		pages:        map[catalogFile]map[uint32]map[uint16]wal.RowVersion{},
		doomed:       map[uint32]wal.LSN{},
		transactions: map[uint32]*changes{},
	}
}

// catalogue returns the OID of the catalogue that a file holds. Its first
// number is the OID itself, and no other relation gets that.
func (c *catalog) catalogue(file wal.RelFile) (uint32, bool) {
	switch file.Number {
	case wal.ClassOID, wal.NamespaceOID, wal.IndexOID, wal.DatabaseOID:
		return file.Number, true
	}
	oid, ok := c.files[catalogFile{file.Database, file.Number}]
	return oid, ok
}

// transaction returns what a transaction has done so far.
func (c *catalog) transaction(xid uint32) *changes {
	t := c.transactions[xid]
	if t == nil {
		t = &changes{
			namespaces: map[uint32]string{}, truncated: map[uint32]bool{}, emptied: map[uint32]bool{}, remapped: map[uint32]bool{},
		}
		c.transactions[xid] = t
	}
	return t
}

// broken is called where WAL is missing: nothing is known of what stood there.
func (c *catalog) broken() {
	files := c.files
	*c = *newCatalog()
	c.files = files
}

// resourceHeap2 is that of the heap's records without room among the others
// (RM_HEAP2_ID in src/include/access/rmgrlist.h).
const resourceHeap2 wal.ResourceManager = 9

// apply takes in one record. What can't be understood isn't known.
func (c *catalog) apply(r *wal.Record) {
	switch r.Resource {
	case wal.ResourceXLOG, wal.ResourceHeap, resourceHeap2, wal.ResourceRelationMap, wal.ResourceStorage:
	default:
		return
	}
	if err := c.change(r); err != nil {
		c.transaction(r.XID).unread = true
	}
}

func (c *catalog) change(r *wal.Record) error {
	if err := r.Decode(&c.contents); err != nil {
		return err
	}
	switch r.Resource {
	case wal.ResourceRelationMap:
		return c.applyMap(r)
	case wal.ResourceStorage:
		return c.applyStorage(r)
	}
	for i := range c.contents.Blocks {
		if err := c.applyImage(&c.contents.Blocks[i]); err != nil {
			return err
		}
	}
	switch kind, ok := r.HeapKind(); {
	case !ok:
		return nil
	case kind == wal.HeapTruncate:
		_, oids, err := r.TruncatedRelations(&c.contents)
		for _, oid := range oids {
			c.transaction(r.XID).truncated[oid] = true
		}
		return err
	}
	return c.applyChange(r)
}

// learn notes which file holds pg_class, where it isn't the first one.
func (c *catalog) learn(r *wal.Record, contents *wal.Contents) error {
	m, err := r.RelationMap(contents)
	if err != nil {
		return err
	}
	if number := m.Files[wal.ClassOID]; number != 0 && m.Database != 0 {
		c.files[catalogFile{m.Database, number}] = wal.ClassOID
	}
	return nil
}

func (c *catalog) applyMap(r *wal.Record) error {
	m, err := r.RelationMap(&c.contents)
	if err != nil {
		return err
	}
	c.transaction(r.XID).remapped[m.Database] = true
	return c.learn(r, &c.contents)
}

// applyStorage notes files that are cut to nothing.
func (c *catalog) applyStorage(r *wal.Record) error {
	if kind, ok := r.StorageKind(); !ok || kind != wal.StorageTruncate {
		return nil
	}
	storage, err := r.Storage(&c.contents)
	if err == nil && storage.Blocks == 0 && r.XID != 0 {
		c.transaction(r.XID).emptied[storage.Relation.Number] = true
	}
	return err
}

// applyImage makes the rows of a page known.
func (c *catalog) applyImage(b *wal.Block) error {
	if b.Fork != wal.ForkMain {
		return nil
	}
	if _, ok := c.catalogue(b.Relation); !ok {
		return nil
	}
	page := catalogPage{catalogFile{b.Relation.Database, b.Relation.Number}, b.Number}
	imaged := b.HasImage && b.ApplyImage
	if b.WillInit || imaged {
		c.forget(page)
	}
	if !imaged {
		return nil
	}
	image, err := b.RestoreImage(compress.DecodeFrame)
	if err != nil {
		return err
	}
	for row := range wal.Rows(image) {
		c.set(page, row)
	}
	return nil
}

func (c *catalog) forget(page catalogPage) {
	for _, row := range c.pages[page.file][page.block] {
		c.bytes -= len(row.Row)
	}
	delete(c.pages[page.file], page.block)
}

func (c *catalog) set(page catalogPage, row wal.RowVersion) {
	if c.bytes > maxCatalog {
		c.pages, c.bytes = map[catalogFile]map[uint32]map[uint16]wal.RowVersion{}, 0
	}
	blocks := c.pages[page.file]
	if blocks == nil {
		blocks = map[uint32]map[uint16]wal.RowVersion{}
		c.pages[page.file] = blocks
	}
	rows := blocks[page.block]
	if rows == nil {
		rows = map[uint16]wal.RowVersion{}
		blocks[page.block] = rows
	}
	c.bytes += len(row.Row) - len(rows[row.Offset].Row)
	rows[row.Offset] = row
}

// row returns the row at a place, nil if it isn't known.
func (c *catalog) row(file wal.RelFile, place wal.RowPlace) wal.Row {
	return c.pages[catalogFile{file.Database, file.Number}][place.Block][place.Offset].Row
}

// applyChange takes in the change of one row.
func (c *catalog) applyChange(r *wal.Record) error {
	change, err := r.HeapChange(&c.contents)
	if err != nil {
		return err
	}
	catalogue, ok := c.catalogue(change.Relation)
	if !ok {
		return nil
	}
	file := catalogFile{change.Relation.Database, change.Relation.Number}
	var before, after wal.Row
	if change.Kind != wal.HeapInsert {
		before = c.row(change.Relation, change.Old)
		if before != nil && change.Kind != wal.HeapInplace {
			c.set(catalogPage{file, change.Old.Block}, wal.RowVersion{Offset: change.Old.Offset, Row: before, Deleted: true})
		}
	}
	if change.Kind == wal.HeapInplace {
		change.New = change.Old
	}
	if change.Kind != wal.HeapDelete {
		if row, ok := change.NewRow(before); ok {
			c.set(catalogPage{file, change.New.Block}, wal.RowVersion{Offset: change.New.Offset, Row: row})
		} else if b := c.contents.Blocks[0]; !b.HasImage || !b.ApplyImage {
			c.lose(catalogPage{file, change.New.Block}, change.New.Offset)
		}
		after = c.row(change.Relation, change.New)
	}
	if oid, ok := r.DoomedDatabase(after); ok && catalogue == wal.DatabaseOID && change.Kind == wal.HeapInplace {
		c.doomed[oid] = r.LSN
	}
	if change.Kind != wal.HeapInplace {
		c.note(r, catalogue, change, before, after)
	}
	return nil
}

// lose forgets a row that was replaced by one that isn't known.
func (c *catalog) lose(page catalogPage, offset uint16) {
	rows := c.pages[page.file][page.block]
	c.bytes -= len(rows[offset].Row)
	delete(rows, offset)
}

// note remembers what a transaction changed.
func (c *catalog) note(r *wal.Record, catalogue uint32, change wal.HeapChange, before, after wal.Row) {
	t := c.transaction(r.XID)
	switch catalogue {
	case wal.ClassOID:
		entry := classChange{lsn: r.LSN, kind: change.Kind, database: change.Relation.Database}
		if class, ok := r.Class(before); ok {
			entry.old = &class
		}
		if class, ok := r.Class(after); ok {
			entry.new = &class
		}
		if change.Kind != wal.HeapInsert && entry.old == nil || change.Kind != wal.HeapDelete && entry.new == nil {
			t.unread = true
		}
		t.classes = append(t.classes, entry)
	case wal.DatabaseOID:
		t.database = t.database || change.Kind == wal.HeapDelete
	case wal.NamespaceOID:
		if oid, name, ok := wal.ParseNamespace(before); ok {
			if _, known := t.namespaces[oid]; !known {
				t.namespaces[oid] = name
			}
		}
	}
}

// ended forgets what a transaction and its subtransactions did.
func (c *catalog) ended(xid uint32, subtransactions []uint32) {
	delete(c.transactions, xid)
	for _, xid := range subtransactions {
		delete(c.transactions, xid)
	}
}

// rows yields the known rows of a catalogue of a database.
func (c *catalog) rows(database, oid uint32) iter.Seq[wal.RowVersion] {
	return func(yield func(wal.RowVersion) bool) {
		for file, blocks := range c.pages {
			if got, _ := c.catalogue(wal.RelFile{Database: file.database, Number: file.number}); got != oid || file.database != database {
				continue
			}
			for _, rows := range blocks {
				for _, row := range rows {
					if !yield(row) {
						return
					}
				}
			}
		}
	}
}

// namespaces returns the names of a database's schemas by their OIDs. Where
// what is known of one doesn't agree, as after a change of its name, it isn't
// there.
func (c *catalog) namespaces(database uint32) map[uint32]string {
	names, living := map[uint32]string{}, map[uint32]bool{}
	for row := range c.rows(database, wal.NamespaceOID) {
		oid, name, ok := wal.ParseNamespace(row.Row)
		if !ok {
			continue
		}
		if other, known := names[oid]; known && other != name {
			name = ""
		}
		names[oid], living[oid] = name, living[oid] || !row.Deleted
	}
	for oid := range names {
		if !living[oid] {
			delete(names, oid)
		}
	}
	return names
}

// tables returns the OIDs of tables by those of their indexes.
func (c *catalog) tables(database uint32) map[uint32]uint32 {
	tables := map[uint32]uint32{}
	for row := range c.rows(database, wal.IndexOID) {
		if index, table, ok := wal.ParseIndex(row.Row); ok {
			tables[index] = table
		}
	}
	return tables
}
