package backup

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
)

const (
	// tarOverhead is what an entry takes of a tar beside its content,
	// roughly: its header, and the padding of the content.
	tarOverhead = 1024
	// leastPart is the size in bytes, before compression, below which it
	// isn't worth while to give the rest of a cluster to more workers.
	leastPart = 16 << 20
	// largeFile is the size in bytes from which on a file is copied before
	// all smaller ones, so that no worker comes to it when the others are
	// about to end. There is one such file in 64 MiB of a cluster at most, so
	// they can be remembered.
	largeFile = 64 << 20
	// The first mostLarger files of largerFile bytes and more are copied before
	// all smaller ones, too: an incremental backup seldom has larger ones.
	largerFile = 1 << 20
	mostLarger = 1_000
	// mostEntries bounds the memory that a part takes before it is written.
	mostEntries = 2_000
)

// part is a piece of work: the entries that make up one tar.
type part struct {
	number  int
	entries []entry
}

// plan hands out parts of what is listed: the largest files first, then the
// others in the order of their names.
func (r *run) plan(ctx context.Context, listing *listing, next func(part) error) error {
	survey, err := r.survey(listing)
	if err != nil {
		return err
	}
	r.progress.total.Store(survey.bytes)
	c := cutter{most: r.options.PartSize, workers: int64(r.options.Concurrency), left: survey.bytes + survey.entries*tarOverhead, next: next}
	for _, e := range survey.large {
		if err := c.add(r.decide(e.entry)); err != nil {
			return err
		}
	}
	large := survey.large
	slices.SortFunc(large, func(a, b largeEntry) int { return cmp.Compare(a.name, b.name) })
	err = r.again(ctx, survey, func(e entry) error {
		if _, done := slices.BinarySearchFunc(large, e.name, func(l largeEntry, name string) int { return cmp.Compare(l.name, name) }); done {
			return nil
		}
		return c.add(r.decide(e))
	})
	if err != nil {
		return err
	}
	return c.hand()
}

// survey is what a look at a cluster told, before the first file is copied.
type survey struct {
	bytes   int64 // of the files
	entries int64
	large   []largeEntry // from the largest on
	kept    [][]byte     // all pieces of the listing; nil: it was too long
}

// largeEntry is a file that is copied before others, as it was listed. Which
// blocks of it have changed is asked again when its turn comes: lists for all
// such files would take 4 bytes for each changed block of the cluster.
type largeEntry struct {
	entry
	stored int64 // bytes that are going to be stored of it
}

// survey looks at all that is listed, before any file is read.
func (r *run) survey(listing *listing) (*survey, error) {
	s := &survey{}
	trees, size := r.trees(), 0
	for piece := range listing.pieces {
		_ = unpack(trees, piece, func(e entry) error {
			stored := r.decide(e).size
			s.bytes += stored
			s.entries++
			if stored >= min(largeFile, r.options.PartSize) || stored >= largerFile && len(s.large) < mostLarger {
				s.large = append(s.large, largeEntry{e, stored})
			}
			return nil
		})
		if size += len(piece); size <= r.mostKept {
			s.kept = append(s.kept, piece)
		} else {
			s.kept = nil
		}
	}
	slices.SortStableFunc(s.large, func(a, b largeEntry) int { return cmp.Compare(b.stored, a.stored) })
	return s, listing.err
}

// again calls visit for all that was listed. Where that couldn't be kept, the
// cluster is walked anew; what is left out has been said.
func (r *run) again(ctx context.Context, s *survey, visit func(entry) error) error {
	if s.kept == nil {
		return r.walk(ctx, slog.New(slog.DiscardHandler), visit)
	}
	trees := r.trees()
	for _, piece := range s.kept {
		if err := unpack(trees, piece, visit); err != nil {
			return err
		}
	}
	return nil
}

// walk lists all that belongs to the backup apart from its last part.
func (r *run) walk(ctx context.Context, log *slog.Logger, emit func(entry) error) error {
	skip, err := r.insideData()
	if err != nil {
		return err
	}
	inPlace := make(map[string]bool)
	for _, t := range r.tablespaces {
		if t.inPlace {
			inPlace[t.location] = true
		}
	}
	w := walker{major: r.major, version: r.version, skip: skip, inPlace: inPlace, workers: r.options.Concurrency, log: log, emit: emit}
	if err := w.data(ctx, &r.data); err != nil {
		return err
	}
	for _, t := range r.tablespaces {
		if err := w.tablespace(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// decide settles what is stored of a file that was listed.
func (r *run) decide(e entry) entry {
	if r.base != nil {
		if e.changed = r.base.decide(e.name, e.size); e.changed != nil {
			e.size = e.changed.Size()
		}
	}
	return e
}

// cutter makes parts of entries. Parts become smaller towards the end, so that
// all workers end at about the same time.
type cutter struct {
	most    int64 // size of a part, in bytes
	workers int64
	left    int64 // bytes that haven't been handed out, as far as is known
	next    func(part) error

	part part
	size int64
}

func (c *cutter) add(e entry) error {
	grows := e.size + tarOverhead
	if c.size > 0 && c.size+grows > c.wanted() || len(c.part.entries) == mostEntries {
		if err := c.hand(); err != nil {
			return err
		}
	}
	c.part.entries = append(c.part.entries, e)
	c.size += grows
	return nil
}

// wanted is the size at which the part that is being made is full.
func (c *cutter) wanted() int64 {
	return min(c.most, max(leastPart, c.left/(2*c.workers)))
}

// hand hands the part out and begins the next one.
func (c *cutter) hand() error {
	full := c.part
	full.number++
	c.left -= c.size
	c.part, c.size = part{number: full.number}, 0
	return c.next(full)
}
