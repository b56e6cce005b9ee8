package walzstd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var efforts = []Effort{Normal, Thorough}

// encode compresses the parts one after the other with one write each.
func encode(t testing.TB, e *Encoder, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	e.Reset(&out)
	for _, part := range parts {
		if n, err := e.Write(part); err != nil || n != len(part) {
			t.Fatalf("%d of %d bytes are written: %v", n, len(part), err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newDecoder returns an other's decoder, which allows no larger window.
func newDecoder(t testing.TB) *zstd.Decoder {
	t.Helper()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(Window))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// checker has encoders for all efforts, for one processor and for two.
type checker struct {
	encoders map[Effort][2]*Encoder
	decoder  *zstd.Decoder
}

func newChecker(t testing.TB) checker {
	c := checker{map[Effort][2]*Encoder{}, newDecoder(t)}
	for _, effort := range efforts {
		c.encoders[effort] = [2]*Encoder{NewEncoder(io.Discard, effort, 1), NewEncoder(io.Discard, effort, 2)}
	}
	return c
}

// check compresses data in every way, and decompresses it.
func (c checker) check(t testing.TB, data []byte) {
	t.Helper()
	for effort, encoders := range c.encoders {
		frame := encode(t, encoders[0], data)
		if decoded, err := c.decoder.DecodeAll(frame, nil); err != nil || !bytes.Equal(decoded, data) {
			t.Fatalf("effort %d: %d bytes come back of %d: %v", effort, len(decoded), len(data), err)
		}
		half := len(data) / 2
		if !bytes.Equal(encode(t, encoders[1], data[:half], data[half:]), frame) {
			t.Fatalf("effort %d: two processors make another frame of %d bytes", effort, len(data))
		}
		if most := len(data) + 3*(len(data)/blockSize+1) + 10; len(frame) > most {
			t.Fatalf("effort %d: %d bytes become %d", effort, len(data), len(frame))
		}
	}
}

func TestContents(t *testing.T) {
	c := newChecker(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, choices := range map[string][]byte{
		"WAL":                    nil,
		"every choice":           all,
		"noise":                  bytes.Repeat([]byte{0x0f}, 99),
		"noise and zeros":        bytes.Repeat([]byte{0x0f, 0x1f, 0x0f, 0x0f, 0x0f, 0x0f, 0x1f}, 40),
		"noise and WAL":          bytes.Repeat(append(bytes.Repeat([]byte{0x0f}, 5), bytes.Repeat([]byte{0x9f}, 90)...), 9),
		"noise that comes again": bytes.Repeat([]byte{0x0f, 0x0d, 0x3f, 0x3a, 0x33, 0x32, 0x34}, 90),
		"zeros":                  bytes.Repeat([]byte{0x1f}, 99),
		"patterns":               bytes.Repeat([]byte{0x2f, 0x2e, 0x2d, 0x2c, 0x2b, 0x2a, 0x29, 0x28}, 25),
		"nearly equal":           bytes.Repeat([]byte{0x09, 0x4f, 0x4e, 0x4d, 0x4c, 0x4b, 0x4a, 0x49, 0x48}, 25),
		"few bytes":              bytes.Repeat([]byte{0x5f}, 99),
		"large records":          bytes.Repeat([]byte{0xff, 0x61, 0x71}, 9),
	} {
		t.Run(name, func(t *testing.T) {
			data := content(choices, 20*blockSize+4711)
			for _, size := range []int{len(data), bufferSize, bufferSize + 1, blockSize, blockSize - 1, blockSize + 1, pageSize, 1000} {
				c.check(t, data[:size])
			}
		})
	}
}

// Records that only look as if they were of one kind, with nothing in common, behind noise:
// what stands before them isn't looked at again for each.
func TestFalseKinds(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{8}))
	data := make([]byte, 4*blockSize)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for at := blockSize / 2; at < len(data); at += 128 {
		length := uint32(128)
		if at/128%2 == 1 {
			length = 256
		}
		binary.LittleEndian.PutUint32(data[at:], length)
		binary.LittleEndian.PutUint64(data[at+16:], 0)
		binary.LittleEndian.PutUint64(data[at+32:], uint64(length)<<48) // the same hash
	}
	newChecker(t).check(t, data)
}

func TestSmall(t *testing.T) {
	c := newChecker(t)
	data := content([]byte{0x61, 0x71, 0x09, 0x19, 0x55}, 3000)
	for size := range 300 {
		c.check(t, data[:size])
		c.check(t, data[len(data)-size:])
		c.check(t, bytes.Repeat([]byte{7}, size))
	}
	for size := 1000; size < 1060; size++ { // where literals get a longer header
		c.check(t, content([]byte{0x09, 0x09, 0x09}, size))
		c.check(t, content([]byte{0x5f, 0x5f, 0x5f}, size))
	}
	for _, size := range []int{16383, 16384, 16385, 26000, 40000} {
		c.check(t, content(bytes.Repeat([]byte{0x5f}, 9), size))
	}
}

// What repeats itself at the greatest distance, and just beyond.
func TestWindow(t *testing.T) {
	c := newChecker(t)
	for _, distance := range []int{Window - blockSize, Window - 8, Window, Window + 8, Window + blockSize, 2 * Window} {
		unit := content([]byte{0x0f, 0x0f, 0x0f, 0x0f}, distance)
		c.check(t, bytes.Repeat(unit, 3))
	}
}

// Lengths of literals and matches with every code, and one match over all.
func TestLengths(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{3}))
	var data []byte
	for length := 1; length < 2*blockSize; length += 1 + length/3 {
		noise := make([]byte, length)
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		data = append(data, noise...)
		data = append(data, noise...)
	}
	c := newChecker(t)
	c.check(t, data)
	c.check(t, append(data[:1000:1000], make([]byte, 30*blockSize)...))
}

// Positions are forgotten in very long contents.
func TestLongContent(t *testing.T) {
	data := content(nil, 12*blockSize)
	for _, base := range []int{maxBase, maxBase - pageSize, maxBase - 3*blockSize} {
		e := NewEncoder(io.Discard, Normal, 1)
		var out bytes.Buffer
		e.Reset(&out)
		e.search.base = base
		_, err := e.Write(data)
		if err := errors.Join(err, e.Close()); err != nil {
			t.Fatal(err)
		}
		if decoded, err := newDecoder(t).DecodeAll(out.Bytes(), nil); err != nil || !bytes.Equal(decoded, data) {
			t.Errorf("from %d on, other bytes come back (%v)", base, err)
		}
		if e.search.base > bufferSize {
			t.Errorf("from %d on, positions come to %d", base, e.search.base)
		}
	}
}

// WAL becomes smaller than with the library's own encoder, and smaller the
// longer it takes.
func TestSizes(t *testing.T) {
	data := content(nil, 4<<20)
	var library bytes.Buffer
	w, err := zstd.NewWriter(&library, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(Window))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	most := library.Len()
	for _, effort := range efforts {
		size := len(encode(t, NewEncoder(io.Discard, effort, 1), data))
		t.Logf("effort %d: %d bytes, the library %d", effort, size, library.Len())
		if size >= most {
			t.Errorf("effort %d makes %d bytes, which isn't less than %d", effort, size, most)
		}
		most = size
	}
}

// An Encoder that was used before, and given up anywhere, makes what a new one makes.
func TestReset(t *testing.T) {
	data := content(nil, 7*blockSize+100)
	for i := range 2 * len(efforts) {
		effort, processors := efforts[i/2], 1+i%2
		t.Run(fmt.Sprint(effort, processors), func(t *testing.T) {
			want := encode(t, NewEncoder(io.Discard, effort, 1), data)
			e := NewEncoder(io.Discard, effort, processors)
			for _, size := range []int{0, 1, blockSize, blockSize + 1, len(data)} {
				for _, end := range []bool{false, true} {
					e.Reset(io.Discard)
					_, err := e.Write(content([]byte{0x0f, 0x3f, 0x6f}, size))
					if end {
						err = errors.Join(err, e.Close())
					}
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(encode(t, e, data), want) {
						t.Errorf("after %d bytes, ended: %t, an Encoder makes another frame", size, end)
					}
				}
			}
		})
	}
}

var errFull = errors.New("no room")

// room is a writer with room for so many writes.
type room int

func (r *room) Write(p []byte) (int, error) {
	if *r--; *r < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	data := content(nil, 4*blockSize+100)
	for _, processors := range []int{1, 2} {
		writes := 0
		e := NewEncoder(io.Discard, Normal, processors)
		for n := 0; writes == 0; n++ {
			r := room(n)
			e.Reset(&r)
			_, err := e.Write(data)
			if err == nil {
				err = e.Close()
			}
			if err == nil {
				writes = n
			} else if !errors.Is(err, errFull) {
				t.Fatalf("with room for %d writes: %v", n, err)
			}
		}
		if want := 1 + 5 + 1; writes != want { // header, blocks, checksum
			t.Errorf("%d processors: a frame has %d writes, want %d", processors, writes, want)
		}
	}
}

// The states of a table are all shared out, and each code has one.
func TestShares(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{5}))
	for range 20_000 {
		var table table
		different := 0
		codes := 1 + random.IntN(53)
		for i := range codes {
			if random.IntN(3) > 0 {
				table.counts[i] = uint32(random.Uint64N(1 << random.IntN(18)))
			}
			if table.counts[i] > 0 {
				different++
			}
		}
		if different < 2 {
			continue
		}
		table.build(8 + random.IntN(2))
		sum := 0
		for i, n := range table.counts {
			if (n > 0) != (i <= table.last && table.shares[i] > 0) {
				t.Fatalf("%v: code %d, which occurs %d times, has %d states", table.counts, i, n, table.shares[i])
			}
			if i <= table.last {
				sum += int(table.shares[i])
			}
		}
		if sum != 1<<table.log || table.log < minLog {
			t.Fatalf("%v: %d states of 1<<%d are shared out", table.counts, sum, table.log)
		}
		states := slices.Clone(table.states[:sum])
		slices.Sort(states)
		for i, state := range states {
			if int(state) != sum+i {
				t.Fatalf("%v: the states aren't all there", table.counts)
			}
		}
	}
}

func FuzzEncoder(f *testing.F) {
	for _, size := range []int{0, 1, 33, 1000, pageSize + 7} {
		f.Add(content([]byte{0x61, 0x71, 0x09, 0x19, 0x55}, size))
	}
	c := newChecker(f)
	f.Fuzz(func(t *testing.T, data []byte) { c.check(t, data) })
}

func FuzzContent(f *testing.F) {
	f.Add([]byte(nil), uint(3*pageSize))
	f.Add([]byte{0x0f, 0x1f, 0x2f, 0x3f, 0x4f, 0x5f, 0x6f, 0x7f, 0xff}, uint(2*blockSize))
	c := newChecker(f)
	f.Fuzz(func(t *testing.T, choices []byte, size uint) { c.check(t, content(choices, int(size%(12*blockSize)))) })
}
