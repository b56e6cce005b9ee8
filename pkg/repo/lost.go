package repo

import (
	"context"
	"fmt"
)

// objects are all that a restore of the backup reads, apart from WAL.
func (b *Backup) objects() []Object {
	objects := append([]Object{b.Manifest}, b.Parts...)
	if b.Configuration != nil {
		objects = append(objects, *b.Configuration)
	}
	return objects
}

// Lost says which object of a backup isn't in the repository any more, or has
// another size than the backup's record says, or "". A listing of the backup's
// folder tells; the objects aren't read.
func (r *Repository) Lost(ctx context.Context, b *Backup) (string, error) {
	sizes := make(map[string]int64, len(b.Parts)+3)
	for info, err := range r.Store.List(ctx, partsPrefix(b.SystemID, b.ID), "") {
		if err != nil {
			return "", fmt.Errorf("list the objects of backup %s: %w", b.ID, err)
		}
		sizes[info.Key] = info.Size
	}
	first, count := "", 0
	for _, o := range b.objects() {
		size, there := sizes[o.Key]
		if there && size == o.StoredSize {
			continue
		}
		if count++; count > 1 {
			continue
		}
		first = o.Key + " isn't in the repository any more"
		if there {
			first = fmt.Sprintf("%s has %d bytes, not %d", o.Key, size, o.StoredSize)
		}
	}
	if count > 1 {
		first += fmt.Sprintf(", and %d more objects like that", count-1)
	}
	return first, nil
}
