package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// environ is an environment for Sources.
func environ(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func writeFile(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "walship.toml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

const fullFile = `
repository = "file:///srv/walship"
state_directory = "/var/lib/walship"

[encryption]
recipients = ["age1a", "age1b"]
identity_files = ["/etc/walship/identity"]
[compression]
level = "better"
[wal]
push_deadline = "90 s"
fetch_deadline = "1h"
prefetch = 3
concurrency = 7
[backup]
concurrency = 5
max_rate = "50MB"
[restore]
concurrency = 6
[postgres]
data_directory = "/srv/data"
connection = "host=/run/postgresql"
bin_directory = "/opt/postgresql/bin"
[log]
level = "debug"
format = "json"
`

func TestLoad(t *testing.T) {
	file := writeFile(t, fullFile, 0o644)
	c, err := Load(Sources{File: file, Lookup: environ()})
	if err != nil {
		t.Fatal(err)
	}
	var want Config
	want.Repository, want.StateDirectory = "file:///srv/walship", "/var/lib/walship"
	want.Encryption.Recipients, want.Encryption.IdentityFiles = []string{"age1a", "age1b"}, []string{"/etc/walship/identity"}
	want.Compression.Level = "better"
	want.WAL.PushDeadline, want.WAL.FetchDeadline = Duration{90 * time.Second}, Duration{time.Hour}
	want.WAL.Prefetch, want.WAL.Concurrency = 3, 7
	want.Backup.Concurrency, want.Backup.MaxRate = 5, 50<<20
	want.Restore.Concurrency = 6
	want.Postgres.DataDirectory, want.Postgres.Connection = "/srv/data", "host=/run/postgresql"
	want.Postgres.BinDirectory = "/opt/postgresql/bin"
	want.Log.Level, want.Log.Format = "debug", "json"
	want.file, want.content, want.origins = c.file, []byte(fullFile), c.origins
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
	for _, k := range Keys() {
		if c.Origin(k.Name) != (Origin{OriginFile, file}) {
			t.Errorf("%s comes from %s", k.Name, c.Origin(k.Name))
		}
	}
	// What Format writes is read as the same.
	var names []string
	for _, k := range Keys() {
		names = append(names, k.Name)
	}
	again, err := Load(Sources{File: writeFile(t, string(c.Format(names...)), 0o600), Lookup: environ()})
	if err != nil {
		t.Fatal(err)
	}
	want.file, want.content, want.origins = again.file, c.Format(names...), again.origins
	if !reflect.DeepEqual(*again, want) {
		t.Errorf("formatted and read again: %+v", *again)
	}
}

func TestFormat(t *testing.T) {
	c, err := Load(Sources{Lookup: environ(FileVariable, writeFile(t, fullFile, 0o600))})
	if err != nil {
		t.Fatal(err)
	}
	want := "repository = \"file:///srv/walship\"\n\n[encryption]\nidentity_files = [\"/etc/walship/identity\"]\n\n[wal]\nfetch_deadline = \"1h\"\n"
	if got := string(c.Format("wal.fetch_deadline", "repository", "encryption.identity_files")); got != want {
		t.Errorf("got %q", got)
	}
	odd := "a\"b\\c\té\x7f"
	var back struct{ X string }
	if err := toml.Unmarshal([]byte("x = "+quote(odd)), &back); err != nil || back.X != odd {
		t.Errorf("%q is read as %q, %v", odd, back.X, err)
	}
}

// Flags over environment over file over defaults, for every key.
func TestPrecedence(t *testing.T) {
	values := map[string][4]string{ // default, file, environment, flag
		"repository":                {"", "file:///f", "file:///e", "file:///c"},
		"encryption.recipients":     {"[]", "a", "b,c", "d, e"},
		"encryption.identity_files": {"[]", "/f", "/e,/e2", "/c"},
		"compression.level":         {"default", "fastest", "better", "best"},
		"wal.push_deadline":         {"1min", "2s", "3s", "4s"},
		"wal.fetch_deadline":        {"5min", "2s", "3s", "4s"},
		"wal.prefetch":              {"8", "0", "4", "64"},
		"wal.concurrency":           {"0", "1", "5", "16"},
		"backup.concurrency":        {"2", "3", "4", "5"},
		"backup.max_rate":           {"0", "2kB", "3GB", "4TB"},
		"restore.concurrency":       {"4", "5", "6", "7"},
		"postgres.data_directory":   {"", "/f", "/e", "/c"},
		"postgres.connection":       {"", "host=f", "host=e", "host=c"},
		"postgres.bin_directory":    {"", "/f", "/e", "/c"},
		"state_directory":           {"", "/f", "/e", "/c"},
		"log.level":                 {"info", "debug", "warn", "error"},
		"log.format":                {"text", "json", "text", "json"},
	}
	show := func(c *Config, k Key) string {
		texts := fieldTexts(k.field(c))
		if k.List() && len(texts) == 0 {
			return "[]"
		}
		return strings.Join(texts, ",")
	}
	for _, k := range Keys() {
		v, known := values[k.Name]
		if !known {
			t.Errorf("no values for %s", k.Name)
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			literal := k.literal([]string{v[1]})
			section, name, nested := strings.Cut(k.Name, ".")
			content := section + " = " + literal
			if nested {
				content = "[" + section + "]\n" + name + " = " + literal
			}
			empty := writeFile(t, "", 0o600)
			for i, from := range []Sources{
				{File: empty, Lookup: environ(k.Env(), "")},
				{File: writeFile(t, content, 0o600), Lookup: environ(k.Env(), "")},
				{File: writeFile(t, content, 0o600), Lookup: environ(k.Env(), v[2])},
				{File: writeFile(t, content, 0o600), Lookup: environ(k.Env(), v[2]), Flags: map[string]string{k.Name: v[3]}},
			} {
				c, err := Load(from)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.ReplaceAll(v[i], ", ", ",")
				if got := show(c, k); got != want {
					t.Errorf("source %d: %q, not %q", i, got, want)
				}
				kind := []OriginKind{OriginDefault, OriginFile, OriginEnvironment, OriginFlag}[i]
				if c.Origin(k.Name).Kind != kind {
					t.Errorf("source %d: origin %s", i, c.Origin(k.Name))
				}
			}
		})
	}
}

func TestConventions(t *testing.T) {
	empty := writeFile(t, "", 0o600)
	cases := []struct {
		name        string
		env         []string
		data, state string
	}{
		{"nothing", nil, "", ""},
		{"PGDATA", []string{"PGDATA", "/srv/data"}, "/srv/data", ""},
		{"own variable first", []string{"PGDATA", "/srv/data", "WALSHIP_POSTGRES_DATA_DIRECTORY", "/own"}, "/own", ""},
		{"home", []string{"HOME", "/home/x"}, "", "/home/x/.local/state/walship"},
		{"XDG", []string{"HOME", "/home/x", "XDG_STATE_HOME", "/state"}, "", "/state/walship"},
		{"relative XDG counts for nothing", []string{"HOME", "/home/x", "XDG_STATE_HOME", "state"}, "", "/home/x/.local/state/walship"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Load(Sources{File: empty, Lookup: environ(c.env...)})
			if err != nil {
				t.Fatal(err)
			}
			if got.Postgres.DataDirectory != c.data || got.StateDirectory != c.state {
				t.Errorf("data %q, state %q", got.Postgres.DataDirectory, got.StateDirectory)
			}
		})
	}
	t.Run("home of the user", func(t *testing.T) {
		home := func() (string, error) { return "/var/lib/postgresql", nil }
		for want, env := range map[string][]string{
			"/var/lib/postgresql/.local/state/walship": nil,
			"/home/x/.local/state/walship":             {"HOME", "/home/x"},
			"/state/walship":                           {"XDG_STATE_HOME", "/state"},
		} {
			got, err := Load(Sources{File: empty, Lookup: environ(env...), Home: home})
			if err != nil || got.StateDirectory != want {
				t.Errorf("%q: state %q, %v", env, got.StateDirectory, err)
			}
		}
	})
	t.Run("unknown variable", func(t *testing.T) {
		for name, ok := range map[string]bool{
			"WALSHIP_CONFIG": true, "WALSHIP_LOG_LEVEL": true, "WALSHIP_TEST_CACHE": true, "PGDATA": true,
			"WALSHIP_LOG_LEVLE": false, "WALSHIP_": false,
		} {
			names := func() []string { return []string{"PATH", name} }
			_, err := Load(Sources{File: empty, Lookup: environ(), Names: names})
			if ok != (err == nil) || !ok && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name)) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("relative paths", func(t *testing.T) {
		dir := t.TempDir()
		t.Chdir(dir)
		got, err := Load(Sources{
			File: empty, Lookup: environ("PGDATA", "data"),
			Flags: map[string]string{"encryption.identity_files": "key,/other", "state_directory": "state"},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{dir + "/key", "/other", dir + "/data", dir + "/state"}
		if all := append(got.Encryption.IdentityFiles, got.Postgres.DataDirectory, got.StateDirectory); !slices.Equal(all, want) {
			t.Errorf("paths %q", all)
		}
	})
}

func TestLoadRefuses(t *testing.T) {
	const secret = "hunter2"
	good := writeFile(t, "", 0o600)
	cases := []struct {
		name string
		from Sources
		want string // in the message
	}{
		{"unknown key", Sources{File: writeFile(t, "repository = \"file:///x\"\n[wal]\nconcurency = 3\n", 0o600)}, "line 3: unknown setting wal.concurency"},
		{"unknown section", Sources{File: writeFile(t, "[walx]\nconcurrency = 3\n", 0o600)}, "line 1: unknown setting walx"},
		{"wrong type", Sources{File: writeFile(t, "[backup]\nconcurrency = \"x\"\n", 0o600)}, "line 2"},
		{"duplicate key", Sources{File: writeFile(t, "repository = \"a\"\nrepository = \"b\"\n", 0o600)}, "line 2"},
		{"syntax", Sources{File: writeFile(t, "[postgres]\nconnection = \"password="+secret+"\n", 0o600)}, "line 2"},
		{"duration without unit", Sources{File: writeFile(t, "[wal]\npush_deadline = \"60\"\n", 0o600)}, "wal.push_deadline"},
		{"duration as a number", Sources{File: writeFile(t, "[wal]\npush_deadline = 60\n", 0o600)}, "wal.push_deadline"},
		{"negative rate", Sources{File: writeFile(t, "[backup]\nmax_rate = -5\n", 0o600)}, "backup.max_rate"},
		{"relative path in a file", Sources{File: writeFile(t, "state_directory = \"state\"\n", 0o600)}, "absolute"},
		{"writable by everyone", Sources{File: writeFile(t, "", 0o606)}, "chmod o-w"},
		{"password in a readable file", Sources{File: writeFile(t, "[postgres]\nconnection = \"password="+secret+"\"\n", 0o644)}, "~/.pgpass"},
		{"password as an argument", Sources{File: good, Flags: map[string]string{"postgres.connection": "postgres://u:" + secret + "@h/db"}}, "~/.pgpass"},
		{"missing file", Sources{File: filepath.Join(t.TempDir(), "none")}, "no such file"},
		{"missing file of the environment", Sources{Lookup: environ(FileVariable, "/nonexistent/walship.toml")}, "no such file"},
		{"folder", Sources{File: t.TempDir()}, "regular"},
		{"number out of range", Sources{File: good, Lookup: environ("WALSHIP_BACKUP_CONCURRENCY", "65")}, "WALSHIP_BACKUP_CONCURRENCY"},
		{"no number", Sources{File: good, Lookup: environ("WALSHIP_BACKUP_CONCURRENCY", "many")}, "backup.concurrency"},
		{"below a second", Sources{File: good, Flags: map[string]string{"wal.push_deadline": "10ms"}}, "--wal-push-deadline"},
		{"size overflow", Sources{File: good, Flags: map[string]string{"backup.max_rate": "9999999999TB"}}, "backup.max_rate"},
		{"negative", Sources{File: good, Flags: map[string]string{"backup.max_rate": "-1MB"}}, "backup.max_rate"},
		{"unknown level", Sources{File: good, Flags: map[string]string{"compression.level": "9"}}, "fastest, default, better, best"},
		{"line end", Sources{File: good, Flags: map[string]string{"repository": "file:///x\ny"}}, "line end"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.from.Lookup == nil {
				c.from.Lookup = environ()
			}
			_, err := Load(c.from)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the message has a secret or several lines: %v", err)
			}
		})
	}
}

func TestUnits(t *testing.T) {
	durations := map[string]time.Duration{
		"60s": time.Minute, "5 min": 5 * time.Minute, "1h": time.Hour, "2d": 48 * time.Hour, "7ms": 7 * time.Millisecond, "3us": 3 * time.Microsecond, "0": 0,
	}
	for text, want := range durations {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Duration != want {
			t.Errorf("%s: %s, %v", text, d, err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s is written as %s", text, d)
		}
	}
	sizes := map[string]Size{"0": 0, "1": 1, "7B": 7, "8kB": 8 << 10, "50 MB": 50 << 20, "1GB": 1 << 30, "2TB": 2 << 40, "1025": 1025}
	for text, want := range sizes {
		var s, again Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s is written as %s", text, s)
		}
	}
	for _, text := range []string{"", "s", "5m", "5S", "1.5s", "-5s", "1h30min", "9999999999999999999s", "99999999999999d", "60"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("duration %q accepted", text)
		}
	}
	for _, text := range []string{"", "MB", "5mb", "5MiB", "1.5GB", "-5MB", "9999999999TB"} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q accepted", text)
		}
	}
}

func TestRedact(t *testing.T) {
	connections := map[string]string{
		"host=h user=u":                              "host=h user=u",
		"host=h password=hunter2 user=u":             "host=h password=xxxxx user=u",
		"password = 'hunter2 it\\'s' host=h":         "password = xxxxx host=h",
		"PASSWORD=hunter2":                           "PASSWORD=xxxxx",
		"sslpassword=hunter2 sslkey=/k":              "sslpassword=xxxxx sslkey=/k",
		`password=hun\ ter2 host=h`:                  `password=xxxxx host=h`,
		"password='hunter2":                          "password=xxxxx",
		"passfile=/home/x/.pgpass":                   "passfile=/home/x/.pgpass",
		"postgres://u:hunter2@h:5432/db":             "postgres://u:xxxxx@h:5432/db",
		"postgresql://u@h/db":                        "postgresql://u@h/db",
		"postgresql://h/db?password=hunter2&user=u":  "postgresql://h/db?password=xxxxx&user=u",
		"postgresql://h/db?sslkey=/k&sslmode=verify": "postgresql://h/db?sslkey=/k&sslmode=verify",
		"postgres://u:hunter2%zz@h":                  "xxxxx",
		"":                                           "",
	}
	for text, want := range connections {
		if got := redactConnection(text); got != want {
			t.Errorf("%s is shown as %s", text, got)
		}
		if hasPassword(text) != strings.Contains(text, "hunter2") && !strings.Contains(text, "hun\\") {
			t.Errorf("%s has a password: %v", text, hasPassword(text))
		}
	}
	urls := map[string]string{
		"file:///srv/walship":                        "file:///srv/walship",
		"s3://b/p?region=r&path_style=true":          "s3://b/p?region=r&path_style=true",
		"s3://key:hunter2@b/p":                       "s3://key:xxxxx@b/p",
		"s3://b/p?secret_access_key=hunter2":         "s3://b/p?secret_access_key=xxxxx",
		"s3://b/p?sse=aws:kms&sse_kms_key_id=alias":  "s3://b/p?sse=aws:kms&sse_kms_key_id=alias",
		"s3://b/p?session_token=hunter2&region=r":    "s3://b/p?region=r&session_token=xxxxx",
		"s3://b/p?endpoint=http://127.0.0.1:1&x=%zz": "s3://b/p?xxxxx",
		":hunter2": "xxxxx",
	}
	for text, want := range urls {
		if got := redactURL(text); got != want {
			t.Errorf("%s is shown as %s", text, got)
		}
	}
	c, err := Load(Sources{File: writeFile(t, "", 0o600), Lookup: environ("WALSHIP_POSTGRES_CONNECTION", "password=hunter2", "WALSHIP_REPOSITORY", "s3://a:hunter2@b")})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range c.Values() {
		if strings.Contains(v.Literal(), "hunter2") {
			t.Errorf("%s is shown as %s", v.Key.Name, v.Literal())
		}
	}
}

// The table and the struct have the same keys, and the table is complete.
func TestKeys(t *testing.T) {
	var fields []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for field := range typ.Fields() {
			name, tagged := field.Tag.Lookup("toml")
			if !tagged {
				continue
			}
			if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[Duration]() {
				walk(prefix+name+".", field.Type)
				continue
			}
			fields = append(fields, prefix+name)
		}
	}
	walk("", reflect.TypeFor[Config]())
	var names []string
	for _, k := range Keys() {
		names = append(names, k.Name)
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s isn't documented in sentences", k.Name)
		}
	}
	slices.Sort(fields)
	slices.Sort(names)
	if !slices.Equal(fields, names) {
		t.Errorf("fields %q\nkeys %q", fields, names)
	}
	if k := Keys()[4]; k.Env() != "WALSHIP_WAL_PUSH_DEADLINE" || k.Flag() != "wal-push-deadline" {
		t.Errorf("%s: %s, --%s", k.Name, k.Env(), k.Flag())
	}
}

// docs/configuration.md describes every key, in the table's words.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := Documentation(); !strings.Contains(string(data), want) {
		t.Errorf("docs/configuration.md doesn't have this table:\n%s", want)
	}
}
