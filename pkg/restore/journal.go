package restore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/repo"
)

// journal remembers what was in each part that has come whole: the names of
// its files, and of its directories with a slash behind them. A restore that
// goes on, or that starts from the same backup again, needn't fetch a part all
// of whose files are there. It isn't trusted for more than that: whether they
// are there is seen from their content.
type journal struct {
	state *os.Root
	dir   string
}

// openJournal opens the journal of a backup, and removes those of others.
func openJournal(state *os.Root, backup string) (*journal, error) {
	entries, err := fs.ReadDir(state.FS(), partsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != backup {
			if err := state.RemoveAll(path.Join(partsName, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	j := &journal{state, path.Join(partsName, backup)}
	return j, durable.MkdirAll(state, j.dir, 0o700)
}

// A name can have any byte but this one.
const journalSeparator = "\x00"

// file is called as the part's digest, which a part that has come has shown.
func (j *journal) file(part repo.Object) string { return path.Join(j.dir, part.StoredSHA256) }

// add notes a part that has come whole.
func (j *journal) add(part repo.Object, names []string) error {
	return durable.WriteFile(j.state, j.file(part), []byte(strings.Join(names, journalSeparator)), 0o600)
}

// maxJournal bounds what is read of one part's entry.
const maxJournal = 1 << 30

// names returns what a part had; ok is false for one that isn't noted.
func (j *journal) names(part repo.Object) (names []string, ok bool) {
	file, err := j.state.Open(j.file(part))
	if err != nil {
		return nil, false
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxJournal))
	if err != nil || len(data) == 0 || len(data) == maxJournal {
		return nil, false
	}
	for name := range bytes.SplitSeq(data, []byte(journalSeparator)) {
		names = append(names, string(name))
	}
	return names, true
}
