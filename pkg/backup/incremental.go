package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// base is what an incremental backup is taken against: what the parent has,
// and what WAL has changed since the parent's redo point.
type base struct {
	parent  *repo.Backup
	files   map[relationFile]struct{} // that the parent has
	changes *wal.Changes
}

// relationFile is a segment of one of a relation's forks, but not of an init fork.
type relationFile struct {
	wal.RelFile
	fork    pgdata.Fork
	segment uint32
}

// followed says which relation's file a path is, if changes of such a file can
// be known.
func followed(name string) (relationFile, bool) {
	p := pgdata.ClassifyPath(name)
	if p.Kind != pgdata.KindRelation || p.Fork == pgdata.ForkInit || p.Temporary {
		return relationFile{}, false
	}
	return relationFile{wal.RelFile{Tablespace: p.Tablespace, Database: p.Database, Number: p.Relation}, p.Fork, p.Segment}, true
}

// notIncremental is why a backup is taken whole instead of incrementally.
type notIncremental struct{ why string }

func (e *notIncremental) Error() string { return e.why }

func wholef(format string, args ...any) error { return &notIncremental{fmt.Sprintf(format, args...)} }

// chooseParent settles on the backup that this one is based on. Without a
// usable one the backup is a full one, and says why; a parent that was named
// must be usable.
func (r *run) chooseParent(ctx context.Context) error {
	if !r.options.Incremental {
		return nil
	}
	parent, err := r.findParent(ctx)
	if parent != nil {
		r.record.Parent = parent.AsParent()
		r.base = &base{parent: parent}
	}
	return r.settleParent(err)
}

// settleParent says what comes of it where no parent was found.
func (r *run) settleParent(err error) error {
	var whole *notIncremental
	switch {
	case errors.As(err, &whole) && r.options.Parent != "":
		return fmt.Errorf("backup %s can't be the parent: %w", r.options.Parent, err)
	case errors.As(err, &whole):
		r.takeWhole(err)
		return nil
	case err != nil:
		return fmt.Errorf("choose the parent of an incremental backup: %w", err)
	}
	return nil
}

// takeWhole makes the backup a full one.
func (r *run) takeWhole(why error) {
	r.log.Warn("taking a full backup instead of an incremental one", "reason", why.Error())
	r.base, r.record.Parent = nil, nil
}

// findParent returns the newest usable backup on the way to this one.
func (r *run) findParent(ctx context.Context) (*repo.Backup, error) {
	if r.control.BlockSize != pgdata.BlockSize || r.control.RelSegSize != pgdata.SegmentBlocks {
		return nil, wholef("the server was built with blocks of %d bytes and segments of %d blocks, and only %d and %d are known",
			r.control.BlockSize, r.control.RelSegSize, pgdata.BlockSize, pgdata.SegmentBlocks)
	}
	refs, err := r.repository.Backups(ctx, r.record.SystemID)
	if err != nil {
		return nil, err
	}
	if r.options.Parent != "" {
		refs = slices.DeleteFunc(refs, func(ref repo.BackupRef) bool { return ref.ID != r.options.Parent })
	}
	if len(refs) == 0 {
		return nil, wholef("the repository has no such backup of cluster %d", r.record.SystemID)
	}
	if r.history, err = r.readHistory(ctx); err != nil {
		return nil, err
	}
	sort.Slice(refs, func(i, j int) bool { return refs[i].StopLSN > refs[j].StopLSN })
	var reasons []string
	for _, ref := range refs {
		b, err := r.usable(ctx, ref)
		var whole *notIncremental
		if !errors.As(err, &whole) {
			return b, err
		}
		reasons = append(reasons, err.Error())
	}
	const most = 3
	if n := len(reasons); n > most {
		reasons = append(reasons[:most], fmt.Sprintf("and %d more", n-most))
	}
	return nil, wholef("%s", strings.Join(reasons, "; "))
}

// usable reads the record of a backup that may become the parent.
func (r *run) usable(ctx context.Context, ref repo.BackupRef) (*repo.Backup, error) {
	if ref.StopLSN > r.record.StartLSN || !r.history.Contains(ref.Timeline, ref.StartLSN) || !r.history.Contains(ref.Timeline, ref.StopLSN-1) {
		return nil, wholef("backup %s, from %s to %s on timeline %d, isn't on the way to %s on timeline %d",
			ref.ID, ref.StartLSN, ref.StopLSN, uint32(ref.Timeline), r.record.StartLSN, uint32(r.record.Timeline))
	}
	b, err := r.repository.Backup(ctx, ref)
	if err != nil {
		return nil, err
	}
	child := r.record
	child.Parent = b.AsParent()
	chain, err := repo.Chain(ctx, r.repository.Backup, &child)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, wholef("%s", strings.TrimPrefix(err.Error(), fmt.Sprintf("backup %s is based on ", child.ID)))
	}
	for _, link := range chain[:len(chain)-1] {
		lost, err := r.repository.Lost(ctx, link)
		if err != nil {
			return nil, err
		}
		if lost != "" {
			return nil, wholef("backup %s can't be restored: %s", link.ID, lost)
		}
	}
	return chain[len(chain)-2], nil
}

// readHistory reads the way to the timeline that the backup is taken on.
func (r *run) readHistory(ctx context.Context) (wal.History, error) {
	if r.record.Timeline == 1 {
		return wal.History{Timeline: 1}, nil
	}
	h, err := r.repository.History(ctx, r.record.SystemID, r.record.Timeline)
	if err != nil {
		return wal.History{}, wholef("the history of timeline %d can't be read: %v", uint32(r.record.Timeline), err)
	}
	return h, nil
}

// compareParent finds out what has changed since the parent. Where that can't
// be known, the backup becomes a full one.
func (r *run) compareParent(ctx context.Context) error {
	if r.base == nil {
		return nil
	}
	err := r.readParent(ctx, func() visitFile {
		r.base.files = make(map[relationFile]struct{})
		return func(_ string, f relationFile) { r.base.files[f] = struct{}{} }
	})
	if err == nil {
		r.base.changes, err = r.readChanges(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && r.base.changes.Minimal {
		err = wholef("wal_level was minimal at some time since the parent")
	}
	if err != nil {
		r.takeWhole(err)
	}
	return nil
}

// visitFile is told of a file that is followed and that a backup has, whole or
// incrementally, by the path that it has in a data directory.
type visitFile func(name string, f relationFile)

// readParent finds out which files the parent has: this host may remember it,
// else the parent's manifest says so. begin is called before each attempt.
func (r *run) readParent(ctx context.Context, begin func() visitFile) error {
	if r.state != nil {
		err := recall(r.state, r.base.parent, begin())
		if err == nil {
			return nil
		}
		r.log.Info("this host doesn't remember what the parent has", "parent", r.base.parent.ID, "reason", err)
	}
	if err := r.openManifest(ctx, r.base.parent, begin()); err != nil {
		return fmt.Errorf("what the parent has can't be read: %w", err)
	}
	return nil
}

// openManifest reads a backup's manifest.
func (r *run) openManifest(ctx context.Context, b *repo.Backup, visit visitFile) error {
	want := repo.ManifestHeader(b.SystemID, b.ID)
	var err error
	if want.Digest, err = object.ParseDigest(b.Manifest.PlainDigest); err != nil {
		return err
	}
	want.PlainSize = b.Manifest.PlainSize
	body, _, err := r.repository.Store.Get(ctx, b.Manifest.Key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	content, err := r.repository.Opener.Open(body, want)
	if err != nil {
		return err
	}
	defer content.Close()
	manifest, err := pgdata.ReadManifest(content, pgdata.ManifestLimits{})
	if err != nil {
		return err
	}
	for f, err := range manifest.Files() {
		if err != nil {
			return err
		}
		if name, incremental := pgdata.CutIncremental(f.Path); incremental && b.Parent != nil {
			f.Path = name
		}
		if file, ok := followed(f.Path); ok {
			visit(f.Path, file)
		}
	}
	if _, err := manifest.Finish(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, content) // to its end, where it is checked
	return err
}

// decide says which blocks of a file have to be stored, or nil where it has to
// be stored whole: rule 25 in docs/postgres-rules.md.
func (b *base) decide(name string, size int64) *pgdata.Incremental {
	file, ok := followed(name)
	length := size / pgdata.BlockSize
	if _, there := b.files[file]; !ok || !there || length == 0 || length > pgdata.SegmentBlocks || size%pgdata.BlockSize != 0 {
		return nil
	}
	if file.fork != pgdata.ForkMain {
		// WAL doesn't name all changed blocks of a map, but always one of the
		// main fork with it.
		if b.changes.Touches(file.RelFile) {
			return nil
		}
		return &pgdata.Incremental{Length: uint32(length)}
	}
	first := uint64(file.segment) * pgdata.SegmentBlocks
	if first+pgdata.SegmentBlocks > 1<<32-1 { // where block numbers end
		return nil
	}
	blocks, whole := b.changes.Blocks(nil, file.RelFile, uint32(first), uint32(first)+pgdata.SegmentBlocks)
	// Blocks that WAL names behind the file's end were cut off since the
	// backup started, which replaying that does again.
	behind, _ := slices.BinarySearch(blocks, uint32(length))
	blocks = blocks[:behind]
	if whole || int64(len(blocks))*10 > length*9 {
		return nil
	}
	return &pgdata.Incremental{Blocks: blocks, Length: uint32(length)}
}

// writeIncremental adds the changed blocks of a file. What was cut off
// meanwhile is replaced by zeros, as in a file that is copied whole. A file of
// which nothing has changed isn't even opened.
func (p *partWriter) writeIncremental(ctx context.Context, e entry) error {
	changed := e.changed
	h := p.run.header(pgdata.IncrementalName(e.name), e.mode, changed.Size(), e.modified)
	var src *source
	if len(changed.Blocks) > 0 {
		var err error
		if src, err = e.open(); src == nil || err != nil {
			return err
		}
		defer src.file.Close()
	}
	sink, err := p.add(h)
	if err != nil {
		return err
	}
	if _, err := sink.Write(changed.AppendHeader(nil)); err != nil {
		return fmt.Errorf("copy %s: %w", e.name, err)
	}
	for _, s := range stretches(changed.Blocks) {
		missing, err := p.copyRange(ctx, sink, src, s.from*pgdata.BlockSize, s.to*pgdata.BlockSize)
		if err == nil {
			err = sink.pad(missing, p.buffer)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", e.name, err)
		}
	}
	p.run.dataSize.Add(int64(changed.FileBlocks()) * pgdata.BlockSize)
	e.tree.bytes.Add(int64(changed.FileBlocks()) * pgdata.BlockSize)
	return sink.close()
}

// stretch is a number of blocks that lie side by side, from one up to another.
type stretch struct{ from, to int64 }

// stretches puts ascending blocks together.
func stretches(blocks []uint32) []stretch {
	var all []stretch
	for _, block := range blocks {
		if n := len(all) - 1; n >= 0 && int64(block) == all[n].to {
			all[n].to++
			continue
		}
		all = append(all, stretch{int64(block), int64(block) + 1})
	}
	return all
}
