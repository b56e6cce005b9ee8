package restore

import (
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/walship/walship/pkg/pgdata"
)

// combined is one file that is put together from the blocks that several
// backups have of it, the newest first. One goroutine at a time may use it.
type combined struct {
	name string
	// base is the backup of the chain that has the file whole; -1 as long as it
	// isn't known. pieceOf is the oldest in which something of it was found.
	base, pieceOf int

	blocks   uint32   // that the file has
	wanted   uint32   // blocks from here on aren't taken from older backups
	have     []uint64 // a bit for each block that is written; nil: none is
	checksum []byte   // of the whole file, once it is complete
}

// stretchBlocks is how many blocks are copied at once.
const stretchBlocks = 32

func (f *combined) size() int64 { return int64(f.blocks) * pgdata.BlockSize }

func (f *combined) has(block uint32) bool {
	return f.have != nil && f.have[block/64]&(1<<(block%64)) != 0
}

func (f *combined) mark(block uint32) {
	if f.have == nil {
		f.have = make([]uint64, (f.blocks+63)/64)
	}
	f.have[block/64] |= 1 << (block % 64)
}

// begin writes the blocks that the newest backup has into the new file, and
// gives it its length. What nobody writes is zero.
func (f *combined) begin(file *os.File, content io.Reader, name string, expected *manifestFile) error {
	return f.blocksOf(file, content, name, expected, func(i pgdata.Incremental) (func(uint32) bool, error) {
		f.blocks, f.wanted = i.FileBlocks(), i.Length
		return func(uint32) bool { return true }, file.Truncate(f.size())
	})
}

// fill writes the blocks that an older backup has and no newer one.
func (f *combined) fill(file *os.File, content io.Reader, name string, expected *manifestFile) error {
	var length uint32
	err := f.blocksOf(file, content, name, expected, func(i pgdata.Incremental) (func(uint32) bool, error) {
		length = i.FileBlocks()
		return func(block uint32) bool { return block < f.wanted && !f.has(block) }, nil
	})
	// Here the file ended. What a still older backup has behind that was cut
	// off since, even if the file has grown again.
	f.wanted = min(f.wanted, length)
	return err
}

// blocksOf reads an incremental file and writes those of its blocks that take
// asks for. header sees what the file's header says, and returns take.
func (f *combined) blocksOf(file *os.File, content io.Reader, name string, expected *manifestFile,
	header func(pgdata.Incremental) (take func(uint32) bool, err error)) error {
	check := expected.checker()
	src := io.TeeReader(content, check.tee(io.Discard))
	i, err := pgdata.ReadIncremental(src)
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	if expected.size != i.Size() {
		return fmt.Errorf("file %q has %d bytes, for %d blocks it should have %d", name, expected.size, len(i.Blocks), i.Size())
	}
	take, err := header(i)
	if err != nil {
		return fmt.Errorf("write file %q: %w", f.name, err)
	}
	buffer := make([]byte, min(stretchBlocks, len(i.Blocks))*pgdata.BlockSize)
	for rest := i.Blocks; len(rest) > 0; {
		now := rest[:min(stretchBlocks, len(rest))]
		rest = rest[len(now):]
		data := buffer[:len(now)*pgdata.BlockSize]
		if _, err := io.ReadFull(src, data); err != nil {
			return fmt.Errorf("read file %q: %w", name, err)
		}
		if err := f.write(file, now, data, take); err != nil {
			return fmt.Errorf("write file %q: %w", f.name, err)
		}
	}
	return check.check(name)
}

// write writes blocks, those that lie side by side at once.
func (f *combined) write(file *os.File, blocks []uint32, data []byte, take func(uint32) bool) error {
	for n := 0; n < len(blocks); {
		end := n
		for end < len(blocks) && blocks[end] == blocks[n]+uint32(end-n) && take(blocks[end]) {
			end++
		}
		if end == n { // it isn't taken
			n++
			continue
		}
		if _, err := file.WriteAt(data[n*pgdata.BlockSize:end*pgdata.BlockSize], int64(blocks[n])*pgdata.BlockSize); err != nil {
			return err
		}
		for _, block := range blocks[n:end] {
			f.mark(block)
		}
		n = end
	}
	return nil
}

// finish writes what the backup that has the whole file has and no newer one,
// and takes the checksum of the result as it goes.
func (f *combined) finish(file *os.File, content io.Reader, name string, expected *manifestFile, algorithm pgdata.ChecksumAlgorithm) error {
	check, sum := expected.checker(), algorithm.New()
	src := io.TeeReader(content, check.tee(io.Discard))
	whole := uint32(min(expected.size/pgdata.BlockSize, int64(f.wanted))) // blocks that may come from here
	// Most files are small, and there may be very many.
	buffer := make([]byte, min(stretchBlocks, f.blocks)*pgdata.BlockSize)
	for at := uint32(0); at < f.blocks; {
		n := min(stretchBlocks, f.blocks-at)
		data := buffer[:n*pgdata.BlockSize]
		clear(data)
		if from := min(max(whole, at)-at, n); from > 0 {
			if _, err := io.ReadFull(src, data[:from*pgdata.BlockSize]); err != nil {
				return fmt.Errorf("read file %q: %w", name, err)
			}
		}
		if err := f.merge(file, at, data, whole, sum); err != nil {
			return fmt.Errorf("write file %q: %w", f.name, err)
		}
		at += n
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return fmt.Errorf("read file %q: %w", name, err)
	}
	if sum != nil {
		f.checksum = sum.Sum(nil)
	}
	f.have = nil
	return check.check(name)
}

// merge brings the blocks from at on to what the file is to have: those that
// are written already are read, of the others those before whole are written.
func (f *combined) merge(file *os.File, at uint32, data []byte, whole uint32, sum hash.Hash) error {
	end := at + uint32(len(data)/pgdata.BlockSize)
	for block := at; block < end; {
		first, there := block, f.has(block)
		for block < end && f.has(block) == there && (there || (block < whole) == (first < whole)) {
			block++
		}
		stretch := data[(first-at)*pgdata.BlockSize : (block-at)*pgdata.BlockSize]
		var err error
		switch {
		case there && sum != nil:
			_, err = file.ReadAt(stretch, int64(first)*pgdata.BlockSize)
		case !there && first < whole:
			_, err = file.WriteAt(stretch, int64(first)*pgdata.BlockSize)
		}
		if err != nil {
			return err
		}
	}
	if sum != nil {
		sum.Write(data)
	}
	return nil
}
