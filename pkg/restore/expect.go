package restore

import (
	"path/filepath"
	"strconv"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

// Written is something that a restore makes besides the backup's own files.
type Written struct {
	Path string `json:"path"` // absolute; where no directory is given, below the data directory
	What string `json:"what"`
}

// expect fills in what will happen: how much is replayed, how long it takes,
// and what is written.
func (p *Plan) expect(ownSettings bool) {
	end := p.EndsAt
	if end == 0 {
		end = wal.LSN((p.WAL.lastNumber() + 1) * p.WAL.SegmentSize)
	}
	p.WAL.ReplaySize = int64(end - min(end, p.record.StartLSN))
	p.Estimate = p.estimate()
	p.Writes = p.writes(ownSettings)
}

func (w *PlannedWAL) lastNumber() uint64 {
	name, err := wal.ParseFileName(w.Last)
	if err != nil {
		return 0
	}
	return name.SegmentNumber(w.SegmentSize)
}

// writes lists what Run makes besides the backup's files, in that order.
func (p *Plan) writes(ownSettings bool) []Written {
	all := []Written{}
	add := func(what string, path ...string) {
		all = append(all, Written{filepath.Join(append([]string{p.Directory}, path...)...), what})
	}
	state := func(what, name string) {
		if p.Directory != "" {
			all = append(all, Written{filepath.Join(StateDirectory(p.Directory), name), what})
		}
	}
	state("marks the restore, as unfinished until the end", markerName)
	state("which files each finished part had", partsName)
	add("what pg_verifybackup holds the files against", pgdata.BackupManifestFileName)
	if p.record.Configuration != nil {
		state("the configuration files that the original kept outside its data directory", configurationName)
	}
	if p.WALDirectory != "" {
		add("a link to "+p.WALDirectory, pgdata.WALDir)
	}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			add("a link to "+t.RestoreTo, pgdata.TablespaceDir, strconv.FormatUint(uint64(t.OID), 10))
		}
	}
	if ownSettings {
		state("walship's settings, for restore_command", settingsName)
	}
	add("the backup's own, with the settings above in place of its lines for them", pgdata.AutoConfFileName)
	add("empty: it makes the server recover", p.SignalFile)
	add("the last of all: before it, no server starts there", pgdata.ControlFileName)
	return all
}

// explain says how the target is met, by its kind; where recovery stops is
// said by the plan itself if it is certified.
func (p *Plan) explain() {
	note := func(s string) { p.Notes = append(p.Notes, s) }
	switch {
	case p.target.Kind == TargetTime && !p.Certified:
		note("PostgreSQL stops at the first commit or abort, in WAL order, whose time is behind the target; if the archive has none, the server refuses to start")
	case p.target.Kind == TargetLSN && p.target.Exclusive && !p.Certified:
		note("PostgreSQL stops before the first record that starts at or behind the target")
	case p.target.Kind == TargetLSN && !p.target.Exclusive:
		note("PostgreSQL applies the first record that starts at or behind the target too; --exclusive stops before it")
	case p.target.Kind == TargetXID && !p.Certified:
		note("only the id of a top-level transaction that committed, aborted or was committed prepared is met; if the archive has no such record, the server refuses to start")
	case p.standby():
		note("the server stays a standby, and replays what its primary and the archive have from now on, too")
	case p.target.Kind == TargetLatest:
		note("at the end of the archived WAL the server promotes itself to a new timeline")
	}
	if p.Certified {
		return
	}
	if p.pointNote != "" {
		note(p.pointNote)
	}
	if p.pointWarning != "" {
		p.Warnings = append(p.Warnings, p.pointWarning)
	}
}
