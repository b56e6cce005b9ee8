package pgdata

import "golang.org/x/sys/cpu"

// mixRows mixes rows of 32-bit numbers into the lanes of a checksum, one number
// of each row into each lane. The size of rows is a multiple of 128 bytes.
func mixRows(sums *[checksumLanes]uint32, rows []byte) {
	if cpu.X86.HasAVX2 {
		mixRowsAVX2(sums, rows)
		return
	}
	mixRowsGeneric(sums, rows)
}

// mixRowsAVX2 is written out because Go's compiler doesn't use vectors.
//
//go:noescape
func mixRowsAVX2(sums *[checksumLanes]uint32, rows []byte)
