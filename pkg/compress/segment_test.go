package compress_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/walship/walship/pkg/compress"
)

// pieces returns n bytes, made of words that each come back now and then: the
// more words there are, the farther a match is, and the more of them the fastest
// encoder forgets.
func pieces(n, words int) []byte {
	const length = 24
	random := rand.New(rand.NewChaCha8([32]byte{9}))
	text := make([]byte, words*length)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	var data []byte
	for len(data) < n {
		at := random.IntN(words) * length
		data = append(data, text[at:at+length]...)
	}
	return data[:n]
}

func segmentFrame(t *testing.T, level compress.Level, processors int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewSegmentWriter(&b, level, processors)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, iotest.OneByteReader(bytes.NewReader(data[:min(1000, len(data))])), make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(data[min(1000, len(data)):]); err != nil || n != max(0, len(data)-1000) {
		t.Fatalf("Write took %d of %d bytes: %v", n, len(data)-1000, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Best is slow under the race detector; see TestToolReadsSegmentWriter.
func TestSegmentWriter(t *testing.T) {
	for _, level := range []compress.Level{compress.Fastest, compress.Default, compress.Better} {
		for _, processors := range []int{0, 1, 3} { // 0 is 1
			for _, size := range []int{0, 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, 4 << 20} {
				if size > 1<<20 && processors == 0 {
					continue
				}
				data := pieces(size, 3000)
				stored := segmentFrame(t, level, processors, data)
				got, err := read(bytes.NewReader(stored))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, %d processors, %d bytes: %d come back, %v", level, processors, size, len(got), err)
				}
			}
		}
	}
	if _, err := compress.NewSegmentWriter(io.Discard, compress.Level(9), 1); err == nil {
		t.Error("NewSegmentWriter takes level 9")
	}
}

// Best is the stronger encoder of the two.
func TestSegmentBest(t *testing.T) {
	for name, test := range map[string]struct {
		data    []byte
		smaller bool // by the library's encoder
	}{
		"words":  {pieces(3<<20, 9000), true},
		"noise":  {pieces(3<<20, 200_000), false},
		"sample": {pieces(1<<20, 20), false},
		"short":  {pieces(1000, 20), false},
		"empty":  {nil, false},
	} {
		stored := segmentFrame(t, compress.Best, 1, test.data)
		best := len(stored)
		if got, err := read(bytes.NewReader(stored)); err != nil || !bytes.Equal(got, test.data) {
			t.Errorf("%s: other bytes come back (%v)", name, err)
		}
		better := len(segmentFrame(t, compress.Better, 1, test.data))
		if best > better || test.smaller && best > better/2 {
			t.Errorf("%s: best makes %d bytes, better %d", name, best, better)
		}
	}
}

func TestSegmentWriterAgain(t *testing.T) {
	for _, processors := range []int{1, 2} {
		t.Run(fmt.Sprint(processors), func(t *testing.T) {
			data := pieces(3<<20, 2000)
			want := segmentFrame(t, compress.Default, processors, data)
			w, err := compress.NewSegmentWriter(io.Discard, compress.Default, processors)
			if err != nil {
				t.Fatal(err)
			}
			for _, before := range []func() error{
				func() error { return nil },
				func() error { return writeAll(w, data[:100], false) },
				func() error { return writeAll(w, data, false) },
				func() error { return writeAll(w, data, true) },
				func() error {
					w.Reset(failing{})
					if err := writeAll(w, pieces(6<<20, 9000), true); !errors.Is(err, errFull) {
						return fmt.Errorf("a destination that fails: %w", err)
					}
					return nil
				},
			} {
				w.Reset(io.Discard)
				if err := before(); err != nil {
					t.Error(err)
				}
				var b bytes.Buffer
				w.Reset(&b)
				if err := writeAll(w, data, true); err != nil || !bytes.Equal(b.Bytes(), want) {
					t.Errorf("a SegmentWriter used again writes another frame than a new one (%v)", err)
				}
			}
		})
	}
}

func writeAll(w *compress.SegmentWriter, data []byte, end bool) error {
	_, err := w.Write(data)
	if end {
		err = errors.Join(err, w.Close())
	}
	return err
}

var errFull = errors.New("no room")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }
