package wal

import "hash/crc32"

// dataCRC takes the first bytes out of a CRC-32C over length bytes.
func dataCRC(crc uint32, first []byte, length int64) uint32 {
	return crc ^ shiftCRC(crc32.Update(0, castagnoli, first), length-int64(len(first)))
}

// combineCRC returns the CRC-32C of two pieces from their CRCs and the bytes
// of the second.
func combineCRC(first, second uint32, length int64) uint32 {
	return shiftCRC(first, length) ^ second
}

// shiftCRC multiplies a CRC-32C by x^(8·length), modulo the polynomial.
func shiftCRC(crc uint32, length int64) uint32 {
	power := uint32(1) << (31 - 8) // x^8, in the CRC's reflected order of bits
	for ; length > 0; length >>= 1 {
		if length&1 != 0 {
			crc = multiplyCRC(crc, power)
		}
		power = multiplyCRC(power, power)
	}
	return crc
}

// multiplyCRC multiplies two polynomials over GF(2) modulo CRC-32C's, both
// with the coefficient of x^0 in the highest bit.
func multiplyCRC(a, b uint32) uint32 {
	product := uint32(0)
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if carry := b & 1; carry != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
