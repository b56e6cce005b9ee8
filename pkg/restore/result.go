package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/walship/walship/pkg/pgdata"
)

// Result says what a restore made and how to go on. Its JSON form is stable.
type Result struct {
	Directory      string `json:"directory"`
	StateDirectory string `json:"state_directory"`
	// Configuration is where the configuration files lie that the original
	// had outside its data directory; empty when it had none.
	Configuration string   `json:"configuration,omitempty"`
	KeptSize      int64    `json:"kept_size"` // bytes of files that were there already and stayed
	Start         string   `json:"start_command"`
	Next          []string `json:"next"` // what to do, in order, in sentences

	files   *Rate    // how fast the files came; nil where some were there already
	options []string // settings for the server's command line: where its files are
}

func (p *Plan) result() *Result {
	state := StateDirectory(p.Directory)
	r := &Result{Directory: p.Directory, StateDirectory: state, Next: []string{}}
	say := func(format string, args ...any) { r.Next = append(r.Next, fmt.Sprintf(format, args...)) }
	if os.Geteuid() == 0 {
		dirs := []string{pgdata.ShellWord(state)}
		for _, pl := range p.places() {
			dirs = append(dirs, pgdata.ShellWord(pl.path))
		}
		say("PostgreSQL doesn't run as root: give the files to its user first, as in chown -R postgres: %s", strings.Join(dirs, " "))
	}
	options := ""
	switch {
	case p.record.Configuration != nil:
		r.Configuration = filepath.Join(state, configurationName)
		options, r.options = p.configurationOptions(r.Configuration), p.configurationSettings(r.Configuration)
		say("the configuration files that the original kept outside its data directory are copied to %s: look through them for paths and addresses of the original", r.Configuration)
	case namesDataDirectory(p.Directory):
		options, r.options = p.configurationOptions(state), p.configurationSettings(state)
		say("%s names the original's data directory or process id file: change those lines, or the cluster starts as the restored one by this command only", pgdata.ConfFileName)
	}
	r.Start = fmt.Sprintf("%s -D %s -l %s%s start", pgCtl(p.record.ServerVersion/10000),
		pgdata.ShellWord(p.Directory), pgdata.ShellWord(filepath.Join(state, "server.log")), options)
	switch {
	case p.standby():
		say("the server becomes a standby: it replays the archive, and streams from the primary that primary_conninfo of the backup names; where that names none, or the standby itself, set it with ALTER SYSTEM SET primary_conninfo")
	case p.target.Kind == TargetLatest:
		say("at the end of the archived WAL the server promotes itself and takes writes")
	case p.Target.Action == ActionPause:
		say("at the target the server pauses and takes queries only: look at the data, then let it go on with SELECT pg_wal_replay_resume(), which ends the recovery there")
		say("while it is paused, a table that was dropped, truncated or altered right behind the target can be locked: a query of it waits until that")
	case p.Target.Action == ActionPromote:
		say("at the target the server promotes itself and takes writes")
	case p.Target.Action == ActionShutdown:
		say("at the target the server shuts down; it recovers again whenever it is started while %s is there", p.SignalFile)
	}
	if host, err := os.Hostname(); err == nil && host == p.record.Host && (p.Clone || p.standby()) {
		say("the backup was taken on this host: while the original runs here, give this server a port of its own, as in -o '-p 5433' behind the command's other words before start")
	}
	if p.standby() {
		return r
	}
	if p.Clone {
		say("the restored cluster is a clone: it doesn't archive its own WAL (archive_mode = off), and its subscriptions get nothing (max_logical_replication_workers = 0)")
	} else {
		say("the restored cluster replaces the original and archives as that did: make sure that the original never starts again")
		say("what the recovery needed stays in postgresql.auto.conf and overrides postgresql.conf: take back what you miss with ALTER SYSTEM RESET, synchronous_standby_names above all")
	}
	return r
}

func (p *Plan) standby() bool { return p.SignalFile == pgdata.StandbySignalFileName }

// namesDataDirectory tells whether the configuration in a data directory sets
// where the data directory or the process id file is. What can't be read may.
func namesDataDirectory(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer root.Close()
	data, err := readFile(root, pgdata.ConfFileName)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return ownPlace().Match(data)
}

var ownPlace = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?mi)^[ \t]*(data_directory|external_pid_file)\b`)
})

// configurationOptions returns the option of pg_ctl that starts a server with
// its configuration files from outside the data directory, in dir. Without
// data_directory it would start in the original's, and without
// external_pid_file it would overwrite the file by which that is found.
func (p *Plan) configurationOptions(dir string) string {
	var words []string
	for _, setting := range p.configurationSettings(dir) {
		words = append(words, "-c "+pgdata.ShellWord(setting))
	}
	return " -o " + pgdata.ShellWord(strings.Join(words, " "))
}

// configurationSettings are those settings, as name=value.
func (p *Plan) configurationSettings(dir string) []string {
	set := []string{"data_directory=" + p.Directory, "external_pid_file=" + filepath.Join(dir, "postmaster.pid")}
	for _, name := range []string{"config_file", "hba_file", "ident_file"} {
		if file, ok := p.record.ConfigurationOf[name]; ok {
			// Whatever the record says, the file is one of those in dir.
			set = append(set, name+"="+filepath.Join(dir, filepath.Clean("/"+file)))
		}
	}
	return set
}

// pgCtl returns the usual place of a major's pg_ctl, or its name alone.
func pgCtl(major int) string {
	for _, path := range []string{
		fmt.Sprintf("/usr/lib/postgresql/%d/bin/pg_ctl", major), // Debian
		fmt.Sprintf("/usr/pgsql-%d/bin/pg_ctl", major),          // PGDG's RPMs
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "pg_ctl"
}
