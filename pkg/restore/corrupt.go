package restore

import (
	"errors"
	"fmt"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

// A segment whose object is corrupt isn't absent: a server that fetches it gets
// an error, and ends. What lies before it can be reached.

// markCorrupt remembers that a segment can't be fetched, which reading it or
// its header has shown.
func (w *way) markCorrupt(n uint64, err error) {
	if w.corrupt == nil {
		w.corrupt = map[uint64]error{}
	}
	if w.corrupt[n] == nil {
		w.corrupt[n] = err
	}
}

// cutCorrupt ends the way before the first segment that is known as corrupt. It
// reports whether the way became shorter.
func (w *way) cutCorrupt() bool {
	end := w.end
	for n := range w.corrupt {
		if n >= w.first && n < w.end {
			w.end, w.broken = n, ""
		}
	}
	return w.end < end
}

// sound does what reads the WAL of the way, and again whenever a segment turned
// out to be corrupt: now that this is known, the way ends before that.
func (w *way) sound(do func() error) error {
	err := do()
	for errors.Is(err, object.ErrCorrupt) && w.cutCorrupt() {
		err = do()
	}
	return err
}

// consistent tells whether the way has all WAL of the backup.
func (w *way) consistent() bool { return w.end > wal.SegmentNumber(w.stop-1, w.size) }

// judgeCorrupt names the segment that ends the way because its object is
// corrupt, for a recovery that comes there.
func (p *Plan) judgeCorrupt(w *way) {
	why := w.corrupt[w.end]
	if why == nil || p.export && w.consistent() {
		return
	}
	text := fmt.Sprintf("WAL segment %s can't be fetched, and recovery ends with an error there, at %s: %v; look for a copy of that object, or ",
		w.name(w.end), wal.LSN(w.end*w.size), why)
	if !w.consistent() {
		p.Problems = append(p.Problems, text+fmt.Sprintf("take another --backup: this one isn't consistent before %s", w.stop))
		return
	}
	text += "choose a target before it"
	if p.EndsAt != 0 {
		text += fmt.Sprintf("; the WAL before it ends at %s: %s", p.EndsAt, lastCommit(p.LastIn))
	}
	p.Problems = append(p.Problems, text)
}
