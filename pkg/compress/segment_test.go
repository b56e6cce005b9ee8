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

func segmentFrame(t *testing.T, level compress.Level, processors int, hurry bool, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewSegmentWriter(&b, level, processors, hurry)
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

// The other levels are one encoder as Fastest is, and slow under the race
// detector; see TestToolReadsSegmentWriter.
func TestSegmentWriter(t *testing.T) {
	for i := range 4 {
		level, hurry := []compress.Level{compress.Fastest, compress.Default}[i%2], i > 1
		for _, processors := range []int{0, 1, 3} { // 0 is 1
			for _, size := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 4 << 20} {
				if size > 1<<20 && processors == 0 {
					continue
				}
				data := pieces(size, 3000)
				stored := segmentFrame(t, level, processors, hurry, data)
				got, err := read(bytes.NewReader(stored))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, hurry %t, %d processors, %d bytes: %d come back, %v", level, hurry, processors, size, len(got), err)
				}
			}
		}
	}
	if _, err := compress.NewSegmentWriter(io.Discard, compress.Level(9), 1, false); err == nil {
		t.Error("NewSegmentWriter takes level 9")
	}
}

// The Default level is that of Fastest where it gains nothing, and not where it
// does.
func TestSegmentChoice(t *testing.T) {
	size := func(level compress.Level, data []byte) int { return len(segmentFrame(t, level, 1, false, data)) }
	inHurry := func(level compress.Level, data []byte) int { return len(segmentFrame(t, level, 1, true, data)) }
	even, far := pieces(4<<20, 20), pieces(4<<20, 6000)
	if fastest, chosen := size(compress.Fastest, even), size(compress.Default, even); chosen != fastest {
		t.Errorf("what the fastest encoder makes small is %d bytes with the default, %d with it", chosen, fastest)
	}
	if fastest, chosen := size(compress.Fastest, far), size(compress.Default, far); chosen > fastest*95/100 {
		t.Errorf("what the fastest encoder makes large is %d bytes with the default, %d with it", chosen, fastest)
	}
	if fastest, hurried := size(compress.Fastest, far), inHurry(compress.Default, far); hurried != fastest {
		t.Errorf("in a hurry the default makes %d bytes, and the fastest encoder %d", hurried, fastest)
	}
}

func TestSegmentWriterAgain(t *testing.T) {
	for _, processors := range []int{1, 2} {
		t.Run(fmt.Sprint(processors), func(t *testing.T) {
			data := pieces(3<<20, 2000)
			want := segmentFrame(t, compress.Default, processors, false, data)
			w, err := compress.NewSegmentWriter(io.Discard, compress.Default, processors, false)
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
