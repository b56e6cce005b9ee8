package archive

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

// benchmarkFile is a segment to push, and its name: the real one that
// $WALSHIP_BENCH_SEGMENT names, else one that compresses about as well.
func benchmarkFile(b *testing.B) (string, wal.FileName) {
	if path := os.Getenv("WALSHIP_BENCH_SEGMENT"); path != "" {
		name, err := wal.ParseFileName(filepath.Base(path))
		if err != nil {
			b.Fatal(err)
		}
		return path, name
	}
	const size = 16 << 20
	name := wal.SegmentName(1, 16, size)
	h := wal.PageHeader{
		Magic: magic15, Info: wal.LongHeader, Timeline: 1, Address: name.Start(size),
		Long: true, SystemID: cluster, SegmentSize: size, BlockSize: pageSize,
	}
	data := h.AppendHeader(nil)
	random := rand.New(rand.NewPCG(1, 1))
	words := make([]byte, 512)
	for i := range words {
		words[i] = byte(random.Uint32())
	}
	for len(data) < size { // behind no record: old content
		at := random.IntN(len(words) - 40)
		data = append(data, words[at:at+40]...)
		data = append(data, byte(random.Uint32()), byte(random.Uint32()), 0, 0)
	}
	path := filepath.Join(b.TempDir(), name.String())
	if err := os.WriteFile(path, data[:size], 0o600); err != nil {
		b.Fatal(err)
	}
	return path, name
}

// BenchmarkPrepare reads, checks, digests, compresses and encrypts a segment.
func BenchmarkPrepare(b *testing.B) {
	path, name := benchmarkFile(b)
	_, recipient, err := crypto.NewIdentity(false)
	if err != nil {
		b.Fatal(err)
	}
	recipients, err := crypto.ParseRecipients([]string{recipient})
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range []string{"fastest", "default", "better"} {
		level, err := compress.ParseLevel(text)
		if err != nil {
			b.Fatal(err)
		}
		r, err := repo.New(mem.New(), newInfo(true), repo.Keys{Recipients: recipients, Level: level})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			pool := &packers{sealer: r.Sealer}
			b.ReportAllocs()
			stored := 0
			for b.Loop() {
				p := newPush(r, path, name, PushOptions{Log: quiet})
				if err := p.open(); err != nil {
					b.Fatal(err)
				}
				if err := p.prepare(b.Context(), pool); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(p.header.PlainSize)
				stored = p.sealed.Len()
				pool.putBuffer(p.sealed)
				p.close()
			}
			b.ReportMetric(float64(stored), "stored")
		})
	}
}

// BenchmarkStages are the parts of BenchmarkPrepare, one by one.
func BenchmarkStages(b *testing.B) {
	path, name := benchmarkFile(b)
	read := func(b *testing.B, through func(r io.Reader, size int64) error) {
		for b.Loop() {
			file, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			stat, err := file.Stat()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(stat.Size())
			if err := through(file, stat.Size()); err != nil {
				b.Fatal(err)
			}
			file.Close()
		}
	}
	buffer := make([]byte, 256<<10)
	copyTo := func(w io.Writer, r io.Reader) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buffer)
		return err
	}
	b.Run("read", func(b *testing.B) {
		read(b, func(r io.Reader, _ int64) error { return copyTo(io.Discard, r) })
	})
	b.Run("read and check", func(b *testing.B) {
		read(b, func(r io.Reader, size int64) error {
			_, err := wal.Check(r, name, size, 0)
			return err
		})
	})
	b.Run("read and digest", func(b *testing.B) {
		hash, err := object.NewHash(object.Fastest())
		if err != nil {
			b.Fatal(err)
		}
		read(b, func(r io.Reader, _ int64) error {
			hash.Reset()
			return copyTo(hash, r)
		})
	})
	for _, text := range []string{"fastest", "default", "better"} {
		b.Run("read and compress "+text, func(b *testing.B) {
			level, err := compress.ParseLevel(text)
			if err != nil {
				b.Fatal(err)
			}
			w, err := compress.NewSegmentWriter(io.Discard, level, 1)
			if err != nil {
				b.Fatal(err)
			}
			read(b, func(r io.Reader, _ int64) error {
				w.Reset(io.Discard)
				if err := copyTo(w, r); err != nil {
					return err
				}
				return w.Close()
			})
		})
	}
}
