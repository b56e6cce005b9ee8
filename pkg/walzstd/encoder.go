// Package walzstd compresses PostgreSQL's write-ahead log into zstd frames (RFC
// 8878), which every zstd decoder opens.
//
// It knows what WAL looks like, and so is quicker and makes most of it smaller than
// an encoder that doesn't: a record resembles the last one of its kind, so the two
// are compared byte by byte at one distance; and what repeats elsewhere, in page
// images for instance, does so where PostgreSQL aligns it. Any other content is
// compressed as well, only not so well.
package walzstd

import (
	"encoding/binary"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Effort says how much time is spent to make the output smaller.
type Effort int

// The efforts. Thorough compares a record with three of its kind, not with one.
const (
	Normal Effort = iota
	Thorough
)

const (
	// Window is the window of the frames in bytes.
	Window    = 1 << windowLog
	windowLog = 19
	// blockSize is the size of all blocks but the last in bytes, the largest
	// there is. It is a multiple of the size of a WAL page.
	blockSize = 128 << 10
)

// Encoder compresses what is written to it into one frame, with a content
// checksum and without the content's size. With two processors a goroutine,
// which runs from the first block until Close or Reset, codes what was found in
// a block while repetitions are looked for in the next; the frame is the same.
type Encoder struct {
	dst    io.Writer
	search search
	coder  coder
	sum    *xxhash.Digest
	block  *block
	begun  bool
	err    error // of dst; nothing is of use until Reset

	// With two processors:
	second *block
	found  chan *block // nil unless the goroutine runs
	coded  chan *block
	ended  chan error
}

// NewEncoder returns an Encoder to w. It allocates 3 MiB, for a second
// processor nearly one more; further ones are of no use.
func NewEncoder(w io.Writer, effort Effort, processors int) *Encoder {
	e := &Encoder{sum: xxhash.New(), block: newBlock()}
	if processors > 1 {
		e.second = newBlock()
	}
	e.search.init(effort)
	e.coder.init()
	e.Reset(w)
	return e
}

// Reset starts a new frame on w, whatever became of the last one, of which nothing
// is written any more when it returns.
func (e *Encoder) Reset(w io.Writer) {
	_ = e.wait() // of a frame that is given up
	e.dst, e.begun, e.err = w, false, nil
	e.search.reset()
	e.coder.reset()
	e.sum.Reset()
}

// Write compresses p. What it makes of it may reach the underlying writer only
// with Close. An error of that one is returned then at the latest, and after it only
// Reset is of use, as after Close.
func (e *Encoder) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if e.search.full() {
			if e.encode(false); e.err != nil {
				return written, e.err
			}
		}
		n := e.search.take(p)
		_, _ = e.sum.Write(p[:n]) // never fails
		p = p[n:]
		written += n
	}
	return written, nil
}

// Close ends the frame. It doesn't close the underlying writer.
func (e *Encoder) Close() error {
	e.encode(true)
	if err := e.wait(); e.err == nil {
		e.err = err
	}
	e.write(binary.LittleEndian.AppendUint32(nil, uint32(e.sum.Sum64())))
	return e.err
}

// encode compresses the block that was taken.
func (e *Encoder) encode(last bool) {
	if !e.begun {
		e.begun = true
		// The magic number; with a checksum, without a dictionary and the content's
		// size; the window.
		e.write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, (windowLog - 10) << 3})
	}
	switch {
	case e.err != nil:
	case e.second == nil:
		e.search.fill(e.block, last)
		e.err = e.put(e.block)
	default:
		if e.found == nil {
			e.start()
		}
		b := <-e.coded
		e.search.fill(b, last)
		e.found <- b
	}
}

// write writes what isn't a block, unless something has failed.
func (e *Encoder) write(p []byte) {
	if e.err == nil {
		_, e.err = e.dst.Write(p)
	}
}

// start starts the goroutine that codes blocks.
func (e *Encoder) start() {
	e.found, e.coded, e.ended = make(chan *block, 1), make(chan *block, 2), make(chan error, 1)
	e.coded <- e.block
	e.coded <- e.second
	go func(found <-chan *block, coded chan<- *block, ended chan<- error) {
		var err error
		for b := range found {
			if err == nil {
				err = e.put(b)
			}
			coded <- b
		}
		ended <- err
	}(e.found, e.coded, e.ended)
}

// wait ends the goroutine, if it runs, and returns its error.
func (e *Encoder) wait() error {
	if e.found == nil {
		return nil
	}
	close(e.found)
	e.found = nil
	return <-e.ended
}

// put codes a block and writes it.
func (e *Encoder) put(b *block) error {
	coded, err := e.coder.code(b)
	if err != nil {
		return err
	}
	_, err = e.dst.Write(coded)
	return err
}
