package restore

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/repo"
)

func value(set []Setting, name string) (string, bool) {
	for _, s := range set {
		if s.Name == name {
			return s.Value, true
		}
	}
	return "", false
}

// TestSettings is rules 4 and 5.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		target Target
		name   string
		value  string
	}{
		{Target{Kind: TargetImmediate}, "recovery_target", "immediate"},
		{Target{Kind: TargetTime, Time: clock(10)}, "recovery_target_time", "2026-11-20 10:00:00+00"},
		{Target{Kind: TargetLSN, LSN: at(9, 0x200), Exclusive: true}, "recovery_target_lsn", "0/900200"},
		{Target{Kind: TargetXID, XID: 801}, "recovery_target_xid", "801"},
		{Target{Kind: TargetName, Name: "it's"}, "recovery_target_name", "it's"},
		{Target{Kind: TargetLatest}, "", ""},
	} {
		p, err := plan(t, threeDeep(), Request{Target: c.target, RestoreCommand: "walship wal fetch %f %p"})
		if err != nil {
			t.Fatalf("%s: %v", c.target, err)
		}
		chosen := -1
		for i, s := range p.Settings {
			switch {
			case s.Name == c.name:
				chosen = i
				if s.Value != c.value {
					t.Errorf("%s: %s = %q, want %q", c.target, s.Name, s.Value, c.value)
				}
			case strings.HasPrefix(s.Name, "recovery_target") && s.Value == "":
				if chosen >= 0 {
					t.Errorf("%s: the empty %s stands behind the chosen target", c.target, s.Name)
				}
			}
		}
		if c.name != "" && chosen < 0 {
			t.Errorf("%s: %s isn't set", c.target, c.name)
		}
		for name, want := range map[string]string{
			"restore_command": "walship wal fetch %f %p", "recovery_target_timeline": "4", "recovery_target_action": "pause",
			"archive_mode": "off", "max_logical_replication_workers": "0", "recovery_min_apply_delay": "0", "recovery_end_command": "", "archive_cleanup_command": "",
			"synchronous_standby_names": "", "primary_conninfo": "", "promote_trigger_file": "", "hot_standby": "on",
			"max_connections": "100", "max_worker_processes": "8", "max_wal_senders": "10", "max_prepared_transactions": "0",
			"max_locks_per_transaction": "64", "recovery_target_inclusive": map[bool]string{true: "false", false: "true"}[c.target.Exclusive],
		} {
			if got, ok := value(p.Settings, name); !ok || got != want {
				t.Errorf("%s: %s = %q, %v; want %q", c.target, name, got, ok, want)
			}
		}
	}
}

func TestSettingsReplace(t *testing.T) {
	c := threeDeep()
	c.backups[3].ServerVersion = 160002
	c.backups[3].Tablespaces = []repo.Tablespace{{OID: 16400, Location: "pg_tblspc/16400", InPlace: true}}
	p, err := plan(t, c, Request{Target: Target{Kind: TargetLatest}, Replace: true, Action: ActionPromote})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"archive_mode", "max_logical_replication_workers", "promote_trigger_file", "hot_standby"} {
		if got, ok := value(p.Settings, name); ok {
			t.Errorf("%s = %q is written for a replacement of major 16 that promotes", name, got)
		}
	}
	if got, _ := value(p.Settings, "allow_in_place_tablespaces"); got != "on" {
		t.Errorf("allow_in_place_tablespaces = %q with a tablespace in place", got)
	}
}

func TestAutoConf(t *testing.T) {
	old := "# written by ALTER SYSTEM\nwork_mem = '8MB'\nRestore_Command = 'cp /old/%f %p'\nrecovery_target_time = 'x'\nmax_connections = 300\n"
	p, err := plan(t, threeDeep(), Request{Target: Target{Kind: TargetName, Name: `a'b\c`}, RestoreCommand: RestoreCommand("/opt/it's/walship", "/etc/100%.toml")})
	if err != nil {
		t.Fatal(err)
	}
	got := string(p.autoConf([]byte(old), raise(p.Settings, map[string]int{"max_connections": 300, "max_wal_senders": 3})))
	for _, want := range []string{
		"# written by ALTER SYSTEM\nwork_mem = '8MB'\n",
		`restore_command = '''/opt/it''\\''''s/walship'' --config /etc/100%%.toml wal fetch %f %p'` + "\n",
		`recovery_target_name = 'a''b\\c'` + "\n",
		"max_connections = '300'\n", "max_wal_senders = '10'\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("postgresql.auto.conf lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "/old/") || strings.Contains(got, "'x'") {
		t.Errorf("postgresql.auto.conf still has old recovery settings:\n%s", got)
	}
}

// TestRestoreCommandInShell hands the command to a shell as PostgreSQL does.
func TestRestoreCommandInShell(t *testing.T) {
	for _, binary := range []string{"/usr/bin/walship", "/opt/my tools/wal$ship", `/opt/it's "here"/walship`, "/opt/50%/walship"} {
		command := RestoreCommand(binary, "/etc/walship/walship.toml")
		// What BuildRestoreCommand of src/common/archive.c does.
		command = strings.NewReplacer("%%", "%", "%f", "000000010000000000000001", "%p", "pg_wal/RECOVERYXLOG").Replace(command)
		out, err := exec.Command("sh", "-c", "printf '%s\\n' "+command).Output()
		want := binary + "\n--config\n/etc/walship/walship.toml\nwal\nfetch\n000000010000000000000001\npg_wal/RECOVERYXLOG\n"
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", binary, out, err, want)
		}
	}
}

func TestMapTablespaces(t *testing.T) {
	with := func() *fakeCatalogue {
		c := threeDeep()
		c.backups[3].Tablespaces = []repo.Tablespace{
			{OID: 16400, Location: "/srv/fast", Size: 1000}, {OID: 16401, Location: "/srv/slow", Size: 500},
			{OID: 16402, Location: "pg_tblspc/16402", InPlace: true, Size: 7},
		}
		return c
	}
	for _, c := range []struct {
		name, dir string
		mapping   map[string]string
		want      string
		refusal   string
	}{
		{"as they were", "/srv/clone", nil, "/srv/fast /srv/slow pg_tblspc/16402", ""},
		{"by location and OID", "/srv/clone", map[string]string{"/srv/fast": "/new/fast/", "16401": "/new/slow"}, "/new/fast /new/slow pg_tblspc/16402", ""},
		{"no such tablespace", "/srv/clone", map[string]string{"/srv/fst": "/new"}, "", "no tablespace /srv/fst"},
		{"relative", "/srv/clone", map[string]string{"/srv/fast": "new"}, "", "absolute"},
		{"two in one", "/srv/clone", map[string]string{"16400": "/new", "16401": "/new"}, "", "one directory"},
		{"one in the other", "/srv/clone", map[string]string{"16400": "/new", "16401": "/new/slow"}, "", "lie in one another"},
		{"in the data directory", "/srv/clone", map[string]string{"16400": "/srv/clone/fast"}, "", "lie in one another"},
		{"around the data directory", "/srv/fast/clone", nil, "", "lie in one another"},
		{"in place", "/srv/clone", map[string]string{"16402": "/new"}, "", "can't be mapped"},
		{"relative directory", "clone", nil, "", "absolute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan(t, with(), Request{Target: Target{Kind: TargetLatest}, Directory: c.dir, Tablespaces: c.mapping})
			if c.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), c.refusal) {
					t.Fatalf("MakePlan: %v; want %q", err, c.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ts := range p.Tablespaces {
				got = append(got, ts.RestoreTo)
			}
			if strings.Join(got, " ") != c.want || p.DataSize != 3500 {
				t.Errorf("restored to %v, data %d bytes; want %s, 3500", got, p.DataSize, c.want)
			}
		})
	}
}

// TestStandbySettings: a standby keeps how it connects, and stops nowhere.
func TestStandbySettings(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	b.parts[0][15] = file("postgresql.auto.conf", "primary_conninfo = 'host=primary'\nprimary_slot_name = 'other'\nrecovery_target_xid = '7'\n")
	b.list()
	b.commit(t, r)
	q := request(work)
	q.Target, q.Standby = Target{Kind: TargetLatest}, true
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	data := tree(t, q.Directory)
	if _, there := data["recovery.signal"]; there || data["standby.signal"] != "" {
		t.Error("it isn't a standby")
	}
	conf := data["postgresql.auto.conf"]
	for line, want := range map[string]bool{
		"primary_conninfo = 'host=primary'\n": true, "primary_conninfo = ''\n": false, "primary_slot_name = ''\n": true, "recovery_target_xid = ''\n": true,
		"recovery_target_timeline = 'latest'\n": true, "archive_mode = 'off'\n": false, "recovery_target_action": false,
	} {
		if strings.Contains(conf, line) != want {
			t.Errorf("%q in postgresql.auto.conf: %v, want %v:\n%s", line, !want, want, conf)
		}
	}
	q.Target = Target{Kind: TargetImmediate}
	if _, err := MakePlan(t.Context(), Of(r), q); err == nil {
		t.Error("a standby got a target")
	}
}
