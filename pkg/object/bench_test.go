package object_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/object"
)

// likeWAL returns n bytes that compress about as well as WAL does: pages with
// runs of zeros, repeated structure and noise.
func likeWAL(n int) []byte {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	words := make([][]byte, 400)
	for i := range words {
		words[i] = make([]byte, 4+random.IntN(60))
		for j := range words[i] {
			words[i][j] = byte(random.Uint32())
		}
	}
	data := make([]byte, 0, n+64)
	for len(data) < n {
		data = append(data, words[random.IntN(len(words))]...)
		data = append(data, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()))
		if random.IntN(40) == 0 {
			data = append(data, make([]byte, random.IntN(400))...)
		}
	}
	return data[:n]
}

func BenchmarkSeal16MiB(b *testing.B) {
	content := likeWAL(16 << 20)
	recipients, _ := newKey(b, false)
	for _, level := range []compress.Level{compress.Fastest, compress.Default, compress.Better} {
		b.Run(level.String(), func(b *testing.B) {
			s := &object.Sealer{Repository: "0123456789abcdef", Recipients: recipients, Level: level}
			h := object.Header{Kind: object.KindSegment, SystemID: 1, Name: "000000010000000000000001", PlainSize: int64(len(content)), Digest: object.DigestOf(content)}
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				w, err := s.Seal(io.Discard, h)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(content); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(w.Result().StoredSize)/float64(len(content)), "ratio")
			}
		})
	}
}

func BenchmarkOpen16MiB(b *testing.B) {
	content := likeWAL(16 << 20)
	recipients, identities := newKey(b, false)
	s := &object.Sealer{Repository: "0123456789abcdef", Recipients: recipients}
	h := object.Header{Kind: object.KindSegment, SystemID: 1, Name: "000000010000000000000001", PlainSize: int64(len(content)), Digest: object.DigestOf(content)}
	stored := seal(b, s, h, content)
	o := &object.Opener{Repository: s.Repository, Encrypted: true, Identities: identities}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		r, err := o.Open(bytes.NewReader(stored), h)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
