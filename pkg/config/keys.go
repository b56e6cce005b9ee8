package config

import (
	"fmt"
	"slices"
	"strings"
)

// Key is one setting: all that there is to know of it stands in the table
// that Keys returns, which drives flags, help and documentation.
type Key struct {
	Name    string // as in the file: "wal.push_deadline"
	Default string // as it would be written; "" when there is none, or Doc says what
	Doc     string // one or two sentences

	field  func(*Config) any        // a *string, *[]string, *int, *Duration or *Size
	check  func(text string) error  // of every value but the empty one
	redact func(text string) string // nil: the value is no secret
	path   bool                     // a file or folder, or a list of them
}

// Env is the environment variable that sets the key.
func (k Key) Env() string {
	return "WALSHIP_" + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))
}

// Flag is the name of the command-line flag that sets the key, without its
// dashes.
func (k Key) Flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(k.Name)
}

// List tells whether the key has several values: an array in the file,
// separated by commas elsewhere.
func (k Key) List() bool {
	_, list := k.field(new(Config)).(*[]string)
	return list
}

// Keys returns every setting there is, in the order in which they are
// documented.
func Keys() []Key {
	return []Key{
		{
			Name: "repository",
			Doc: "Where backups and WAL are kept, as a URL: file:///srv/walship for a directory, or " +
				"s3://bucket/prefix?region=eu-central-1 for a bucket (endpoint=URL and path_style=true for other servers than AWS's). " +
				"Credentials aren't part of it: the AWS SDK finds them by its own conventions.",
			field:  func(c *Config) any { return &c.Repository },
			redact: redactURL,
		},
		{
			Name: "encryption.recipients",
			Doc: "The age recipients (age1… or age1pq1…, not mixed) that everything is encrypted to. " +
				"Empty only for a repository that was initialised without encryption.",
			field: func(c *Config) any { return &c.Encryption.Recipients },
		},
		{
			Name: "encryption.identity_files",
			Doc: "Files with age identities, needed to restore and nowhere else. " +
				"They must be readable by their owner alone.",
			field: func(c *Config) any { return &c.Encryption.IdentityFiles },
			path:  true,
		},
		{
			Name: "compression.level", Default: "default",
			Doc:   "How hard zstd tries: fastest, default, better or best. For WAL the first two are the same.",
			field: func(c *Config) any { return &c.Compression.Level },
			check: oneOf("fastest", "default", "better", "best"),
		},
		{
			Name: "wal.push_deadline", Default: "60s",
			Doc:   "The longest that a push may take. PostgreSQL waits for it when it shuts down, and calls up to six times.",
			field: func(c *Config) any { return &c.WAL.PushDeadline },
			check: atLeastASecond,
		},
		{
			Name: "wal.fetch_deadline", Default: "5min",
			Doc: "The longest that a fetch keeps trying before it says that the storage can't be reached, " +
				"which makes PostgreSQL stop rather than end recovery early.",
			field: func(c *Config) any { return &c.WAL.FetchDeadline },
			check: atLeastASecond,
		},
		{
			Name: "wal.concurrency", Default: "0",
			Doc: "How many segments a push that finds a backlog reads, compresses and encrypts at once, 1 to 16; " +
				"0 for one more than there are cores, up to 4. Their number is also bounded by 80MB of memory.",
			field: func(c *Config) any { return &c.WAL.Concurrency },
			check: between(0, 16),
		},
		{
			Name: "wal.prefetch", Default: "8",
			Doc: "How many segments are fetched ahead of a server in recovery, 0 to 64; 0 turns it off. " +
				"They take at most 1GB of disk space in pg_wal, unless one segment is larger, and no name there.",
			field: func(c *Config) any { return &c.WAL.Prefetch },
			check: between(0, 64),
		},
		{
			Name: "backup.concurrency", Default: "2",
			Doc:   "How many parts of a backup are read, compressed and stored at once, 1 to 64.",
			field: func(c *Config) any { return &c.Backup.Concurrency },
			check: between(1, 64),
		},
		{
			Name: "backup.max_rate", Default: "0",
			Doc: "The most bytes a second that a backup reads from the data directory, such as 50MB; " +
				"0 for no limit.",
			field: func(c *Config) any { return &c.Backup.MaxRate },
			check: notNegative,
		},
		{
			Name: "restore.concurrency", Default: "4",
			Doc:   "How many parts of a backup are fetched and unpacked at once, 1 to 64.",
			field: func(c *Config) any { return &c.Restore.Concurrency },
			check: between(1, 64),
		},
		{
			Name:  "postgres.data_directory",
			Doc:   "PostgreSQL's data directory. The default is $PGDATA, else what the server says.",
			field: func(c *Config) any { return &c.Postgres.DataDirectory },
			path:  true,
		},
		{
			Name: "postgres.connection",
			Doc: "How to connect to PostgreSQL: key=value pairs or a URL, as libpq reads them. " +
				"What it leaves out comes from libpq's environment variables and files (PGHOST, ~/.pgpass, …), " +
				"where a password belongs.",
			field:  func(c *Config) any { return &c.Postgres.Connection },
			redact: redactConnection,
		},
		{
			Name: "postgres.bin_directory",
			Doc: "The folder of PostgreSQL's programs, of the cluster's major. The default is where Debian's and PGDG's packages " +
				"put them, else where PATH has postgres.",
			field: func(c *Config) any { return &c.Postgres.BinDirectory },
			path:  true,
		},
		{
			Name: "state_directory",
			Doc: "A private folder for what walship remembers from one call to the next. " +
				"The default is $XDG_STATE_HOME/walship, else ~/.local/state/walship. " +
				"Where it can't be written, walship works without.",
			field: func(c *Config) any { return &c.StateDirectory },
			path:  true,
		},
		{
			Name: "log.level", Default: "info",
			Doc:   "Which messages are written to standard error: debug, info, warn or error.",
			field: func(c *Config) any { return &c.Log.Level },
			check: oneOf("debug", "info", "warn", "error"),
		},
		{
			Name: "log.format", Default: "text",
			Doc:   "How they are written: text, or json for one object a line.",
			field: func(c *Config) any { return &c.Log.Format },
			check: oneOf("text", "json"),
		},
	}
}

func oneOf(values ...string) func(string) error {
	return func(text string) error {
		if !slices.Contains(values, text) {
			return fmt.Errorf("%q is not one of %s", text, strings.Join(values, ", "))
		}
		return nil
	}
}

func between(least, most int) func(string) error {
	return func(text string) error {
		var n int
		if err := setField(&n, text); err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", text, least, most)
		}
		return nil
	}
}

func notNegative(text string) error {
	if strings.HasPrefix(text, "-") {
		return fmt.Errorf("%q is below 0", text)
	}
	return nil
}

func atLeastASecond(text string) error {
	var d Duration
	if err := d.UnmarshalText([]byte(text)); err != nil || d.Seconds() < 1 {
		return fmt.Errorf("%q is not at least a second", text)
	}
	return nil
}
