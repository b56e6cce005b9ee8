package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
)

// occupant is a cluster that lies where the restore is to go, and that
// Options.Reuse lets it overwrite.
type occupant struct {
	places []string // its data directory, and where its links lead
}

// lookAtOccupant returns the cluster in the plan's data directory; nil when
// there is none. One that isn't a copy of the plan's is refused.
func lookAtOccupant(p *Plan) (*occupant, error) {
	root, err := os.OpenRoot(p.Directory)
	if err != nil {
		return nil, nil // checkPlace judges what is there
	}
	defer root.Close()
	if _, err := root.Lstat(pgdata.ControlFileName); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	control, err := pgdata.ReadControlFile(root)
	if err != nil {
		return nil, refusef("which cluster %s holds can't be seen: %v: move it away, or restore elsewhere", p.Directory, err)
	}
	if control.SystemID != p.SystemID {
		return nil, refusef("%s holds cluster %d, and the backup is of cluster %d: only a copy of the same cluster is overwritten; move the other away, or restore elsewhere",
			p.Directory, control.SystemID, p.SystemID)
	}
	o := &occupant{places: []string{p.Directory}}
	if target, err := root.Readlink(pgdata.WALDir); err == nil {
		if target = filepath.Clean(target); target != p.WALDirectory {
			return nil, refusef("%s of %s is a link to %s: give --waldir %s to use that again, or remove the link", pgdata.WALDir, p.Directory, target, pgdata.ShellWord(target))
		}
		o.places = append(o.places, target)
	}
	for _, t := range p.Tablespaces {
		link := pgdata.TablespaceDir + "/" + strconv.FormatUint(uint64(t.OID), 10)
		if target, err := root.Readlink(link); err == nil {
			o.places = append(o.places, filepath.Clean(target))
		}
	}
	return o, o.checkOriginal(p)
}

// checkOriginal refuses places that the original cluster keeps its own files
// in. A data directory that was copied as it is has the original's links.
func (o *occupant) checkOriginal(p *Plan) error {
	original := p.record.DataDirectory
	if original == "" || sameFile(original, p.Directory) {
		return nil
	}
	links := []string{filepath.Join(original, pgdata.WALDir)}
	spaces := filepath.Join(original, pgdata.TablespaceDir)
	entries, err := os.ReadDir(spaces)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refusef("whether the cluster in %s uses the directories that the links of %s lead to can't be seen: %v", original, p.Directory, err)
	}
	for _, e := range entries {
		links = append(links, filepath.Join(spaces, e.Name()))
	}
	for _, place := range o.places[1:] {
		for _, link := range links {
			if sameFile(link, place) {
				return refusef("%s, which a link of %s leads to, is used by the cluster in %s, too: remove the link, and map the tablespace or pg_wal elsewhere", place, p.Directory, original)
			}
		}
	}
	return nil
}

// sameFile tells whether two paths lead to one file or directory.
func sameFile(a, b string) bool {
	of, err1 := os.Stat(a)
	to, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(of, to)
}

// has tells whether a directory belongs to the cluster.
func (o *occupant) has(path string) bool { return o != nil && slices.Contains(o.places, path) }

// disable makes that the cluster can't be started any more: it has no
// pg_control. A server that is started at this moment is kept off by
// postmaster.pid, by which PostgreSQL itself keeps a second one off.
func (o *occupant) disable(data *os.Root) error {
	const name = pgdata.PostmasterPIDFileName
	// What is there is a crashed server's: checkPlace has seen that none runs.
	if err := data.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	file, err := data.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return refusef("a PostgreSQL server is being started in %s: stop it first", data.Name())
	}
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	if err := data.Remove(pgdata.ControlFileName); err != nil {
		return fmt.Errorf("remove %s: %w", pgdata.ControlFileName, err)
	}
	return durable.SyncDir(data, filepath.Dir(pgdata.ControlFileName))
}
