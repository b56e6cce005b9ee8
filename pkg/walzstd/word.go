package walzstd

import "encoding/binary"

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }

func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

func alignUp(n, to int) int { return (n + to - 1) &^ (to - 1) }

// equal64 returns which of the first 64 bytes of a and b are equal, the first one's bit
// being the lowest.
func equal64(a, b []byte) uint64 {
	a, b = a[:64], b[:64]
	return zero8(load64(a, 0)^load64(b, 0)) |
		zero8(load64(a, 8)^load64(b, 8))<<8 |
		zero8(load64(a, 16)^load64(b, 16))<<16 |
		zero8(load64(a, 24)^load64(b, 24))<<24 |
		zero8(load64(a, 32)^load64(b, 32))<<32 |
		zero8(load64(a, 40)^load64(b, 40))<<40 |
		zero8(load64(a, 48)^load64(b, 48))<<48 |
		zero8(load64(a, 56)^load64(b, 56))<<56
}

// zero8 returns which bytes of x are zero, as 8 bits.
func zero8(x uint64) uint64 {
	const low7 = 0x7f7f7f7f7f7f7f7f
	high := ^((x&low7 + low7) | x | low7) // 0x80 for a zero
	return high >> 7 * 0x0102040810204080 >> 56
}
