package search

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// target is a transaction that removed files, as a first reading found it.
type target struct {
	lsn wal.LSN // of the record that ends it
	xid uint32
	// forced: it may have dropped a database, which another record says.
	forced bool
}

// checkpoint is what a checkpoint's record says of where to start reading.
type checkpoint struct {
	lsn, redo wal.LSN
	nextXID   uint32
}

// dropping looks for transactions that removed files, and for the names of
// what they removed.
type dropping struct {
	*searcher
	ctx         context.Context // of the search
	targets     []target
	checkpoints map[uint64][]checkpoint // by segment, of those that were read
	catalog     *catalog
}

// findDropped reads the planned segments twice at most: for the transactions,
// and, where there are any, for the changes of the catalogues from the
// checkpoint on that was before each transaction's beginning.
func (s *searcher) findDropped(ctx context.Context) error {
	d := &dropping{searcher: s, ctx: ctx, checkpoints: map[uint64][]checkpoint{}, catalog: newCatalog()}
	for _, p := range s.plan {
		d.checkpoints[p.number] = nil
	}
	if err := s.scan(ctx, d.first); err != nil {
		return err
	}
	for len(d.targets) > 0 {
		left := len(d.targets)
		if err := d.nameNext(); err != nil {
			return err
		}
		if len(d.targets) == left {
			return fmt.Errorf("read the transaction that ended at %s once more: it isn't there", d.targets[0].lsn)
		}
	}
	return nil
}

// first notes the transactions that removed files, and what helps to find out
// whose.
func (d *dropping) first(r *wal.Record, c *wal.Contents) error {
	if err := d.look(r, c, d.checkpoints, d.catalog); err != nil {
		return err
	}
	e, found, err := d.event(r, c)
	if err != nil || !found || e.Kind != KindCommit && e.Kind != KindCommitPrepared {
		return err
	}
	if forced := r.ForcesSync(c); len(e.dropped) > 0 || forced {
		d.targets = append(d.targets, target{r.LSN, e.XID, forced})
	}
	return nil
}

// look notes checkpoints, and which files hold pg_class.
func (s *searcher) look(r *wal.Record, c *wal.Contents, checkpoints map[uint64][]checkpoint, catalog *catalog) error {
	if r.Resource == wal.ResourceRelationMap {
		if err := r.Decode(c); err != nil {
			return err
		}
		return catalog.learn(r, c)
	}
	if kind, ok := r.ControlKind(); !ok || kind != wal.ControlCheckpointOnline && kind != wal.ControlCheckpointShutdown {
		return nil
	}
	if err := r.Decode(c); err != nil {
		return err
	}
	point, err := r.Checkpoint(c)
	number := wal.SegmentNumber(r.LSN, s.segmentSize)
	checkpoints[number] = append(checkpoints[number], checkpoint{r.LSN, point.Redo, uint32(point.NextXID)})
	return err
}

// beginning returns the segment from which on the catalogues' changes have to
// be read for a transaction: that of the redo point of the last checkpoint
// before the transaction began. From there on WAL has the image of each page
// that the transaction changed. whole is false where so much isn't archived.
func (d *dropping) beginning(t target) (number uint64, whole bool, err error) {
	last := wal.SegmentNumber(t.lsn, d.segmentSize)
	least := last - min(last, maxLookBack/d.segmentSize)
	wanted := uint64(0) // behind the redo point, once that is known
	for n := last; ; n-- {
		if !d.archived[n] {
			return n + 1, false, nil
		}
		if wanted == 0 {
			points, err := d.checkpointsOf(n)
			if err != nil {
				return 0, false, err
			}
			for _, point := range points {
				if point.lsn < t.lsn && int32(t.xid-point.nextXID) >= 0 {
					wanted = wal.SegmentNumber(point.redo, d.segmentSize) + 1
				}
			}
		}
		switch {
		case wanted != 0 && n < wanted:
			return n, true, nil
		case n == least:
			return n, false, nil
		}
	}
}

// checkpointsOf returns a segment's checkpoints. It reads some segments before
// it too, since they are asked for next.
func (d *dropping) checkpointsOf(number uint64) ([]checkpoint, error) {
	if points, known := d.checkpoints[number]; known {
		return points, nil
	}
	found := make([]map[uint64][]checkpoint, d.options.Concurrency)
	learned := make([]*catalog, d.options.Concurrency)
	var numbers []uint64
	for n := number; len(numbers) < d.options.Concurrency && d.archived[n]; n-- {
		if _, known := d.checkpoints[n]; known {
			break
		}
		numbers = append(numbers, n)
	}
	downloads := d.download(d.ctx, nil)
	defer downloads.close()
	var group errgroup.Group
	for i, n := range numbers {
		found[i], learned[i] = map[uint64][]checkpoint{}, newCatalog()
		one := downloads.begin(n)
		group.Go(func() error { return d.lookThrough(one, found[i], learned[i]) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, n := range numbers {
		d.checkpoints[n] = found[i][n]
		for file, oid := range learned[i].files {
			d.catalog.files[file] = oid
		}
	}
	return d.checkpoints[number], nil
}

// lookThrough reads one segment by itself, as far as it can be read.
func (s *searcher) lookThrough(one *download, checkpoints map[uint64][]checkpoint, catalog *catalog) error {
	defer one.cancel()
	reader, err := wal.NewReader(one)
	contents := new(wal.Contents)
	for err == nil {
		var record *wal.Record
		if record, err = reader.Next(); err == nil {
			err = s.look(record, contents, checkpoints, catalog)
		}
	}
	if errors.Is(one.failure, object.ErrCorrupt) {
		return nil // which is said where it is read for what is in it
	}
	return one.failure // anything else is where WAL ends, or begins
}

var errRestart = errors.New("the next transaction's names are found elsewhere")

// nameNext reads the changes of the catalogues for the first target, and goes
// on to the next ones as long as they lie on the way.
func (d *dropping) nameNext() error {
	from, whole, err := d.beginning(d.targets[0])
	if err != nil {
		return err
	}
	last := wal.SegmentNumber(d.targets[len(d.targets)-1].lsn, d.segmentSize)
	for n := from; n <= last; n++ {
		if !d.archived[n] {
			last = n - 1
		}
	}
	numbers := make([]uint64, 0, last-from+1)
	for n := from; n <= last; n++ {
		numbers = append(numbers, n)
	}
	d.catalog.broken()
	// What can't be read is said once, by the first reading.
	warnings := d.report.Warnings
	defer func() { d.report.Warnings = warnings }()
	downloads := d.download(d.ctx, numbers)
	defer downloads.close()
	n := naming{dropping: d, start: from, whole: whole, intact: true, begun: map[uint32]wal.LSN{}, databases: map[uint32]uint32{}}
	for _, t := range d.targets {
		if t.forced {
			n.begun[t.xid] = 0
		}
	}
	err = d.read(downloads, run{first: from, last: last}, n.broken, n.take)
	if errors.Is(err, errRestart) {
		return nil
	}
	return err
}

// naming is one reading of the catalogues' changes.
type naming struct {
	*dropping
	start     uint64             // segment
	whole     bool               // the reading began before the next target's transaction
	intact    bool               // and there was no break
	begun     map[uint32]wal.LSN // where forced targets begin, by xid; 0 for not yet
	databases map[uint32]uint32  // OIDs of databases that they drop
	contents  wal.Contents
}

func (n *naming) broken() {
	n.intact = false
	n.catalog.broken()
}

// take takes in one record, and yields the next target when that is reached.
func (n *naming) take(r *wal.Record) error {
	if lsn, forced := n.begun[r.XID]; forced {
		if lsn == 0 {
			n.begun[r.XID] = r.LSN
		}
		if err := n.noteDatabase(r); err != nil {
			return err
		}
	}
	n.catalog.apply(r)
	action, ends := r.TransactionAction()
	if !ends || action == wal.ActionPrepare {
		return nil
	}
	found := r.LSN == n.targets[0].lsn
	if found {
		if err := n.name(r); err != nil {
			return err
		}
	}
	if err := r.Decode(&n.contents); err != nil {
		return err
	}
	t, err := r.Transaction(&n.contents)
	if err != nil {
		return err
	}
	n.catalog.ended(t.XID, t.Subtransactions)
	if !found {
		return nil
	}
	return n.goOn(r)
}

// noteDatabase remembers that a transaction removes a database's files.
func (n *naming) noteDatabase(r *wal.Record) error {
	if kind, ok := r.StorageKind(); !ok || kind != wal.StorageDropDatabase {
		return nil
	}
	if err := r.Decode(&n.contents); err != nil {
		return err
	}
	storage, err := r.Storage(&n.contents)
	n.databases[r.XID] = storage.Database
	return err
}

// name yields the next target, with the names of what it removed, if that was
// there before it.
func (n *naming) name(r *wal.Record) error {
	e, _, err := n.event(r, &n.contents)
	if err != nil {
		return err
	}
	whole := n.whole && n.intact
	e.Relations = n.catalog.resolve(&e, whole)
	if oid, dropped := n.databases[e.XID]; dropped {
		e.Relations = append(e.Relations, Relation{Change: ChangeDrop, Kind: kindDatabase, OID: oid})
		if t := n.catalog.transactions[e.XID]; whole && t != nil && t.database {
			e.Begun = n.begun[e.XID]
			if marked := n.catalog.doomed[oid]; marked != 0 {
				e.Begun = min(e.Begun, marked)
			}
		}
	}
	if len(e.Relations) == 0 {
		return nil
	}
	return n.yield(e)
}

// goOn decides whether the next target lies on the way of this reading.
func (n *naming) goOn(r *wal.Record) error {
	n.targets = n.targets[1:]
	if len(n.targets) == 0 {
		return errRestart
	}
	from, whole, err := n.beginning(n.targets[0])
	if err != nil {
		return err
	}
	if from < n.start || from > wal.SegmentNumber(r.LSN, n.segmentSize) {
		return errRestart
	}
	n.whole = whole
	return nil
}
