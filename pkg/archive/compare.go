package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// compare decides what it means that the repository has an object of this
// name already: nil when it is the same file, ErrConflict when it is another.
func (p *push) compare(ctx context.Context) error {
	if p.name.Kind == wal.KindTimelineHistory {
		return p.compareHistory(ctx)
	}
	header, err := p.storedHeader(ctx)
	if err != nil {
		return err
	}
	want := p.header
	if header.Repository != p.repository.Info.ID {
		return fmt.Errorf("%w: object %s was written for another repository: its header says %s, and this one's id is %s",
			ErrConflict, p.key, header.Repository, p.repository.Info.ID)
	}
	if header.Kind != want.Kind || header.SystemID != want.SystemID || header.Name != want.Name {
		return fmt.Errorf("%w: object %s in the repository is damaged or was renamed: its header says %s %s of cluster %d",
			ErrConflict, p.key, header.Kind, header.Name, header.SystemID)
	}
	digest, err := p.digestBy(header.Digest.Algorithm)
	if err != nil {
		return err
	}
	if p.sameContent(header, digest) {
		return nil
	}
	if kept, err := p.comparePartial(ctx, header); kept || err != nil {
		return err
	}
	other := fmt.Sprintf("%s, here %s", header.Digest, digest)
	if where := p.difference(ctx, header); where != "" {
		other = where
	}
	return fmt.Errorf("%w: object %s in the repository has other content (%s): %s archives timeline %d under this cluster's name; "+
		"stop one of them, and give a copy that was promoted or cloned a repository of its own", ErrConflict, p.key, other, p.otherWriter(header), p.name.Timeline)
}

// otherWriter says whose the stored object is, as far as its header knows: one
// that was written before headers named the host doesn't.
func (p *push) otherWriter(stored object.Header) string {
	switch stored.Host {
	case "":
		return "another server"
	case p.o.Host:
		return fmt.Sprintf("another server, on a host of this name (%q),", stored.Host)
	}
	return fmt.Sprintf("another server, on host %q,", stored.Host)
}

// isStored tells, before anything is compressed, whether the repository has the
// same file. What else there is to say, of another one or of damage, the push
// itself will find and say.
func (p *push) isStored(ctx context.Context) bool {
	stored, err := ReadHeader(ctx, p.repository, p.key)
	if err != nil || stored.Repository != p.repository.Info.ID {
		return false
	}
	hash, err := object.NewHash(stored.Digest.Algorithm)
	if err != nil {
		return false
	}
	if err := p.check(io.TeeReader(p.content(), hash)); err != nil {
		return false
	}
	// By now it may have turned out to be a partial segment.
	if want := p.header; stored.Kind != want.Kind || stored.SystemID != want.SystemID || stored.Name != want.Name {
		return false
	}
	p.header.Digest = object.Digest{Algorithm: stored.Digest.Algorithm, Sum: hash.Sum(nil)}
	return p.sameContent(stored, p.header.Digest)
}

// sameContent says whether the stored object is of this file's content, of
// which digest is by the same algorithm, or of the same WAL.
func (p *push) sameContent(stored object.Header, digest object.Digest) bool {
	if stored.PlainSize == p.header.PlainSize && stored.Digest.Equal(digest) {
		return true
	}
	return p.sameWAL(p.summary, stored.Fields)
}

// sameWAL says whether the stored segment has the same records up to the same
// end: a standby's copy may differ behind the last of them. A segment that
// doesn't end as a complete one does proves nothing that way, unless it is a
// partial one.
func (p *push) sameWAL(here wal.Summary, stored []wal.Field) bool {
	if !here.Ending.Complete() && (p.name.Kind != wal.KindPartial || here.Empty()) {
		return false
	}
	there, err := wal.ParseSummary(stored)
	return err == nil && here.SameWAL(there)
}

// storedHeader reads the header of the object that is there.
func (p *push) storedHeader(ctx context.Context) (object.Header, error) {
	header, err := ReadHeader(ctx, p.repository, p.key)
	if errors.Is(err, object.ErrCorrupt) {
		return object.Header{}, fmt.Errorf("%w: object %s in the repository is damaged: %w", ErrConflict, p.key, err)
	}
	if err != nil {
		return object.Header{}, fmt.Errorf("compare: %w", err)
	}
	return header, nil
}

// digestBy takes the content's digest by the algorithm that another object
// names.
func (p *push) digestBy(algorithm string) (object.Digest, error) {
	if p.header.Digest.Algorithm == algorithm {
		return p.header.Digest, nil
	}
	hash, err := object.NewHash(algorithm)
	if err != nil {
		return object.Digest{}, fmt.Errorf("compare: %w", err)
	}
	if _, err := io.Copy(hash, p.content()); err != nil {
		return object.Digest{}, fmt.Errorf("compare: %w", err)
	}
	return object.Digest{Algorithm: algorithm, Sum: hash.Sum(nil)}, nil
}

func (p *push) compareHistory(ctx context.Context) error {
	there, err := p.repository.HistoryFile(ctx, p.o.SystemID, p.name.Timeline)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if bytes.Equal(p.data, there) {
		return nil
	}
	return fmt.Errorf("%w: object %s in the repository has other content (%s there, %s here): another server chose timeline %d too; "+
		"give one of the two a repository of its own, or let one be rebuilt from the other",
		ErrConflict, p.key, forkText(p.name.Timeline, there), forkText(p.name.Timeline, p.data), p.name.Timeline)
}

// forkText says for a message where a timeline begins, by its history file.
func forkText(timeline wal.TimelineID, data []byte) string {
	history, err := wal.ParseHistory(timeline, data)
	if err != nil {
		return "unreadable"
	}
	if len(history.Entries) == 0 {
		return "without a parent"
	}
	parent := history.Entries[len(history.Entries)-1]
	return fmt.Sprintf("from timeline %d at %s", parent.Timeline, parent.Switch)
}
