package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// difference says, for a message, where the WAL of a segment parts from that
// of the stored one: at which record, if the stored one can be read here, else
// what their headers say. It is "" when nothing can be said.
func (p *push) difference(ctx context.Context, stored object.Header) string {
	if p.name.Kind != wal.KindSegment && p.name.Kind != wal.KindPartial {
		return ""
	}
	if p.readable() {
		if lsn, err := p.parting(ctx); err != nil {
			p.o.Log.Debug("the segments can't be compared record by record", "error", err)
		} else if lsn != 0 {
			return fmt.Sprintf("the first record that differs is at %s", lsn)
		}
	}
	there, err := wal.ParseSummary(stored.Fields)
	if err != nil || there.Ending == 0 {
		return ""
	}
	here := p.summary
	switch {
	case here.First != there.First || here.Prev != there.Prev:
		return fmt.Sprintf("they differ from their first record on, here at %s, there at %s", here.First, there.First)
	case here.End != there.End:
		return fmt.Sprintf("its WAL ends at %s, here at %s", there.End, here.End)
	case here.Records != there.Records:
		return fmt.Sprintf("from %s to %s it has %d records, here %d", here.First, here.End, there.Records, here.Records)
	}
	return fmt.Sprintf("records between %s and %s differ", here.First, here.End)
}

// parting finds the first record in which a segment and the stored one
// differ; 0 if there is none.
func (p *push) parting(ctx context.Context) (wal.LSN, error) {
	body, _, err := p.repository.Store.Get(ctx, p.key, 0, -1)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", p.key, err)
	}
	defer body.Close()
	stored, err := p.repository.Opener.Open(body, repo.Header(p.o.SystemID, p.name))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", p.key, err)
	}
	defer stored.Close()
	return firstDifference(p.content(), stored)
}

// firstDifference compares the records of two copies of one segment.
func firstDifference(one, other io.Reader) (wal.LSN, error) {
	a, err := wal.NewReader(one)
	if err != nil {
		return 0, err
	}
	b, err := wal.NewReader(other)
	if err != nil {
		return 0, err
	}
	for behind := wal.LSN(0); ; {
		here, hereErr := a.Next()
		there, thereErr := b.Next()
		switch {
		case hereErr != nil && thereErr != nil:
			return 0, nil // neither has more
		case hereErr != nil || thereErr != nil:
			return behind, nil // one goes on there
		case here.LSN != there.LSN || !bytes.Equal(here.Data, there.Data):
			return min(here.LSN, there.LSN), nil
		}
		behind = here.Next
	}
}
