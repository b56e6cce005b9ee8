package wal

import (
	"slices"
	"strconv"
	"strings"
)

// maxListed bounds the transactions that a summary lists of each kind.
const maxListed = 64

// Transactions says which transactions the records of some WAL end or prepare.
type Transactions struct {
	// Known tells whether the rest is: early versions of walship didn't note
	// it, and of a record that a boundary cuts, more may matter than is kept.
	Known bool
	// Least and Most span the ids of the transactions that end, with the
	// subtransactions that commit with them; both 0 if there are none. As ids
	// wrap around, Most may be the smaller number.
	Least, Most uint32
	// Prepared are transactions that are prepared here and don't end here,
	// Finished those that end here by COMMIT PREPARED or ROLLBACK PREPARED and
	// aren't prepared here. Unlisted: there are more of them.
	Prepared, Finished []uint32
	Unlisted           bool
}

// Holds tells whether a transaction can be one of those that end. It is true
// where that isn't known.
func (t *Transactions) Holds(xid uint32) bool {
	return !t.Known || t.Most != 0 && int32(xid-t.Least) >= 0 && int32(t.Most-xid) >= 0
}

// add takes in a transaction that ends.
func (t *Transactions) add(xid uint32) {
	if t.Most == 0 {
		t.Least, t.Most = xid, xid
	}
	if int32(xid-t.Least) < 0 {
		t.Least = xid
	}
	if int32(xid-t.Most) > 0 {
		t.Most = xid
	}
}

// prepare takes in a transaction that is prepared.
func (t *Transactions) prepare(xid uint32) {
	t.Prepared = t.list(t.Prepared, xid)
}

// finish takes in the end of a prepared transaction.
func (t *Transactions) finish(xid uint32) {
	if i := slices.Index(t.Prepared, xid); i >= 0 {
		t.Prepared = slices.Delete(slices.Clone(t.Prepared), i, i+1)
		return
	}
	t.Finished = t.list(t.Finished, xid)
}

func (t *Transactions) list(to []uint32, xid uint32) []uint32 {
	if len(to) >= maxListed {
		t.Unlisted = true
		return to
	}
	return append(slices.Clip(to), xid)
}

// append takes in what the WAL behind t's ends and prepares.
func (t *Transactions) append(next Transactions) {
	t.Known = t.Known && next.Known
	t.Unlisted = t.Unlisted || next.Unlisted
	if next.Most != 0 {
		t.add(next.Least)
		t.add(next.Most)
	}
	for _, xid := range next.Finished {
		t.finish(xid)
	}
	for _, xid := range next.Prepared {
		t.prepare(xid)
	}
}

// ended takes in a commit or abort record with that main data, of which only
// the beginning may be there. It reads what Record.ended does, and keeps
// nothing.
func (t *Transactions) ended(action TransactionAction, info uint8, magic uint16, xid uint32, main []byte) {
	cut := cutter{rest: main}
	cut.bytes(8) // time
	flags := uint32(0)
	if info&transactionHasInfo != 0 {
		flags = cut.uint32()
	}
	if flags&hasDatabase != 0 {
		cut.bytes(8)
	}
	if flags&hasSubtransactions != 0 {
		for items := (cutter{rest: cut.items(cut.uint32(), 4)}); len(items.rest) > 0; {
			t.add(items.uint32())
		}
	}
	prepared := action == ActionCommitPrepared || action == ActionAbortPrepared
	if prepared {
		if flags&hasRelFiles != 0 {
			cut.skip(cut.uint32(), relFileSize)
		}
		if flags&hasDroppedStats != 0 {
			if magic == 0 {
				cut.short = true
			}
			cut.skip(cut.uint32(), statsItemSize(magic))
		}
		if flags&hasInvalidations != 0 {
			cut.skip(cut.uint32(), invalidationSize)
		}
		xid = cut.uint32()
	}
	if cut.short {
		t.Known = false
		return
	}
	t.add(xid)
	if prepared {
		t.finish(xid)
	}
}

// fields returns the fields of a context header.
func (t *Transactions) fields() []Field {
	if !t.Known {
		return nil
	}
	fields := []Field{{keyXIDs, strconv.FormatUint(uint64(t.Least), 10) + "/" + strconv.FormatUint(uint64(t.Most), 10)}}
	for _, list := range []struct {
		key  string
		xids []uint32
	}{{keyPrepared, t.Prepared}, {keyFinished, t.Finished}} {
		if len(list.xids) > 0 {
			fields = append(fields, Field{list.key, formatXIDs(list.xids)})
		}
	}
	if t.Unlisted {
		fields = append(fields, Field{keyUnlisted, "yes"})
	}
	return fields
}

func formatXIDs(xids []uint32) string {
	words := make([]string, len(xids))
	for i, xid := range xids {
		words[i] = strconv.FormatUint(uint64(xid), 10)
	}
	return strings.Join(words, ",")
}

func parseXIDs(text string) ([]uint32, error) {
	words := strings.Split(text, ",")
	if len(words) > maxListed {
		return nil, malformed(text)
	}
	xids := make([]uint32, len(words))
	for i, word := range words {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, malformed(text)
		}
		xids[i] = uint32(n)
	}
	if formatXIDs(xids) != text {
		return nil, malformed(text)
	}
	return xids, nil
}

func parseXIDSpan(text string) (span [2]uint32, err error) {
	least, most, _ := strings.Cut(text, "/")
	n, err1 := strconv.ParseUint(least, 10, 32)
	m, err2 := strconv.ParseUint(most, 10, 32)
	span = [2]uint32{uint32(n), uint32(m)}
	if err1 != nil || err2 != nil || strconv.FormatUint(n, 10)+"/"+strconv.FormatUint(m, 10) != text || (n == 0) != (m == 0) {
		return span, malformed(text)
	}
	return span, nil
}

func parseYes(text string) (bool, error) {
	if text != "yes" {
		return false, malformed(text)
	}
	return true, nil
}

// transactions reads what fields writes.
func (p *summaryParser) transactions() (t Transactions) {
	if _, t.Known = p.values[keyXIDs]; !t.Known {
		return t
	}
	span := take(p, keyXIDs, true, parseXIDSpan)
	t.Least, t.Most = span[0], span[1]
	t.Prepared = take(p, keyPrepared, false, parseXIDs)
	t.Finished = take(p, keyFinished, false, parseXIDs)
	t.Unlisted = take(p, keyUnlisted, false, parseYes)
	return t
}
