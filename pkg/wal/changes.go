package wal

import (
	"math"
	"math/bits"
)

// Changes are the blocks that a stretch of WAL touches: those that have to be
// copied where everything else is known from before the stretch. Only blocks of
// main forks are followed: records change the other forks without naming their
// blocks. Whether a relation was touched at all is known of all forks. The rules
// are those of src/backend/postmaster/walsummarizer.c in PostgreSQL 17 and later.
//
// Memory follows the size of what is touched, not how often: at most about one
// byte for every 60 kB of the relations' size.
type Changes struct {
	relations map[RelFile]*relationChanges
	databases map[databaseFiles]struct{}
	// Minimal tells that wal_level was minimal at some point, when not every
	// change went into WAL: then Changes say nothing.
	Minimal bool

	last     RelFile // the relation touched last, and its changes
	lastRel  *relationChanges
	contents Contents
}

// databaseFiles are the files of a database in one tablespace.
type databaseFiles struct{ tablespace, database uint32 }

// relationChanges are the changed blocks of one main fork.
type relationChanges struct {
	// replaced is the first block of those that may have been replaced as a
	// whole: the file was created or removed (0) or cut (there).
	replaced uint32
	leaves   map[uint32]*changesLeaf // by block number / leafBlocks
	leaf     *changesLeaf            // the one touched last
	leafAt   uint32
}

// changesLeaf has a bit for each of leafBlocks blocks.
type changesLeaf [leafBlocks / 64]uint64

const leafBlocks = 4096

// NewChanges returns the changes of no WAL.
func NewChanges() *Changes {
	return &Changes{relations: make(map[RelFile]*relationChanges), databases: make(map[databaseFiles]struct{})}
}

// Add takes in what a record changes.
func (c *Changes) Add(r *Record) error {
	if err := r.Decode(&c.contents); err != nil {
		return err
	}
	if err := c.addFiles(r); err != nil {
		return err
	}
	for i := range c.contents.Blocks {
		b := &c.contents.Blocks[i]
		rel := c.relation(b.Relation)
		if b.Fork == ForkMain {
			rel.touch(b.Number)
		}
	}
	return nil
}

// addFiles takes in what a record does to whole files.
func (c *Changes) addFiles(r *Record) error {
	if action, ends := r.TransactionAction(); ends && action != ActionPrepare {
		t, err := r.Transaction(&c.contents)
		for _, dropped := range t.Dropped {
			// Its number may be used again.
			c.relation(dropped).replace(0)
		}
		return err
	}
	if kind, _ := r.ControlKind(); kind == ControlParameterChange {
		p, err := r.ParameterChange(&c.contents)
		c.Minimal = c.Minimal || p.WALLevel == 0
		return err
	}
	if _, ok := r.StorageKind(); !ok {
		return nil
	}
	s, err := r.Storage(&c.contents)
	switch {
	case err != nil:
		return err
	case s.Kind == StorageCreate:
		if rel := c.relation(s.Relation); s.Fork == ForkMain {
			rel.replace(0)
		}
	case s.Kind == StorageTruncate:
		if rel := c.relation(s.Relation); s.Parts&TruncatedMain != 0 {
			rel.replace(s.Blocks)
		}
	case s.Kind == StorageCreateDatabaseCopy, s.Kind == StorageCreateDatabaseLog, s.Kind == StorageDropDatabase:
		for _, tablespace := range s.Tablespaces {
			c.databases[databaseFiles{tablespace, s.Database}] = struct{}{}
		}
	}
	return nil
}

// Touches tells whether WAL says anything of a relation: names a block of one of
// its forks, or creates, cuts or removes a file of it, or its whole database. A
// record that changes a visibility map names a block of the main fork at least,
// so that the map of a relation that isn't touched is as it was. So is its free
// space map, but for what VACUUM found anew, which isn't logged, and which a server
// that crashes loses as well: at most an image of its page is, which names that
// alone, and which the server's summaries leave out.
func (c *Changes) Touches(f RelFile) bool {
	_, replaced := c.databases[databaseFiles{f.Tablespace, f.Database}]
	return replaced || c.relations[f] != nil
}

// relation returns the changes of a relation, to add to. From then on the relation
// counts as touched.
func (c *Changes) relation(f RelFile) *relationChanges {
	if c.lastRel != nil && c.last == f {
		return c.lastRel
	}
	rel := c.relations[f]
	if rel == nil {
		rel = &relationChanges{replaced: math.MaxUint32, leaves: make(map[uint32]*changesLeaf)}
		c.relations[f] = rel
	}
	c.last, c.lastRel = f, rel
	return rel
}

func (r *relationChanges) replace(from uint32) { r.replaced = min(r.replaced, from) }

func (r *relationChanges) touch(block uint32) {
	at := block / leafBlocks
	if r.leaf == nil || r.leafAt != at {
		r.leaf, r.leafAt = r.leaves[at], at
		if r.leaf == nil {
			r.leaf = new(changesLeaf)
			r.leaves[at] = r.leaf
		}
	}
	r.leaf[block%leafBlocks/64] |= 1 << (block % 64)
}

// Blocks appends the changed blocks of a segment of a main fork, which spans the
// relation's blocks from first up to end; as numbers counted from first,
// ascending. whole is true where blocks of the segment may have been replaced
// without being named: then all of it has to be copied.
//
// A relation that was cut counts as replaced from there on, also if it has
// grown again since: PostgreSQL extends relations by blocks that no record
// names, and what stood there before the cut mustn't come back, neither from
// the parent nor from what that one is based on.
func (c *Changes) Blocks(dst []uint32, f RelFile, first, end uint32) (blocks []uint32, whole bool) {
	if _, replaced := c.databases[databaseFiles{f.Tablespace, f.Database}]; replaced {
		return dst, true
	}
	rel := c.relations[f]
	switch {
	case rel == nil:
		return dst, false
	case rel.replaced < end:
		return dst, true
	}
	for at := first / leafBlocks; uint64(at)*leafBlocks < uint64(end); at++ {
		leaf := rel.leaves[at]
		if leaf == nil {
			continue
		}
		for w, word := range leaf {
			for ; word != 0; word &= word - 1 {
				block := at*leafBlocks + uint32(w*64+bits.TrailingZeros64(word))
				if block >= first && block < end {
					dst = append(dst, block-first)
				}
			}
		}
	}
	return dst, false
}
