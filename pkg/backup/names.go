package backup

import (
	"errors"
	"io"
	"iter"
	"os"
	"slices"
)

const (
	// mostNames is how many bytes the names may take that one reading of a
	// directory is for. While it is read, up to twice as many are held. The
	// names of fifty thousand relations fit.
	mostNames = 2 << 20
	// nameOverhead is what a name takes beside its bytes, roughly.
	nameOverhead = 32
)

// sortedNames lists a directory in the order of names, so that two backups of
// the same files are cut into the same parts. One whose names take more than
// most bytes is read several times, each time for the names that come next, so
// that memory doesn't follow their number. A name that was listed twice,
// because its file was replaced meanwhile, comes once. An error comes last.
func sortedNames(dir *os.Root, most int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for last, more := "", true; more; {
			next := lowestNames{most: most}
			if err := next.read(dir, last); err != nil {
				yield("", err)
				return
			}
			for _, name := range next.names {
				if !yield(name, nil) {
					return
				}
				last = name
			}
			more = next.limit != ""
		}
	}
}

// lowestNames are the first of a directory's names.
type lowestNames struct {
	most  int // bytes that they take in the end, unless it is a single name
	names []string
	size  int    // bytes that they take
	limit string // the first one that was left out; "": none was
}

// read reads a directory for the names behind last, and puts them in order.
func (l *lowestNames) read(dir *os.Root, last string) error {
	opened, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer opened.Close()
	for err == nil {
		const atOnce = 1024
		var names []string
		names, err = opened.Readdirnames(atOnce)
		for _, name := range names {
			if name > last {
				l.add(name)
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	l.cut()
	return nil
}

func (l *lowestNames) add(name string) {
	if l.limit != "" && name >= l.limit {
		return
	}
	l.names = append(l.names, name)
	if l.size += len(name) + nameOverhead; l.size >= 2*l.most {
		l.cut()
	}
}

// cut puts the names in order, and leaves out what is too much.
func (l *lowestNames) cut() {
	slices.Sort(l.names)
	l.names = slices.Compact(l.names)
	l.size = 0
	for i, name := range l.names {
		size := l.size + len(name) + nameOverhead
		if i > 0 && size > l.most {
			l.limit = name
			clear(l.names[i:])
			l.names = l.names[:i]
			return
		}
		l.size = size
	}
}
