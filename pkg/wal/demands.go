package wal

import (
	"strconv"
	"strings"
)

// Demands are what a server has to be set to, at least, so that it can replay
// WAL with hot standby on: the greatest value that a change of parameters
// there gives each of these settings (CheckRequiredParameterValues in
// src/backend/access/transam/xlogrecovery.c). They are zero for WAL without
// such a change.
type Demands struct {
	MaxConnections          int32
	MaxWorkerProcesses      int32
	MaxWALSenders           int32
	MaxPreparedTransactions int32
	MaxLocksPerTransaction  int32
	// Minimal tells that wal_level was minimal from some point on: no archive
	// recovery goes on behind that.
	Minimal bool
}

// Demands returns what a change of parameters demands.
func (p Parameters) Demands() Demands {
	return Demands{}.Max(Demands{
		p.MaxConnections, p.MaxWorkerProcesses, p.MaxWALSenders, p.MaxPreparedTransactions, p.MaxLocksPerTransaction,
		p.WALLevel == 0,
	})
}

// Max returns what satisfies both.
func (d Demands) Max(other Demands) Demands {
	return Demands{
		max(d.MaxConnections, other.MaxConnections),
		max(d.MaxWorkerProcesses, other.MaxWorkerProcesses),
		max(d.MaxWALSenders, other.MaxWALSenders),
		max(d.MaxPreparedTransactions, other.MaxPreparedTransactions),
		max(d.MaxLocksPerTransaction, other.MaxLocksPerTransaction),
		d.Minimal || other.Minimal,
	}
}

// demandsMinimal is the last word of encoded demands with Minimal.
const demandsMinimal = "minimal"

// encode writes the numbers in order, and perhaps demandsMinimal, separated
// by /.
func (d Demands) encode() string {
	var words []string
	for _, n := range []int32{
		d.MaxConnections, d.MaxWorkerProcesses, d.MaxWALSenders, d.MaxPreparedTransactions, d.MaxLocksPerTransaction,
	} {
		words = append(words, strconv.FormatInt(int64(n), 10))
	}
	if d.Minimal {
		words = append(words, demandsMinimal)
	}
	return strings.Join(words, "/")
}

func parseDemands(text string) (Demands, error) {
	numbers, minimal := strings.CutSuffix(text, "/"+demandsMinimal)
	var n [5]int32
	words := strings.Split(numbers, "/")
	if len(words) != len(n) {
		return Demands{}, malformed(text)
	}
	for i, word := range words {
		value, err := strconv.ParseUint(word, 10, 31)
		if err != nil {
			return Demands{}, malformed(text)
		}
		n[i] = int32(value)
	}
	d := Demands{n[0], n[1], n[2], n[3], n[4], minimal}
	if d == (Demands{}) || d.encode() != text {
		return Demands{}, malformed(text)
	}
	return d, nil
}
