package walzstd

import "math/bits"

const (
	maxStates = 1 << 9
	// minLog is the smallest size of a table that can be described, as its
	// logarithm.
	minLog = 5
)

// table codes numbers below 64 with finite state entropy, RFC 8878, 4.1: a code's
// share of the states follows from how often it occurs.
type table struct {
	counts [64]uint32 // how often each code occurs

	log    uint8 // of the number of states; 0 if there is one code, which takes no bits
	last   int   // the greatest code
	shares [64]uint16
	states [maxStates]uint16 // of each code one after the other
	codes  [64]transition
}

// transition is what a code does to the state: how many bits of it are
// written, ((state+bits)>>16), and where its next states are, behind what is left of it.
type transition struct {
	bits  uint32
	shift int32
}

// build makes the table for what was counted.
func (t *table) build(maxLog int) {
	total, different := uint32(0), 0
	for i, n := range t.counts {
		if n > 0 {
			total += n
			different++
			t.last = i
		}
	}
	if different == 1 {
		t.log = 0
		t.states[0] = 0
		t.codes[t.last] = transition{}
		return
	}
	// A quarter of the numbers, rounded down to a power of two; and more states than codes.
	log := max(min(bits.Len32(total-1)-3, maxLog), bits.Len(uint(different)), minLog)
	t.log = uint8(log)
	t.share(total)
	t.spread()
	t.connect()
}

// share gives each code its share of the states, at least one.
func (t *table) share(total uint32) {
	left := 1 << t.log
	for i := range t.last + 1 {
		t.shares[i] = 0
		if n := t.counts[i]; n > 0 {
			t.shares[i] = max(1, uint16((uint64(n)<<t.log+uint64(total)/2)/uint64(total)))
			left -= int(t.shares[i])
		}
	}
	for left != 0 { // off by some, through rounding
		largest := 0
		for i := range t.last + 1 {
			if t.shares[i] > t.shares[largest] {
				largest = i
			}
		}
		// Never so many that it has none, or that another would have been better.
		change := max(left, -int(t.shares[largest]+3)/4)
		t.shares[largest] = uint16(int(t.shares[largest]) + change)
		left -= change
	}
}

// spread puts the codes' states into the order in which the decoder has them.
func (t *table) spread() {
	var symbols [maxStates]uint8
	size := 1 << t.log
	step := size>>1 + size>>3 + 3
	at := 0
	var next [64]uint16 // where the next state of a code is
	sum := uint16(0)
	for i := range t.last + 1 {
		next[i] = sum
		sum += t.shares[i]
		for range t.shares[i] {
			symbols[at] = uint8(i)
			at = (at + step) & (size - 1)
		}
	}
	for state := range size {
		i := symbols[state]
		t.states[next[i]] = uint16(size + state)
		next[i]++
	}
}

// connect makes the transitions.
func (t *table) connect() {
	before := int32(0) // states of the codes before
	for i := range t.last + 1 {
		share := int32(t.shares[i])
		if share == 0 {
			continue
		}
		// A state keeps as many bits as bring it below twice the share.
		most := uint32(t.log)
		if share > 1 {
			most -= uint32(bits.Len32(uint32(share-1)) - 1)
		}
		t.codes[i] = transition{most<<16 - uint32(share)<<most, before - share}
		before += share
	}
}

// first returns the state to begin with, for the last code.
func (t *table) first(code uint32) uint32 {
	c := t.codes[code&63]
	count := (c.bits + 1<<15) >> 16
	return uint32(t.states[int32((count<<16-c.bits)>>count)+c.shift])
}

// mode returns how the table is told, RFC 8878, 3.1.1.3.2.1.
func (t *table) mode() byte {
	if t.log == 0 {
		return 1
	}
	return 2
}

// describe appends the table's description, RFC 8878, 4.1.1.
func (t *table) describe(out []byte) []byte {
	if t.log == 0 {
		return append(out, byte(t.last))
	}
	w := bitWriter{out: out}
	w.put(uint32(t.log)-minLog, 4)
	left := 1<<t.log + 1
	for i := 0; left > 1; i++ {
		share := int(t.shares[i])
		// Numbers up to left are possible; the lowest of them take a bit less.
		width := bits.Len(uint(left))
		short := 1<<width - 1 - left
		switch n := share + 1; {
		case n < short:
			w.put(uint32(n), width-1)
		case n < 1<<(width-1):
			w.put(uint32(n), width)
		default:
			w.put(uint32(n+short), width)
		}
		left -= share
		if share > 0 {
			continue
		}
		// How many further codes have no share, three at a time.
		zeros := 0
		for t.shares[i+1+zeros] == 0 {
			zeros++
		}
		i += zeros
		for ; zeros >= 3; zeros -= 3 {
			w.put(3, 2)
		}
		w.put(uint32(zeros), 2)
	}
	return w.end()
}

// bitWriter appends numbers of some bits each, the lowest bits first.
type bitWriter struct {
	out    []byte
	word   uint64
	filled int
}

func (w *bitWriter) put(n uint32, width int) {
	w.word |= uint64(n) << w.filled
	for w.filled += width; w.filled >= 8; w.filled -= 8 {
		w.out = append(w.out, byte(w.word))
		w.word >>= 8
	}
}

func (w *bitWriter) end() []byte {
	if w.filled > 0 {
		w.out = append(w.out, byte(w.word))
	}
	return w.out
}
