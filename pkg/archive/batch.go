package archive

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

const (
	// batchCount is how many segments a batch has at most, its own included.
	// PostgreSQL learns of them one by one, when the batch is over.
	batchCount = 64
	// batchMemory bounds, in bytes, what the segments of a batch hold in
	// memory at a time.
	batchMemory = 80 << 20
)

// Batch says how a push of a segment takes along those that wait behind it.
// They are read and sealed side by side, and published strictly one after the
// other: each only when the one before it is known to be stored as this
// server's own, and when its WAL continues that one's. A storage.Stager has
// their objects by then, where nobody sees them. Whatever goes wrong
// with one that was taken along ends the batch and nothing else: PostgreSQL
// will hand it over, and its own push will say.
type Batch struct {
	// Done is where the pushes of the others find that theirs is done.
	Done *Done
	// Concurrency is how many segments are read and sealed at a time, at
	// least 1. About as many more wait, sealed, for their turn.
	Concurrency int
	// Begin is how long the batch begins with further segments, End how long
	// it waits for the last of them, from the start of the push.
	Begin, End time.Duration
	// Starts is called before anything is taken along, if something is; it may
	// be nil.
	Starts func()
}

// along lists what a push takes along.
func (b *Batch) along(own *push) []wal.FileName {
	size := uint64(own.header.PlainSize)
	if b == nil || own.name.Kind != wal.KindSegment || !wal.ValidSegmentSize(size) || !own.name.ValidFor(size) || 2*worst(size) > batchMemory {
		return nil
	}
	names, err := waiting(own.path, own.name, size, batchCount-1)
	if err != nil {
		own.o.Log.Debug("no batch", "error", err)
	}
	return names
}

// worst is how much memory a segment holds while it is sealed: all that it
// was compressed to, and the object, both as large as it is if its content
// can't be compressed.
func worst(segmentSize uint64) int { return 2 * int(segmentSize) }

// batch is one push with what it takes along.
type batch struct {
	*Batch
	items  []*item // in the order of their WAL, the push's own first
	size   int64   // bytes of each segment
	memory *budget
	slots  chan struct{} // one for each segment that was begun and isn't finished
	pool   *packers
}

// item is one segment of a batch.
type item struct {
	*push
	prepared chan struct{} // closed when err is set
	err      error         // of preparing and staging it
	reserved int           // bytes of memory
}

func newBatch(b *Batch, own *push, along []wal.FileName) *batch {
	all := &batch{
		Batch: b, size: own.header.PlainSize, memory: newBudget(batchMemory), slots: make(chan struct{}, 2*b.Concurrency+1),
		pool: &packers{sealer: own.repository.Sealer},
	}
	all.items = append(all.items, &item{push: own, prepared: make(chan struct{})})
	o := own.o
	o.Batch = nil
	for _, name := range along {
		p := newPush(own.repository, filepath.Join(filepath.Dir(own.path), name.String()), name, o)
		all.items = append(all.items, &item{push: p, prepared: make(chan struct{})})
	}
	return all
}

// run pushes the batch and returns what became of its own segment.
func (b *batch) run(ctx context.Context) (Pushed, error) {
	own := b.items[0]
	along, cancel := context.WithTimeout(ctx, b.End)
	defer cancel()
	work, order := make(chan *item), make(chan *item, len(b.items))
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { b.dispatch(along, work, order) })
	for range b.Concurrency {
		workers.Go(func() {
			for i := range work {
				if i == own {
					b.prepare(ctx, i)
					close(i.prepared)
					continue
				}
				b.prepare(along, i)
				// What it waits for is a disk, and the worker has other work.
				workers.Go(func() {
					defer close(i.prepared)
					b.stage(along, i)
				})
			}
		})
	}
	var done Pushed
	var err error
	last := own // published
	for i := range order {
		<-i.prepared
		switch {
		case i == own:
			if err = i.err; err == nil {
				done, err = i.publish(ctx, func() { b.makeRoom(cancel, order) })
			}
			if err != nil {
				cancel()
			}
		case along.Err() != nil: // given up, but what was begun must end
		default:
			if ended := b.follow(along, i, last); ended != nil {
				own.o.Log.Debug("the batch ends", "before", i.name.String(), "error", ended)
				cancel()
				break
			}
			last = i
			done.Along++
		}
		b.release(i)
	}
	if swept := b.Done.sweep(); swept != nil {
		own.o.Log.Debug("records of earlier batches stay", "error", swept)
	}
	return done, err
}

// makeRoom gives up what is taken along, if that lies in the storage already: it
// may have the room that the push's own segment doesn't find there.
func (b *batch) makeRoom(cancel context.CancelFunc, order <-chan *item) {
	if _, stages := b.items[0].repository.Store.(storage.Stager); !stages {
		return
	}
	cancel()
	for i := range order {
		<-i.prepared
		b.release(i)
	}
}

// dispatch hands out the segments in their order, as memory allows, until it
// is late. A segment that was handed out will be prepared.
func (b *batch) dispatch(ctx context.Context, work, order chan<- *item) {
	defer close(order)
	defer close(work)
	late := time.Now().Add(b.Begin)
	for n, i := range b.items {
		b.slots <- struct{}{}
		i.reserved = worst(uint64(b.size))
		b.memory.take(i.reserved)
		if n > 0 && (ctx.Err() != nil || time.Now().After(late)) {
			return
		}
		order <- i
		work <- i
	}
}

// prepare reads and seals a segment, and gives back the memory that it turned
// out not to need.
func (b *batch) prepare(ctx context.Context, i *item) {
	if i != b.items[0] { // that one is open
		i.err = i.open()
	}
	if i.err == nil && i.header.PlainSize != b.size {
		i.err = fmt.Errorf("it has %d bytes, not %d", i.header.PlainSize, b.size)
	}
	if i.err == nil {
		i.err = i.push.prepare(ctx, b.pool)
	}
	needed := 0
	if i.sealed != nil {
		needed = i.sealed.Cap()
	}
	b.memory.give(i.reserved - needed)
	i.reserved = needed
}

// stage writes a segment's object beforehand, where the storage can, and gives
// back its memory. The push's own segment isn't staged: it has its turn at once,
// and may have to be sent again.
func (b *batch) stage(ctx context.Context, i *item) {
	stager, can := i.repository.Store.(storage.Stager)
	if !can || i.err != nil || i.sealed == nil {
		return
	}
	staged, err := stager.Stage(ctx, i.key, bytes.NewReader(i.sealed.Bytes()))
	b.forget(i)
	if err != nil {
		i.err = err
		return
	}
	i.staged = staged
}

// forget gives back the memory of a segment.
func (b *batch) forget(i *item) {
	if i.sealed != nil {
		b.pool.putBuffer(i.sealed)
		i.sealed = nil
	}
	b.memory.give(i.reserved)
	i.reserved = 0
}

// release ends the work with a segment.
func (b *batch) release(i *item) {
	b.forget(i)
	<-b.slots
	i.close()
}

// follow publishes a segment that was taken along, behind the one before it,
// and remembers that.
func (b *batch) follow(ctx context.Context, i, before *item) error {
	if i.err != nil {
		return i.err
	}
	if !i.summary.Ending.Complete() {
		return fmt.Errorf("its WAL ends at %s: %s", i.summary.End, i.summary.Problem)
	}
	if err := i.summary.Follows(before.summary); err != nil {
		return err
	}
	if _, err := i.put(ctx); err != nil {
		return err
	}
	return b.Done.add(i.repository.Info.ID, i.name, i.identity)
}

// budget is an amount of memory that is taken and given back.
type budget struct {
	mu    sync.Mutex
	freed *sync.Cond
	left  int
}

func newBudget(size int) *budget {
	b := &budget{left: size}
	b.freed = sync.NewCond(&b.mu)
	return b
}

// take waits until there is as much. Whoever takes several times does so in
// the order in which it gives back.
func (b *budget) take(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.left < n {
		b.freed.Wait()
	}
	b.left -= n
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.freed.Broadcast()
}
