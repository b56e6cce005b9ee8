package restore

import (
	"strconv"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// recoverySettings lists what is written to postgresql.auto.conf, which is
// read last, so that it wins over everything that the backup's own files say.
func recoverySettings(p *Plan, r Request) []Setting {
	major := p.record.ServerVersion / 10000
	var set []Setting
	add := func(name, value string) { set = append(set, Setting{name, value}) }

	add("restore_command", r.RestoreCommand)
	// PostgreSQL counts the targets as it reads them, so the empty ones come
	// first (assign_recovery_target and the others, in
	// src/backend/access/transam/xlogrecovery.c).
	chosen := targetSetting(p.target.Kind)
	for _, name := range targetSettings {
		if name != chosen {
			add(name, "")
		}
	}
	if r.Standby {
		// It goes over to a new timeline when its primary does.
		add("recovery_target_timeline", TimelineLatest)
	} else {
		if chosen != "" {
			add(chosen, p.target.Value())
		}
		add("recovery_target_inclusive", strconv.FormatBool(!p.target.Exclusive))
		add("recovery_target_timeline", strconv.FormatUint(uint64(p.Timeline), 10))
		add("recovery_target_action", string(r.Action))
	}
	add("recovery_end_command", "")
	add("archive_cleanup_command", "")
	if !r.Standby {
		add("recovery_min_apply_delay", "0")
		add("primary_conninfo", "")
		add("synchronous_standby_names", "")
	}
	// Where the backup is of a standby, this slot is that one's.
	add("primary_slot_name", "")
	if major < 16 {
		add("promote_trigger_file", "")
	}
	if r.Action == ActionPause && !r.Standby {
		// With hot_standby off PostgreSQL shuts down where it should pause.
		add("hot_standby", "on")
	} else if p.noHotStandby {
		add("hot_standby", "off")
	}
	// What pg_control demands, and the WAL to be replayed; Run takes more
	// where the backup's own configuration has more.
	required := p.required()
	for _, s := range []struct {
		name  string
		value int
	}{
		{"max_connections", required.MaxConnections},
		{"max_worker_processes", required.MaxWorkerProcesses},
		{"max_wal_senders", required.MaxWALSenders},
		{"max_prepared_transactions", required.MaxPreparedTransactions},
		{"max_locks_per_transaction", required.MaxLocksPerTransaction},
	} {
		add(s.name, strconv.Itoa(s.value))
	}
	for _, t := range p.Tablespaces {
		if t.InPlace {
			add("allow_in_place_tablespaces", "on")
			break
		}
	}
	if !r.Replace && !r.Standby {
		add("archive_mode", "off")
		// The subscriptions of a clone would take the original's changes.
		add("max_logical_replication_workers", "0")
	}
	return set
}

// required returns what the backup and the WAL behind it demand.
func (p *Plan) required() repo.RequiredSettings {
	r, d := p.record.Required, p.demands
	r.MaxConnections = max(r.MaxConnections, int(d.MaxConnections))
	r.MaxWorkerProcesses = max(r.MaxWorkerProcesses, int(d.MaxWorkerProcesses))
	r.MaxWALSenders = max(r.MaxWALSenders, int(d.MaxWALSenders))
	r.MaxPreparedTransactions = max(r.MaxPreparedTransactions, int(d.MaxPreparedTransactions))
	r.MaxLocksPerTransaction = max(r.MaxLocksPerTransaction, int(d.MaxLocksPerTransaction))
	return r
}

// targetSettings are the settings of which PostgreSQL takes one at most.
var targetSettings = []string{
	"recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid",
}

// targetSetting names the setting of a kind of target; "" for the latest.
func targetSetting(kind TargetKind) string {
	switch kind {
	case TargetLatest:
		return ""
	case TargetImmediate:
		return "recovery_target"
	}
	return "recovery_target_" + string(kind)
}

// autoConf returns the content of the restored postgresql.auto.conf.
func (p *Plan) autoConf(old []byte, set []Setting) []byte {
	settings := make([]pgdata.Setting, len(set))
	for i, s := range set {
		settings[i] = pgdata.Setting{Name: s.Name, Value: s.Value}
	}
	if p.standby() {
		return pgdata.EditAutoConf(old, settings, "primary_conninfo", "recovery_min_apply_delay")
	}
	return pgdata.EditAutoConf(old, settings)
}

// RestoreCommand returns the restore_command that runs the program binary
// with the settings file config: both absolute paths.
func RestoreCommand(binary, config string) string {
	return pgdata.ShellCommand([]string{binary, "--config", config, "wal", "fetch"}, "%f", "%p")
}
