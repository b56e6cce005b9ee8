package wal

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"testing"
)

// benchmarkSegment is a segment of the kind that pgbench fills: short
// records, a commit among seven. $WALSHIP_BENCH_SEGMENT names a real one.
func benchmarkSegment(b *testing.B) ([]byte, FileName) {
	if path := os.Getenv("WALSHIP_BENCH_SEGMENT"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		header, err := parseLongHeader(data)
		if err != nil {
			b.Fatal(err)
		}
		return data, SegmentName(1<<32-1, SegmentNumber(header.Address, uint64(header.SegmentSize)), uint64(header.SegmentSize))
	}
	w := newWAL(5 * testSegmentSize)
	random := rand.New(rand.NewPCG(1, 1))
	for len(w.data) < testSegmentSize-500 {
		for range 6 {
			w.noop(54 + random.IntN(60))
		}
		w.commit(1, 1)
	}
	w.switchSegment()
	return w.segments()[0], w.name(0)
}

// BenchmarkCheck reads, checks and summarizes a segment. BenchmarkSHA256 is
// what it must not be slower than.
func BenchmarkCheck(b *testing.B) {
	data, name := benchmarkSegment(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	records := uint64(0)
	for b.Loop() {
		s, err := Check(bytes.NewReader(data), name, int64(len(data)), 0)
		if err != nil {
			b.Fatal(err)
		}
		records = s.Records
	}
	b.ReportMetric(float64(records), "records")
}

func BenchmarkRead(b *testing.B) {
	data, _ := benchmarkSegment(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(data))
		for err == nil {
			_, err = r.Next()
		}
	}
}

func BenchmarkSHA256(b *testing.B) {
	data, _ := benchmarkSegment(b)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256.Sum256(data)
	}
}
