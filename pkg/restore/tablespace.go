package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

// mapTablespaces settles where each tablespace is restored. The keys of
// mapping are locations or OIDs; each has to match one tablespace.
func (p *Plan) mapTablespaces(mapping map[string]string) error {
	unused := maps.Clone(mapping)
	p.Tablespaces = []Tablespace{}
	for _, t := range p.record.Tablespaces {
		to, oid := t.Location, strconv.FormatUint(uint64(t.OID), 10)
		for _, from := range []string{t.Location, oid} {
			if mapped, ok := mapping[from]; ok {
				to = mapped
				delete(unused, from)
			}
		}
		if t.InPlace {
			if to != t.Location {
				return usagef("tablespace %d lies in the data directory itself and can't be mapped elsewhere", t.OID)
			}
		} else if !filepath.IsAbs(to) {
			return usagef("tablespace %d can't be restored to %q: its location must be an absolute path", t.OID, to)
		}
		p.Tablespaces = append(p.Tablespaces, Tablespace{OID: t.OID, Location: t.Location, RestoreTo: filepath.Clean(to), InPlace: t.InPlace, Size: t.Size})
	}
	for from := range unused {
		return usagef("the backup has no tablespace %s to map; it has %s", from, p.tablespaceNames())
	}
	return p.checkPlaces()
}

func (p *Plan) tablespaceNames() string {
	if len(p.Tablespaces) == 0 {
		return "none"
	}
	var names []string
	for _, t := range p.Tablespaces {
		names = append(names, fmt.Sprintf("%s (OID %d)", t.Location, t.OID))
	}
	return strings.Join(names, ", ")
}

// noteCreated notes the tablespaces that the recovery is going to make.
func (p *Plan) noteCreated(s wal.Summary) {
	p.createdUnlisted = p.createdUnlisted || s.TablespaceCount > uint64(len(s.Tablespaces))
	for _, t := range s.Tablespaces {
		behind := p.target.Kind == TargetLSN && t.LSN > p.target.LSN || p.target.Kind == TargetImmediate && t.LSN >= p.record.StopLSN
		if t.LSN >= p.record.StartLSN && !behind && !slices.Contains(p.created, t.Path) {
			p.created = append(p.created, t.Path)
		}
	}
}

// warnOfCreated says what becomes of tablespaces that were created since the
// backup. Replaying that makes them where they were, whatever the mapping
// (create_tablespace_directories of src/backend/commands/tablespace.c).
func (p *Plan) warnOfCreated() {
	const what = "recovery makes it in the same place, so that directory must be there, empty, the property of the server's user, and no other cluster's"
	for _, path := range p.created {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the original created a tablespace in %s since the backup began (not verified): %s", path, what))
	}
	if p.createdUnlisted {
		p.Warnings = append(p.Warnings, "the original created more tablespaces since the backup began (not verified), whose directories aren't known: "+
			"recovery makes them in the same places, so on the original's host start from a later backup")
	}
}

// checkCreated refuses a recovery that would write into a directory that is in
// use: the original's own, above all, where the restore is on its host.
func (p *Plan) checkCreated() error {
	for _, path := range p.created {
		entries, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return refusef("recovery makes a tablespace in %s, as the original did since the backup began, and whether that is free can't be seen: %v", path, err)
		}
		if len(entries) > 0 {
			return refusef("recovery makes a tablespace in %s, as the original did since the backup began, and that isn't empty (it has %s): "+
				"what the original or another cluster keeps there would be overwritten; start from a backup taken since, restore to before that, or on another host", path, entries[0].Name())
		}
	}
	return nil
}

// place is a directory that the restore makes, outside of any other.
type place struct {
	what, path string
	instead    string // what to do where it can't be used
}

// places lists the directories that the restore fills, the data directory first.
func (p *Plan) places() []place {
	var all []place
	if p.Directory != "" {
		all = append(all, place{"the data directory", p.Directory, "restore elsewhere; --reuse overwrites a stopped copy of the same cluster, and nothing else"})
	}
	if p.WALDirectory != "" {
		all = append(all, place{"the WAL directory", p.WALDirectory, "give another --waldir"})
	}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			all = append(all, place{fmt.Sprintf("tablespace %d", t.OID), t.RestoreTo, fmt.Sprintf("a cluster may be using it: put the tablespace elsewhere with --tablespace-map %s=DIRECTORY", pgdata.ShellWord(t.Location))})
		}
	}
	return all
}

// checkPlaces refuses directories that are one another or lie in one another.
func (p *Plan) checkPlaces() error { return apart(p.places()) }

// checkRealPlaces does so when links on the way to them are followed. A place
// whose parent isn't there is left for checkPlace to refuse.
func (p *Plan) checkRealPlaces() error {
	all := p.places()
	for i, pl := range all {
		if parent, err := filepath.EvalSymlinks(filepath.Dir(pl.path)); err == nil {
			all[i].path = filepath.Join(parent, filepath.Base(pl.path))
		}
	}
	if err := apart(all); err != nil {
		return refusef("links lead to one place: %v", err)
	}
	return nil
}

// apart returns a UsageError unless the places are separate.
func apart(all []place) error {
	for i, a := range all {
		if !filepath.IsAbs(a.path) {
			return usagef("%s %q must be an absolute path", a.what, a.path)
		}
		for _, b := range slices.Concat(all[:i], all[i+1:]) {
			if a.path == b.path || strings.HasPrefix(b.path, strings.TrimSuffix(a.path, "/")+"/") {
				return usagef("%s %s and %s %s can't be one directory or lie in one another; map tablespaces with --tablespace-map", a.what, a.path, b.what, b.path)
			}
		}
	}
	return nil
}
