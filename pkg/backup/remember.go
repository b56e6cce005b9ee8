package backup

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// A host without an identity can't read a backup's manifest, and has to know
// which files the parent of an incremental one has. So it keeps a list of its
// own for the latest backups that it has taken, in its state folder: the digest
// of the manifest, so that it can't be another backup's, and the paths of all
// relations' files, a line for each.

const (
	rememberedPrefix = "backup-"
	rememberedSuffix = ".files.gz"
	// rememberedBackups is how many backups are remembered.
	rememberedBackups = 4
)

func rememberedName(id string) string { return rememberedPrefix + id + rememberedSuffix }

// openState opens the state folder, where there is one.
func (r *run) openState(d Deps) {
	if d.State == nil {
		return
	}
	var err error
	if r.state, err = d.State(r.record.SystemID, r.record.DataDirectory); err != nil {
		r.state = nil
		r.notRemembered(err)
	}
}

// beginRemembering begins to note what the backup has.
func (r *run) beginRemembering() {
	if r.state == nil {
		return
	}
	var err error
	if r.noted, err = newRemember(r.state, r.record.ID); err != nil {
		r.notRemembered(err)
	}
	if r.manifest != nil {
		r.manifest.remember = r.noted
	}
}

// saveRemembered keeps what was noted of a backup that was committed.
func (r *run) saveRemembered() {
	if r.noted == nil {
		return
	}
	if err := r.noted.save(&r.record); err != nil {
		r.notRemembered(err)
	}
}

func (r *run) closeState() {
	r.noted.discard()
	if r.state != nil {
		r.state.Close()
	}
}

// notRemembered says what comes of it; the backup itself is none the worse.
func (r *run) notRemembered(err error) {
	r.log.Warn("what the backup has can't be remembered on this host, so the next one may have to be a full one", "error", err)
}

// remember writes down what is to be known of a backup.
type remember struct {
	state *os.Root
	file  *durable.File
	gzip  *gzip.Writer
	err   error // the first one
}

func newRemember(state *os.Root, id string) (*remember, error) {
	file, err := durable.Create(state, rememberedName(id))
	if err != nil {
		return nil, err
	}
	packed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		file.Discard()
		return nil, err
	}
	return &remember{state: state, file: file, gzip: packed}, nil
}

// add notes a file of the manifest; m may be nil.
func (m *remember) add(name string) {
	if m == nil || m.err != nil {
		return
	}
	if whole, incremental := pgdata.CutIncremental(name); incremental {
		name = whole
	}
	if _, ok := followed(name); ok {
		_, m.err = io.WriteString(m.gzip, name+"\n")
	}
}

// save keeps what was noted, and forgets the oldest backups.
func (m *remember) save(b *repo.Backup) error {
	if m.err != nil {
		return m.err
	}
	if _, err := io.WriteString(m.gzip, endOfFiles+b.Manifest.PlainDigest+"\n"); err != nil {
		return err
	}
	if err := m.gzip.Close(); err != nil {
		return err
	}
	// A loss of power may lose it, and then the next backup is a full one.
	if err := m.file.RenameVolatile(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(m.state.FS(), ".")
	if err != nil {
		return err
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, rememberedPrefix) && strings.HasSuffix(name, rememberedSuffix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names[:max(0, len(names)-rememberedBackups)] {
		err = errors.Join(err, m.state.Remove(name))
	}
	return err
}

// discard forgets a backup that didn't come to its end; m may be nil.
func (m *remember) discard() {
	if m != nil {
		m.file.Discard()
	}
}

// endOfFiles begins the last line of the list, which goes on with the digest of
// the backup's manifest.
const endOfFiles = "manifest "

// recall reads what is remembered of a backup.
func recall(state *os.Root, b *repo.Backup, visit visitFile) error {
	file, err := state.Open(rememberedName(b.ID))
	if err != nil {
		return err
	}
	defer file.Close()
	content, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(content)
	last := ""
	for lines.Scan() {
		if last = lines.Text(); strings.HasPrefix(last, endOfFiles) {
			break
		}
		relation, ok := followed(last)
		if !ok {
			return fmt.Errorf("it lists %q", last)
		}
		visit(last, relation)
	}
	if lines.Scan() {
		return errors.New("something stands behind its end")
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if last != endOfFiles+b.Manifest.PlainDigest {
		return errors.New("it is of another backup")
	}
	return nil
}
