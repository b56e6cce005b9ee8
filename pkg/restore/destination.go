package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
)

// StateDirectory returns the directory beside a restored data directory that
// keeps what walship itself has to remember of it: nothing may be added to
// the data directory, which pg_verifybackup compares with its manifest.
func StateDirectory(dataDirectory string) string { return filepath.Clean(dataDirectory) + ".walship" }

// Names in the state directory.
const (
	markerName        = "restore.json"
	settingsName      = "walship.toml"
	configurationName = "configuration"
)

// unfinishedName is a file in each directory but the data directory, as long
// as the restore isn't done. The marker alone doesn't show that what lies
// there is the restore's: a tablespace's directory may have been given to
// another cluster since the restore was interrupted.
const unfinishedName = ".walship-unfinished"

// SettingsFile returns where Run puts the restored cluster's own walship
// settings.
func SettingsFile(dataDirectory string) string {
	return filepath.Join(StateDirectory(dataDirectory), settingsName)
}

// marker is what restore.json says: which directories a restore fills, and
// whether it has come to its end.
type marker struct {
	Format    int      `json:"format"`
	SystemID  uint64   `json:"system_identifier,string"`
	Backup    string   `json:"backup"`
	Places    []string `json:"places"` // absolute; the data directory first
	Completed bool     `json:"completed"`
}

const maxMarker = 1 << 20

// destination is the set of directories that a restore fills.
type destination struct {
	data    *os.Root
	wal     *os.Root            // nil: in the data directory
	spaces  map[string]*os.Root // by OID
	inPlace map[string]bool     // the OIDs of tablespaces that lie in the data directory
	state   *os.Root
	marker  marker
	major   int
}

func (d *destination) roots() []*os.Root {
	all := []*os.Root{d.data}
	if d.wal != nil {
		all = append(all, d.wal)
	}
	for _, space := range d.spaces {
		all = append(all, space)
	}
	return all
}

func (d *destination) Close() {
	for _, root := range append(d.roots(), d.state) {
		if root != nil {
			root.Close()
		}
	}
}

// prepare checks every directory, then makes them all, empty, and the marker
// before them. It touches nothing unless it can have everything.
func prepare(p *Plan, log *slog.Logger) (*destination, error) {
	if err := p.checkRealPlaces(); err != nil {
		return nil, err
	}
	if err := p.checkCreated(); err != nil {
		return nil, err
	}
	places := p.places()
	old, err := readMarker(p.Directory)
	if err != nil {
		return nil, err
	}
	interrupted := old != nil && !old.Completed && len(old.Places) > 0 && old.Places[0] == p.Directory
	var leftovers []string
	for i, pl := range places {
		ours := interrupted && slices.Contains(old.Places, pl.path)
		used, err := checkPlace(pl, i == 0, ours)
		if err != nil {
			return nil, err
		}
		if used {
			leftovers = append(leftovers, pl.path)
		}
	}
	if len(leftovers) == 0 {
		if err := checkSpace(p); err != nil {
			return nil, err
		}
	}
	d := &destination{spaces: map[string]*os.Root{}, inPlace: map[string]bool{}, major: p.record.ServerVersion / 10000}
	d.marker = marker{Format: 1, SystemID: p.SystemID, Backup: p.record.ID}
	for _, pl := range places {
		d.marker.Places = append(d.marker.Places, pl.path)
	}
	if err := d.openState(p.Directory, old != nil); err != nil {
		d.Close()
		return nil, err
	}
	for _, dir := range leftovers {
		log.Info("removing what an interrupted restore left", "directory", dir)
		if err := empty(dir); err != nil {
			d.Close()
			return nil, err
		}
	}
	if err := errors.Join(checkSpace(p), d.open(p)); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// checkPlace refuses a directory that isn't free for the restore. An
// interrupted one's leftovers (ours) are free as long as they can't have been
// started as a database: used tells that there are some.
func checkPlace(pl place, data, ours bool) (used bool, err error) {
	info, err := os.Lstat(pl.path)
	if errors.Is(err, fs.ErrNotExist) {
		if parent, err := os.Stat(filepath.Dir(pl.path)); err != nil || !parent.IsDir() {
			return false, refusef("%s %s can't be made: %s isn't a directory; make it first", pl.what, pl.path, filepath.Dir(pl.path))
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", pl.what, err)
	}
	if !info.IsDir() {
		return false, refusef("%s %s isn't a directory", pl.what, pl.path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return false, refusef("%s %s belongs to another user (id %d): run the restore as the user that runs the server", pl.what, pl.path, stat.Uid)
	}
	root, err := os.OpenRoot(pl.path)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", pl.what, err)
	}
	defer root.Close()
	pid, running, err := pgdata.Running(root)
	if err != nil {
		return false, fmt.Errorf("look for a server in %s: %w", pl.path, err)
	}
	if running {
		return false, refusef("a PostgreSQL server runs in %s (process %d): stop it and move the directory away, or restore elsewhere", pl.path, pid)
	}
	names, err := readNames(root)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", pl.path, err)
	}
	if len(names) == 0 {
		return false, nil
	}
	if !ours {
		return false, refusef("%s %s isn't empty (it has %s): a restore never writes into an existing directory", pl.what, pl.path, names[0])
	}
	if data {
		if _, err := root.Lstat(pgdata.ControlFileName); !errors.Is(err, fs.ErrNotExist) {
			return false, refusef("%s %s holds a whole cluster: move it away, or restore elsewhere", pl.what, pl.path)
		}
		return true, nil
	}
	if _, err := root.Lstat(unfinishedName); err != nil {
		return false, refusef("%s %s isn't empty (it has %s), and not by the restore into that data directory that was interrupted: move it away, or restore elsewhere", pl.what, pl.path, names[0])
	}
	return true, nil
}

// readNames lists some names in a root.
func readNames(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(8)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// readMarker reads the marker of an earlier restore into a directory; nil
// when there was none.
func readMarker(directory string) (*marker, error) {
	root, err := os.OpenRoot(StateDirectory(directory))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return nil, fmt.Errorf("look at state directory: %w", err)
	}
	// What the marker names may be emptied, so nobody else may have written it.
	if stat, ok := info.Sys().(*syscall.Stat_t); info.Mode()&0o022 != 0 || ok && int(stat.Uid) != os.Geteuid() {
		return nil, refusef("%s isn't this user's alone: move it away, or restore elsewhere", StateDirectory(directory))
	}
	names, err := readNames(root)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", StateDirectory(directory), err)
	}
	// A restore that was killed before it wrote its marker had written
	// nothing else.
	if !slices.ContainsFunc(names, func(name string) bool { return !durable.IsTemporary(name) }) {
		return nil, nil
	}
	file, err := root.Open(markerName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusef("%s isn't walship's: it has files, but no %s; move it away, or restore elsewhere", StateDirectory(directory), markerName)
	}
	if err != nil {
		return nil, fmt.Errorf("open marker of an earlier restore: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxMarker))
	if err != nil {
		return nil, fmt.Errorf("read marker of an earlier restore: %w", err)
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil || m.Format != 1 {
		return nil, refusef("%s can't be understood, it may be another version's: move %s away", markerName, StateDirectory(directory))
	}
	return &m, nil
}

// openState makes the state directory, empties it where an earlier restore
// used it, and writes the marker.
func (d *destination) openState(directory string, reuse bool) error {
	parent, err := os.OpenRoot(filepath.Dir(directory))
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	defer parent.Close()
	name := filepath.Base(StateDirectory(directory))
	if err := durable.MkdirAll(parent, name, 0o700); err != nil {
		return fmt.Errorf("make state directory %s: %w", StateDirectory(directory), err)
	}
	if d.state, err = parent.OpenRoot(name); err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	if err := d.state.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("protect state directory: %w", err)
	}
	if reuse {
		for _, name := range []string{settingsName, configurationName} {
			if err := d.state.RemoveAll(name); err != nil {
				return fmt.Errorf("clear state directory: %w", err)
			}
		}
	}
	return d.writeMarker()
}

func (d *destination) writeMarker() error {
	data, err := json.MarshalIndent(d.marker, "", "  ")
	if err != nil {
		return fmt.Errorf("write marker of the restore: %w", err)
	}
	if err := durable.WriteFile(d.state, markerName, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write marker of the restore: %w", err)
	}
	return nil
}

// open makes the directories where they are missing and opens them.
func (d *destination) open(p *Plan) (err error) {
	if d.data, err = makePlace(p.Directory); err != nil {
		return err
	}
	if p.WALDirectory != "" {
		if d.wal, err = makePlace(p.WALDirectory); err != nil {
			return err
		}
		if err := claim(d.wal); err != nil {
			return err
		}
	}
	for _, t := range p.Tablespaces {
		oid := strconv.FormatUint(uint64(t.OID), 10)
		if t.InPlace {
			d.inPlace[oid] = true
			continue
		}
		space, err := makePlace(t.RestoreTo)
		if err != nil {
			return err
		}
		d.spaces[oid] = space
		if err := claim(space); err != nil {
			return err
		}
	}
	return nil
}

// claim marks a directory as one that the restore fills.
func claim(root *os.Root) error {
	file, err := root.OpenFile(unfinishedName, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("mark %s: %w", root.Name(), err)
	}
	return file.Close()
}

// release takes the marks of claim away.
func (d *destination) release() error {
	for _, root := range d.roots()[1:] {
		if err := errors.Join(root.Remove(unfinishedName), durable.SyncDir(root, ".")); err != nil {
			return fmt.Errorf("remove the mark from %s: %w", root.Name(), err)
		}
	}
	return nil
}

func makePlace(path string) (*os.Root, error) {
	parent, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	defer parent.Close()
	name := filepath.Base(path)
	if err := durable.MkdirAll(parent, name, 0o700); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	if err := root.Chmod(".", 0o700); err != nil {
		root.Close()
		return nil, fmt.Errorf("protect directory %s: %w", path, err)
	}
	return root, nil
}

// empty removes everything in a directory, but not the directory, and not the
// mark that whoever goes on needs to see if this is interrupted.
func empty(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("empty directory %s: %w", path, err)
	}
	defer root.Close()
	for {
		names, err := readNames(root)
		if err != nil {
			return fmt.Errorf("empty directory %s: %w", path, err)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == unfinishedName })
		if len(names) == 0 {
			return nil
		}
		for _, name := range names {
			if err := root.RemoveAll(name); err != nil {
				return fmt.Errorf("empty directory %s: %w", path, err)
			}
		}
	}
}

// checkSpace refuses a restore that its file systems have no room for. They
// are told apart by their device.
func checkSpace(p *Plan) error {
	need := map[string]int64{p.Directory: p.DataSize}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			need[t.RestoreTo] = t.Size
		}
	}
	type demand struct {
		bytes, free int64
		places      []string
	}
	demands := map[uint64]*demand{}
	for path, bytes := range need {
		there := path
		if _, err := os.Stat(there); err != nil {
			there = filepath.Dir(path)
		}
		var stat syscall.Stat_t
		var space syscall.Statfs_t
		if err := errors.Join(syscall.Stat(there, &stat), syscall.Statfs(there, &space)); err != nil {
			return fmt.Errorf("look for room in %s: %w", there, err)
		}
		of := demands[uint64(stat.Dev)]
		if of == nil {
			of = &demand{free: int64(space.Bavail) * int64(space.Bsize)}
			demands[uint64(stat.Dev)] = of
		}
		of.bytes += bytes
		of.places = append(of.places, path)
	}
	for _, of := range demands {
		if of.bytes > of.free {
			slices.Sort(of.places)
			return refusef("the file system of %s has %d bytes free, but the restore needs %d: make room, or restore elsewhere",
				strings.Join(of.places, " and "), of.free, of.bytes)
		}
	}
	return nil
}

// writeState puts a private file into the state directory.
func (d *destination) writeState(name string, data []byte) error {
	if err := durable.WriteFile(d.state, name, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
