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
func (p *push) compare(ctx context.Context, src source) error {
	if p.name.Kind == wal.KindTimelineHistory {
		return p.compareHistory(ctx, src)
	}
	header, err := p.storedHeader(ctx)
	if err != nil {
		return err
	}
	want := src.header
	if header.Repository != p.repository.Info.ID || header.Kind != want.Kind || header.SystemID != want.SystemID || header.Name != want.Name {
		return fmt.Errorf("%w: object %s in the repository is damaged or was renamed: its header says %s %s of cluster %d",
			ErrConflict, p.key, header.Kind, header.Name, header.SystemID)
	}
	digest, err := digestOf(src, header.Digest.Algorithm)
	if err != nil {
		return err
	}
	if header.PlainSize == want.PlainSize && header.Digest.Algorithm == digest.Algorithm && bytes.Equal(header.Digest.Sum, digest.Sum) {
		return nil
	}
	if p.sameWAL(src.summary, header.Fields) {
		return nil
	}
	return fmt.Errorf("%w: object %s in the repository has other content (%s, here %s): another server archives under this cluster's name; "+
		"stop one of them, and give a copy that was promoted or cloned a repository of its own", ErrConflict, p.key, header.Digest, digest)
}

// sameWAL says whether the stored segment has the same records up to the same
// end: a standby's copy may differ behind the last of them. A segment that
// doesn't end as a complete one does proves nothing that way, unless it is a
// partial one.
func (p *push) sameWAL(here wal.Summary, stored []wal.Field) bool {
	if !here.Ending.Complete() && (p.name.Kind != wal.KindPartial || here.Records == 0) {
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

// digestOf takes the digest of a source by the algorithm that another object
// names.
func digestOf(src source, algorithm string) (object.Digest, error) {
	if src.header.Digest.Algorithm == algorithm {
		return src.header.Digest, nil
	}
	hash, err := object.NewHash(algorithm)
	if err != nil {
		return object.Digest{}, fmt.Errorf("compare: %w", err)
	}
	if _, err := io.Copy(hash, src.open()); err != nil {
		return object.Digest{}, fmt.Errorf("compare: %w", err)
	}
	return object.Digest{Algorithm: algorithm, Sum: hash.Sum(nil)}, nil
}

func (p *push) compareHistory(ctx context.Context, src source) error {
	there, err := p.repository.HistoryFile(ctx, p.systemID, p.name.Timeline)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if bytes.Equal(src.data, there) {
		return nil
	}
	return fmt.Errorf("%w: object %s in the repository has other content: another server chose timeline %d too; "+
		"give one of the two a repository of its own, or let one be rebuilt from the other", ErrConflict, p.key, p.name.Timeline)
}
