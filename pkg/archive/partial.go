package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// errBeside means that the repository has another copy of a partial segment, and
// that this one has WAL which isn't in that, or may not be.
var errBeside = errors.New("the repository has another copy of the partial segment")

// comparePartial compares a partial segment with another copy of it, of which the
// repository has the header: servers that followed a timeline stop at different
// places of its last segment. It returns true if all WAL that is here is in that
// one, and errBeside if this one is to be kept, too. Copies that part are neither:
// then the timeline was written by two servers.
func (p *push) comparePartial(ctx context.Context, stored object.Header) (kept bool, err error) {
	if p.name.Kind != wal.KindPartial {
		return false, nil
	}
	here := p.summary
	if here.Empty() {
		return true, nil
	}
	there, err := wal.ParseSummary(stored.Fields)
	if err != nil || there.Ending == 0 || here.End == there.End || p.name.Offset != 0 {
		return false, nil //nolint:nilerr // what can't be read is another copy
	}
	var agree bool
	switch {
	case there.Empty():
		agree = true
	case there.End < here.End:
		agree, err = there.Begins(p.content())
	case p.readable():
		kept, err = p.isIn(ctx)
		return kept, err
	default:
		// Which records are in that one can't be read on this host, only where
		// it begins.
		agree = here.Records == 0 || here.First == there.First && here.Prev == there.Prev
	}
	if err == nil && agree {
		err = errBeside
	}
	return false, err
}

// readable tells whether this host can read the repository's objects.
func (p *push) readable() bool {
	opener := p.repository.Opener
	return !opener.Encrypted || opener.Identities != nil
}

// isIn tells whether the stored copy begins with the WAL of this one.
func (p *push) isIn(ctx context.Context) (bool, error) {
	body, _, err := p.repository.Store.Get(ctx, p.key, 0, -1)
	if err != nil {
		return false, fmt.Errorf("compare: %w", err)
	}
	defer body.Close()
	stored, err := p.repository.Opener.Open(body, repo.Header(p.o.SystemID, p.name))
	if err != nil {
		return false, fmt.Errorf("compare: read %s: %w", p.key, err)
	}
	defer stored.Close()
	in, err := p.summary.Begins(stored)
	if err != nil {
		return false, fmt.Errorf("compare: read %s: %w", p.key, err)
	}
	return in, nil
}

// putBeside stores a partial segment whose name another copy has, under a name
// that says where its WAL ends, too.
func (p *push) putBeside(ctx context.Context) (Pushed, error) {
	p.o.Log.Warn("another server archived this partial segment with more WAL or less: this copy is kept beside that",
		"segment", p.name.Segment().String(), "end", p.summary.End.String())
	size := uint64(p.header.PlainSize)
	p.name.Offset = uint32(p.summary.End - p.name.Start(size))
	p.key = p.repository.FileKey(p.o.SystemID, p.name)
	p.begin(p.header.PlainSize)
	if err := p.prepare(ctx, &packers{sealer: p.repository.Sealer, processors: p.o.Processors}); err != nil {
		return Pushed{}, localError{err} // to try again isn't to prepare it again
	}
	return p.put(ctx)
}
