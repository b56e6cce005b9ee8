package compress_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/walship/walship/pkg/compress"
)

var levels = []compress.Level{compress.Fastest, compress.Default, compress.Better, compress.Best}

// sample returns n bytes that compress somewhat.
func sample(n int) []byte {
	random := rand.New(rand.NewChaCha8([32]byte{7}))
	data := make([]byte, n)
	for i := range data {
		if i%64 < 16 {
			data[i] = byte(random.Uint32())
		} else {
			data[i] = byte(i >> 8)
		}
	}
	return data
}

func frame(t testing.TB, level compress.Level, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(src io.Reader) ([]byte, error) {
	r, err := compress.NewReader(src, compress.MaxWindow)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	for _, level := range levels {
		for _, size := range []int{0, 1, 100, 128<<10 - 1, 128 << 10, 128<<10 + 1, compress.MaxWindow + 3} {
			if size > compress.MaxWindow && level != compress.Default {
				continue // slow under the race detector, and the same code
			}
			t.Run(fmt.Sprintf("%s %d", level, size), func(t *testing.T) {
				data := sample(size)
				stored := frame(t, level, data)
				got, err := read(bytes.NewReader(stored))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read %d bytes of %d: %v", len(got), size, err)
				}
				if size > 100<<10 {
					return
				}
				got, err = read(iotest.OneByteReader(bytes.NewReader(stored)))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read byte by byte: %d bytes of %d: %v", len(got), size, err)
				}
			})
		}
	}
}

func TestResetAfterAnything(t *testing.T) {
	data := sample(300 << 10)
	want := frame(t, compress.Default, data)
	w, err := compress.NewWriter(io.Discard, compress.Default)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(sample(200 << 10)); err != nil { // given up in the middle
		t.Fatal(err)
	}
	for range 2 {
		var b bytes.Buffer
		w.Reset(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatal("a Writer used again writes another frame than a new one")
		}
	}
}

// TestNarrow looks at what decoders have to provide for a frame.
func TestNarrow(t *testing.T) {
	const window = 256 << 10
	data := sample(3 * window)
	for _, level := range []compress.Level{compress.Fastest, compress.Default} { // the others are slow
		var b bytes.Buffer
		w, err := compress.NewNarrowWriter(&b, level, window)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for stored, fits := range map[*bytes.Buffer]bool{&b: true, bytes.NewBuffer(frame(t, level, data)): false} {
			r, err := compress.NewReader(stored, window)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if fits != (err == nil && bytes.Equal(got, data)) {
				t.Errorf("%s: %d bytes of %d in a window of %d: %v", level, len(got), len(data), window, err)
			}
			r.Close()
		}
	}
}

func TestLevels(t *testing.T) {
	for _, level := range levels {
		if got, err := compress.ParseLevel(level.String()); err != nil || got != level {
			t.Errorf("ParseLevel(%q) = %v, %v", level, got, err)
		}
	}
	for _, name := range []string{"", "Default", "3", "Level(9)"} {
		if level, err := compress.ParseLevel(name); err == nil {
			t.Errorf("ParseLevel(%q) = %v", name, level)
		}
	}
	if _, err := compress.NewWriter(io.Discard, compress.Level(9)); err == nil {
		t.Error("NewWriter takes level 9")
	}
}

func TestCutFrame(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 300 << 10} {
		stored := frame(t, compress.Default, sample(size))
		step := max(1, len(stored)/200)
		for n := 0; n < len(stored); n += step {
			if _, err := read(bytes.NewReader(stored[:n])); err == nil {
				t.Fatalf("size %d: %d bytes of %d are accepted", size, n, len(stored))
			}
		}
		for n := len(stored) - 8; n < len(stored); n++ {
			if _, err := read(bytes.NewReader(stored[:n])); err == nil {
				t.Fatalf("size %d: %d bytes of %d are accepted", size, n, len(stored))
			}
		}
	}
}

func TestDataBehindFrame(t *testing.T) {
	stored := frame(t, compress.Default, sample(1000))
	var skippable bytes.Buffer
	if err := compress.WriteSkippable(&skippable, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, tail := range map[string][]byte{
		"one byte":        {0},
		"three bytes":     {0x28, 0xb5, 0x2f},
		"text":            []byte("tail\n"),
		"another frame":   frame(t, compress.Default, []byte("more")),
		"skippable frame": skippable.Bytes(),
	} {
		if _, err := read(io.MultiReader(bytes.NewReader(stored), bytes.NewReader(tail))); err == nil {
			t.Errorf("%s behind the frame is accepted", name)
		}
	}
	if _, err := read(io.MultiReader(&skippable, bytes.NewReader(stored))); err == nil {
		t.Error("a skippable frame before the frame is accepted")
	}
}

func TestForeignFrames(t *testing.T) {
	data := make([]byte, 9<<20)
	copy(data, sample(1000))
	encode := func(options ...zstd.EOption) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, options...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	single, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, bits byte) []byte {
		stored := frame(t, compress.Default, sample(1000))
		stored[at] |= bits
		return stored
	}
	for name, stored := range map[string][]byte{
		"window too large":         encode(zstd.WithWindowSize(16 << 20)),
		"single segment too large": single.EncodeAll(data, nil),
		"no checksum":              encode(zstd.WithEncoderCRC(false)),
		"dictionary":               encode(zstd.WithEncoderDictRaw(5, sample(1000))),
		"reserved bit":             changed(4, 0x08),
		"empty":                    nil,
		"text":                     []byte("not a zstd frame\n"),
	} {
		if _, err := read(bytes.NewReader(stored)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got, err := read(bytes.NewReader(encode(zstd.WithWindowSize(compress.MaxWindow)))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the greatest window is refused: %v", err)
	}
}

// TestSourceError: fault 13, an error of the source isn't taken for the end of
// the content, wherever it comes.
func TestSourceError(t *testing.T) {
	stored := frame(t, compress.Default, sample(1000))
	for _, broken := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF} {
		for n := 0; n <= len(stored); n++ {
			_, err := read(io.MultiReader(bytes.NewReader(stored[:n]), iotest.ErrReader(broken)))
			if err == nil {
				t.Fatalf("%v after %d bytes of %d is taken for the end", broken, n, len(stored))
			}
			if broken != io.ErrUnexpectedEOF && !errors.Is(err, broken) {
				t.Fatalf("error after %d bytes of %d: %v, want %v", n, len(stored), err, broken)
			}
		}
	}
}

// TestMemoryFollowsWindow: fault 51, a small object that unpacks to a large
// content costs no more memory than any other.
func TestMemoryFollowsWindow(t *testing.T) {
	const size = 96 << 20
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, compress.Default)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := compress.NewReader(&b, compress.MaxWindow)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, zeros)
	runtime.ReadMemStats(&after)
	if err != nil || n != size {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 5*compress.MaxWindow {
		t.Errorf("reading allocated %d bytes", used)
	}
}

func TestSkippable(t *testing.T) {
	for _, payload := range []string{"", "x", "a record\n"} {
		var b bytes.Buffer
		if err := compress.WriteSkippable(&b, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		stored := append(b.Bytes(), "behind"...)
		if !compress.IsSkippable(stored) {
			t.Errorf("IsSkippable(% x) = false", stored)
		}
		src := bytes.NewReader(stored)
		got, err := compress.ReadSkippable(src, len(payload))
		if err != nil || string(got) != payload {
			t.Errorf("ReadSkippable = %q, %v, want %q", got, err, payload)
		}
		if rest, _ := io.ReadAll(src); string(rest) != "behind" {
			t.Errorf("what is left behind the frame: %q", rest)
		}
		for n := range len(stored) - len("behind") {
			if _, err := compress.ReadSkippable(bytes.NewReader(stored[:n]), 100); err == nil {
				t.Errorf("%d bytes of a frame are accepted", n)
			}
		}
		if _, err := compress.ReadSkippable(bytes.NewReader(stored), len(payload)-1); err == nil {
			t.Error("a payload over the limit is accepted")
		}
	}
	if compress.IsSkippable([]byte{0x57, 0x2A, 0x4D}) || compress.IsSkippable(frame(t, compress.Default, nil)) {
		t.Error("IsSkippable of something else")
	}
	if _, err := compress.ReadSkippable(bytes.NewReader(frame(t, compress.Default, sample(100))), 1000); err == nil {
		t.Error("ReadSkippable takes a zstd frame")
	}
}

func FuzzReader(f *testing.F) {
	for _, size := range []int{0, 1, 500, 200 << 10} {
		for _, level := range levels {
			f.Add(frame(f, level, sample(size)))
		}
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		r, err := compress.NewReader(bytes.NewReader(stored), compress.MaxWindow)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		data, err := io.ReadAll(io.LimitReader(r, 4<<20))
		if err != nil || len(data) == 4<<20 {
			return
		}
		// What is accepted is one whole frame to the library too.
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		if all, err := dec.DecodeAll(stored, nil); err != nil || !bytes.Equal(all, data) {
			t.Fatalf("the library reads %d bytes, %v; the Reader %d", len(all), err, len(data))
		}
		again, err := read(bytes.NewReader(frame(t, compress.Default, data)))
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("compressed again: %v", err)
		}
	})
}
