package search

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
)

const (
	chunkSize   = 256 << 10 // bytes that a download hands over at a time
	chunksAhead = 64        // that it keeps until they are wanted
)

// downloads gets whole segments in a given order, several at once, each only
// so far ahead of its reader that memory stays bounded.
type downloads struct {
	s      *searcher
	ctx    context.Context // of the downloads
	cancel context.CancelFunc
	plan   []uint64 // not begun yet
	queue  []*download
	done   sync.WaitGroup
}

// download is one segment on its way.
type download struct {
	number uint64
	chunks chan []byte // closed behind the last one
	err    error       // valid once chunks is closed
	cancel context.CancelFunc
	rest   []byte // of the chunk that is being read

	failure error // that Read returned
}

func (s *searcher) download(ctx context.Context, numbers []uint64) *downloads {
	ctx, cancel := context.WithCancel(ctx)
	return &downloads{s: s, ctx: ctx, cancel: cancel, plan: numbers}
}

// close gives up what is under way.
func (d *downloads) close() {
	d.cancel()
	d.done.Wait()
}

// take returns a segment's download. Those planned before it are given up.
func (d *downloads) take(number uint64) *download {
	for len(d.queue) > 0 && d.queue[0].number < number {
		d.queue[0].cancel()
		d.queue = d.queue[1:]
	}
	for len(d.plan) > 0 && d.plan[0] < number {
		d.plan = d.plan[1:]
	}
	for len(d.plan) > 0 && len(d.queue) < d.s.options.Concurrency {
		d.queue = append(d.queue, d.begin(d.plan[0]))
		d.plan = d.plan[1:]
	}
	if len(d.queue) == 0 || d.queue[0].number != number {
		return d.begin(number)
	}
	taken := d.queue[0]
	d.queue = d.queue[1:]
	return taken
}

func (d *downloads) begin(number uint64) *download {
	ctx, cancel := context.WithCancel(d.ctx)
	one := &download{number: number, chunks: make(chan []byte, chunksAhead), cancel: cancel}
	d.s.report.Downloaded++
	d.done.Go(func() {
		defer close(one.chunks)
		one.err = d.s.get(ctx, number, one.chunks)
	})
	return one
}

// get reads a segment, opened and checked to its end.
func (s *searcher) get(ctx context.Context, number uint64, chunks chan<- []byte) error {
	name := s.name(number)
	key := s.repository.FileKey(s.query.SystemID, name)
	body, _, err := s.repository.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	content, err := s.repository.Opener.Open(body, repo.Header(s.query.SystemID, name))
	if err != nil {
		return err
	}
	defer content.Close()
	if size := content.Header().PlainSize; size != int64(s.segmentSize) {
		return fmt.Errorf("object %s: %w: its segment has %d bytes, others have %d", key, object.ErrUnsupported, size, s.segmentSize)
	}
	for {
		chunk := make([]byte, chunkSize)
		n, err := io.ReadFull(content, chunk)
		if n > 0 {
			select {
			case chunks <- chunk[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}

// Read returns bytes of the segment, in order.
func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		chunk, more := <-d.chunks
		if !more {
			if d.err != nil {
				d.failure = d.err
				return 0, d.err
			}
			return 0, io.EOF
		}
		d.rest = chunk
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}
