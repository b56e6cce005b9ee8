package search

import (
	"maps"
	"slices"

	"github.com/walship/walship/pkg/wal"
)

// The kinds of relations that others than pg_class know.
const (
	kindIndex    = "index"
	kindDatabase = "database"
)

// relationPartitioned is the relkind of partitioned tables
// (RELKIND_PARTITIONED_TABLE in src/include/catalog/pg_class.h).
const relationPartitioned = 'p'

// relationKinds name what pg_class's relkind stands for.
var relationKinds = map[byte]string{
	'r': "table", 'i': kindIndex, 'I': kindIndex, 'S': "sequence", 't': "TOAST table", 'm': "materialized view",
	'v': "view", 'c': "composite type", 'f': "foreign table", relationPartitioned: "partitioned table",
}

// life is what a transaction made of one relation.
type life struct {
	initial *wal.Class // before the transaction; nil if that made it, or if it isn't known
	created *wal.Class // as the transaction made it; nil if it was there before
	gone    bool       // at its end
	moves   []move
}

// move is a change of a relation's file.
type move struct{ from, to *wal.Class }

// resolver tells whose files a transaction removed.
type resolver struct {
	lives      map[uint32]*life // by OID
	changes    []*changes
	whole      bool // all that the transaction did is known
	namespaces map[uint32]string
}

// resolve returns the relations whose files a transaction removed, apart from
// files that it had made itself, by what it did to the catalogues. whole says that c followed it from its beginning.
func (c *catalog) resolve(e *Event, whole bool) []Relation {
	if len(e.dropped) == 0 {
		return nil
	}
	database := e.dropped[0].Database
	for _, file := range e.dropped {
		database = max(database, file.Database) // 0 for a shared relation, else the same
	}
	r := &resolver{lives: map[uint32]*life{}, whole: whole, namespaces: c.namespaces(database)}
	for _, xid := range append([]uint32{e.XID}, e.Subtransactions...) {
		if t := c.transactions[xid]; t != nil {
			r.changes = append(r.changes, t)
			r.whole = r.whole && !t.unread
			for oid, name := range t.namespaces {
				r.namespaces[oid] = name
			}
		}
	}
	r.follow(database)
	found := make([]Relation, 0, len(e.dropped))
	toast := map[uint32]uint32{} // by the OID of a TOAST table, that of its owner
	for _, file := range e.dropped {
		relation, class := r.relation(file)
		if class != nil && class.TOAST != 0 {
			toast[class.TOAST] = class.OID
		}
		if relation.Change != "" {
			found = append(found, relation)
		}
	}
	return append(group(found, toast, c.tables(database)), r.parents()...)
}

// parents returns the partitioned tables that the transaction dropped, which have
// no files of their own.
func (r *resolver) parents() []Relation {
	var found []Relation
	for _, oid := range slices.Sorted(maps.Keys(r.lives)) {
		if l := r.lives[oid]; l.gone && l.initial != nil && l.initial.Kind == relationPartitioned {
			relation := Relation{Change: ChangeDrop}
			r.describe(&relation, l.initial)
			found = append(found, relation)
		}
	}
	return found
}

// follow goes through the changes of pg_class in their order.
func (r *resolver) follow(database uint32) {
	var all []classChange
	for _, t := range r.changes {
		all = append(all, t.classes...)
	}
	slices.SortFunc(all, func(a, b classChange) int {
		if a.lsn < b.lsn {
			return -1
		}
		return 1
	})
	for _, change := range all {
		known := change.new
		if known == nil {
			known = change.old
		}
		if known == nil || change.database != database {
			continue
		}
		l := r.lives[known.OID]
		if l == nil {
			l = &life{initial: change.old}
			if change.kind == wal.HeapInsert {
				l.created = change.new
			}
			r.lives[known.OID] = l
		}
		if change.old != nil && change.new != nil && change.old.FileNumber != change.new.FileNumber {
			l.moves = append(l.moves, move{change.old, change.new})
		}
		l.gone = change.kind == wal.HeapDelete
	}
}

// relation tells whose file it was, and what became of it. The zero Relation
// stands for a file that the transaction itself had made.
func (r *resolver) relation(file wal.RelFile) (Relation, *wal.Class) {
	relation := Relation{Change: ChangeUnknown, File: file, FileName: file.String()}
	is := func(class *wal.Class) bool {
		return class != nil && class.FileNumber == file.Number && (class.Tablespace == 0 || class.Tablespace == file.Tablespace)
	}
	for _, l := range r.lives {
		switch {
		case !is(l.initial):
			continue
		case l.gone:
			relation.Change = ChangeDrop
		default:
			relation.Change = r.moved(l, file.Number)
		}
		r.describe(&relation, l.initial)
		return relation, l.initial
	}
	for _, l := range r.lives {
		if is(l.created) || slices.ContainsFunc(l.moves, func(m move) bool { return is(m.to) }) {
			return Relation{}, nil
		}
	}
	if r.remapped(file.Database) {
		relation.Change = ChangeRewrite
	}
	return relation, nil
}

// moved tells why a relation left a file. Of several reasons that the rows of
// it are gone from the relation counts.
func (r *resolver) moved(l *life, number uint32) Change {
	change, left := ChangeUnknown, false
	for _, m := range l.moves {
		if !left && m.from.FileNumber != number {
			continue
		}
		if why := r.why(m); !left || why == ChangeTruncate {
			change = why
		}
		left = true
	}
	return change
}

// why tells what a relation was given another file for.
func (r *resolver) why(m move) Change {
	table := m.from.Kind == 'r' || m.from.Kind == 'm' || m.from.Kind == 't'
	switch {
	case r.truncated(m.from.OID), table && r.emptied(m.to.FileNumber):
		return ChangeTruncate
	case !table, m.from.Tablespace != m.to.Tablespace, r.rewritten(m), m.to.Pages > 0:
		return ChangeRewrite
	case r.whole:
		return ChangeTruncate // nothing else gives a table a new file without making another table
	}
	return ChangeUnknown
}

func (r *resolver) truncated(oid uint32) bool {
	return slices.ContainsFunc(r.changes, func(t *changes) bool { return t.truncated[oid] })
}

// remapped tells whether the transaction rewrote a catalogue that is in the
// relation map. If it understands all other changes, a file that isn't in
// pg_class is that one's.
func (r *resolver) remapped(database uint32) bool {
	return r.whole && slices.ContainsFunc(r.changes, func(t *changes) bool { return t.remapped[database] })
}

// emptied tells whether the transaction cut a file to nothing: TRUNCATE does
// so with one that the transaction has made.
func (r *resolver) emptied(number uint32) bool {
	return slices.ContainsFunc(r.changes, func(t *changes) bool { return t.emptied[number] })
}

// rewritten tells whether the transaction made another relation to move a
// relation's rows to, which got its file in exchange.
func (r *resolver) rewritten(m move) bool {
	for _, l := range r.lives {
		if l.created == nil || l.created.RewriteOf != m.from.OID {
			continue
		}
		if slices.ContainsFunc(l.moves, func(other move) bool { return other.to.FileNumber == m.from.FileNumber }) {
			return true
		}
	}
	return false
}

// describe fills in what a row of pg_class says.
func (r *resolver) describe(relation *Relation, class *wal.Class) {
	relation.OID, relation.Name, relation.SchemaOID = class.OID, class.Name, class.Namespace
	relation.Kind = relationKinds[class.Kind]
	relation.Schema = r.namespaces[class.Namespace]
}

// group puts TOAST tables and indexes below their tables.
func group(found []Relation, toast, tables map[uint32]uint32) []Relation {
	at := map[uint32]int{} // by OID
	for i, relation := range found {
		if relation.OID != 0 {
			at[relation.OID] = i
		}
	}
	// owner returns where the relation is that another one belongs to, if that
	// is another one and is there.
	owner := func(i int) (int, bool) {
		top := i
		for range 3 { // an index of a TOAST table of a table
			oid, ok := toast[found[top].OID]
			if found[top].Kind == kindIndex {
				oid, ok = tables[found[top].OID]
			}
			above, there := at[oid]
			if !ok || !there {
				break
			}
			top = above
		}
		return top, top != i
	}
	parts := map[int][]Relation{}
	for i, relation := range found {
		if top, ok := owner(i); ok {
			parts[top] = append(parts[top], relation)
		}
	}
	grouped := make([]Relation, 0, len(found))
	for i, relation := range found {
		if _, ok := owner(i); ok {
			continue
		}
		relation.Parts = parts[i]
		grouped = append(grouped, relation)
	}
	return grouped
}
