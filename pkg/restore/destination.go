package restore

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	partsName         = "parts" // what finished parts had, by backup: see journal
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

// destination is the set of directories that a restore fills.
type destination struct {
	data    *os.Root
	wal     *os.Root            // nil: in the data directory
	spaces  map[string]*os.Root // by OID
	inPlace map[string]bool     // the OIDs of tablespaces that lie in the data directory
	state   *os.Root
	lock    *os.File // of the state directory, as long as this restore runs
	journal *journal
	marker  marker
	major   int
	group   bool // the original's data directory let its group read: see dirPerm
	used    bool // something may be in them already
	// private are the directories, by their names in the backup, that are there
	// already and not the group's.
	private map[string]bool
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
	if d.lock != nil {
		d.lock.Close()
	}
}

// prepare checks every directory, then makes them all and the marker before
// them. It touches nothing unless it can have everything. What lies in them
// already, of an interrupted restore or of the cluster that Options.Reuse lets
// it overwrite, stays for survey to judge.
func prepare(p *Plan, o Options) (*destination, error) {
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
	var before *occupant
	if o.Reuse {
		if before, err = lookAtOccupant(p); err != nil {
			return nil, err
		}
	}
	interrupted := old != nil && !old.Completed && len(old.Places) > 0 && old.Places[0] == p.Directory
	d := &destination{spaces: map[string]*os.Root{}, inPlace: map[string]bool{}, private: map[string]bool{}, major: p.record.ServerVersion / 10000, group: p.record.GroupAccess}
	d.marker = marker{Format: 1, SystemID: p.SystemID, Backup: p.record.ID}
	for i, pl := range places {
		t := terms{data: i == 0, interrupted: interrupted && slices.Contains(old.Places, pl.path), replaced: before.has(pl.path)}
		used, err := checkPlace(pl, t)
		if err != nil {
			return nil, err
		}
		d.used = d.used || used
		d.marker.Places = append(d.marker.Places, pl.path)
	}
	if err := checkSpace(p); err != nil {
		return nil, err
	}
	if err := d.openState(p.Directory, p.record.ID); err != nil {
		d.Close()
		return nil, err
	}
	err = d.open(p)
	if err == nil && before != nil {
		err = before.disable(d.data)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
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
