package walzstd

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// content makes so many bytes out of choices: WAL as far as an encoder can tell, pages
// with headers and records of a few kinds that go on over pages, and here and
// there what WAL never has, or has in page images. Equal choices make
// equal content.
func content(choices []byte, size int) []byte {
	g := generator{random: rand.New(rand.NewChaCha8(sha256.Sum256(choices))), size: size}
	for len(g.data) < size {
		if len(choices) == 0 {
			g.record(g.random.IntN(8))
			continue
		}
		g.piece(choices[0])
		choices = choices[1:]
	}
	return g.data[:size]
}

type generator struct {
	random *rand.Rand
	data   []byte
	size   int
}

// piece adds what a choice stands for.
func (g *generator) piece(choice byte) {
	n := 1 << (choice & 15) // bytes, up to 32 KiB
	switch choice >> 4 {
	case 0: // nothing that repeats itself
		g.put(g.noise(n))
	case 1:
		g.put(make([]byte, n))
	case 2: // one byte or a few, again and again
		pattern := g.noise(1 + int(choice&7))
		for range n / len(pattern) {
			g.put(pattern)
		}
	case 3: // what was there, from near or far
		if len(g.data) > 0 {
			at := max(0, len(g.data)-1-g.random.IntN(2*Window))
			g.put(g.data[at:min(len(g.data), at+n)])
		}
	case 4: // the same at a distance, but for some bytes
		if distance := 1 + int(choice&15)*37; len(g.data) >= distance {
			for range n {
				next := g.data[len(g.data)-distance]
				if g.random.IntN(6) == 0 {
					next++
				}
				g.data = append(g.data, next)
			}
		}
	case 5: // few different bytes
		for range n {
			g.data = append(g.data, "walship "[g.random.IntN(8)])
		}
	default:
		for range 1 + choice&15 {
			g.record(int(choice >> 4))
		}
	}
}

func (g *generator) noise(n int) []byte {
	noise := make([]byte, n)
	for i := range noise {
		noise[i] = byte(g.random.Uint32())
	}
	return noise
}

// record adds a record of one of 16 kinds, on a boundary of 8 bytes.
func (g *generator) record(kind int) {
	g.put(make([]byte, -len(g.data)&7))
	body := 16 + kind*9
	if kind == 15 {
		body = 9000
	}
	r := make([]byte, recordHeader, recordHeader+body)
	binary.LittleEndian.PutUint32(r, uint32(recordHeader+body))
	binary.LittleEndian.PutUint32(r[4:], uint32(len(g.data)/1000))
	binary.LittleEndian.PutUint64(r[8:], uint64(len(g.data)))
	r[16], r[17] = byte(kind)<<4, 10
	binary.LittleEndian.PutUint32(r[20:], g.random.Uint32())
	r = append(r, 0, 0x60, byte(body), 0, 127, 6, 0, 0, 5, 0, 0, 0, byte(kind), 64, 0, 0)
	for len(r) < recordHeader+body {
		next := byte(len(r) * kind)
		if len(r)%16 == kind {
			next = byte(g.random.Uint32())
		}
		r = append(r, next)
	}
	g.put(r[:recordHeader+body])
}

// put adds data, with the header of each page that begins.
func (g *generator) put(data []byte) {
	for len(data) > 0 {
		if len(g.data)%pageSize == 0 {
			header := make([]byte, shortHeader)
			binary.LittleEndian.PutUint16(header, 0xd110)
			header[2] = firstContinues
			binary.LittleEndian.PutUint64(header[8:], uint64(len(g.data)))
			binary.LittleEndian.PutUint32(header[16:], uint32(len(data)))
			g.data = append(g.data, header...)
		}
		n := min(len(data), pageSize-len(g.data)%pageSize)
		g.data = append(g.data, data[:n]...)
		data = data[n:]
	}
}
