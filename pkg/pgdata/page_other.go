//go:build !amd64

package pgdata

// mixRows mixes rows of 32-bit numbers into the lanes of a checksum, one number
// of each row into each lane. The size of rows is a multiple of 128 bytes.
func mixRows(sums *[checksumLanes]uint32, rows []byte) { mixRowsGeneric(sums, rows) }
