package backup

import (
	"context"
	"encoding/binary"
	"io/fs"
	"time"
)

const (
	// pieceSize is about how many bytes of a listing are handed over at a time.
	pieceSize = 64 << 10
	// piecesAhead is how many of them may wait to be looked at.
	piecesAhead = 16
	// mostKept is how many bytes of a listing are kept. A relation's file takes
	// ten or so.
	mostKept = 4 << 20
)

// listing is a walk that goes on beside other work. What it finds is packed, so
// that a lot of it can be kept.
type listing struct {
	pieces chan []byte // closed at the end
	err    error       // valid once pieces is closed
	cancel context.CancelFunc
}

// list begins to list the cluster. What it leaves out goes to the log.
func (r *run) list(ctx context.Context) *listing {
	ctx, cancel := context.WithCancel(ctx)
	l := &listing{pieces: make(chan []byte, piecesAhead), cancel: cancel}
	go func() {
		defer close(l.pieces)
		p := packer{trees: r.trees()}
		hand := func() error {
			select {
			case l.pieces <- p.piece:
				p = packer{trees: p.trees}
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		l.err = r.walk(ctx, r.log, func(e entry) error {
			p.add(e)
			if len(p.piece) < pieceSize {
				return nil
			}
			return hand()
		})
		if l.err == nil {
			l.err = hand()
		}
	}()
	return l
}

// close gives up what wasn't looked at, and returns when nothing is listed any
// more.
func (l *listing) close() {
	l.cancel()
	for range l.pieces { // until it is closed
	}
}

// trees are all that a backup has files of.
func (r *run) trees() []*tree { return append([]*tree{&r.data}, r.tablespaces...) }

// packer packs entries before it is settled what is stored of them. A name is
// packed as what it doesn't share with the one before.
type packer struct {
	trees []*tree
	piece []byte
	last  entry
}

func (p *packer) add(e entry) {
	if p.piece == nil {
		p.piece = make([]byte, 0, pieceSize+pieceSize/16)
	}
	shared := 0
	for shared < min(len(e.name), len(p.last.name)) && e.name[shared] == p.last.name[shared] {
		shared++
	}
	for i, t := range p.trees {
		if t == e.tree {
			p.piece = binary.AppendUvarint(p.piece, uint64(i))
		}
	}
	p.piece = binary.AppendUvarint(p.piece, uint64(e.mode))
	p.piece = binary.AppendVarint(p.piece, e.modified.Unix()-p.last.modified.Unix())
	p.piece = binary.AppendUvarint(p.piece, uint64(e.size))
	p.piece = binary.AppendUvarint(p.piece, uint64(shared))
	p.piece = binary.AppendUvarint(p.piece, uint64(len(e.name)-shared))
	p.piece = append(p.piece, e.name[shared:]...)
	p.last = e
}

// unpack calls visit for the entries of a piece.
func unpack(trees []*tree, piece []byte, visit func(entry) error) error {
	next := func() uint64 {
		n, size := binary.Uvarint(piece)
		piece = piece[size:]
		return n
	}
	var e entry
	name := make([]byte, 0, 256)
	for len(piece) > 0 {
		e.tree, e.mode = trees[next()], fs.FileMode(next())
		elapsed, size := binary.Varint(piece)
		piece = piece[size:]
		e.modified = time.Unix(e.modified.Unix()+elapsed, 0)
		e.size = int64(next())
		name = name[:next()]
		rest := next()
		name = append(name, piece[:rest]...)
		piece = piece[rest:]
		e.name = string(name)
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}
