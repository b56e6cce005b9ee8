package early

import (
	"go/parser"
	"go/token"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/done"
)

// TestImports: each of these packages is initialised right after package os, and
// before most of walship. One that is initialised late, such as strings or fmt,
// would make this package wait until libraries are initialised that take
// milliseconds. To see the order: GODEBUG=inittrace=1 walship wal push PATH.
func TestImports(t *testing.T) {
	allowed := []string{"bytes", "errors", "hash/fnv", "io", "io/fs", "os", "strconv", "syscall", "time", "github.com/walship/walship/pkg/done"}
	for _, file := range []string{"early.go", "settings.go", "../../../pkg/done/done.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", file, spec.Path.Value)
			}
		}
	}
	for pattern, want := range map[string]int{"*.go": 3, "../../../pkg/done/*.go": 2} {
		if files, err := filepath.Glob(pattern); err != nil || len(files) != want {
			t.Errorf("%s: %v, %v: is each in the list?", pattern, files, err)
		}
	}
}

func TestPlainPush(t *testing.T) {
	for _, test := range []struct {
		args         []string
		config, path string
		plain        bool
	}{
		{[]string{"walship", "wal", "push", "pg_wal/1"}, "", "pg_wal/1", true},
		{[]string{"walship", "--config", "FILE", "wal", "push", "pg_wal/1"}, "FILE", "pg_wal/1", true},
		{[]string{"walship", "--config=FILE", "wal", "push", "pg_wal/1"}, "FILE", "pg_wal/1", true},
		{[]string{"walship", "--repository=URL", "--config", "FILE", "wal", "push", "pg_wal/1"}, "FILE", "pg_wal/1", true},
		{[]string{"walship", "--config=A", "--config=B", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "--config", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "--repository", "URL", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "-config=FILE", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push", "--strict"}, "", "", false},
		{[]string{"walship", "wal", "push", "--strict", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push", "pg_wal/1", "pg_wal/2"}, "", "", false},
		{[]string{"walship", "wal", "fetch", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push"}, "", "", false},
		{[]string{"walship", "--config"}, "", "", false},
		{[]string{"walship"}, "", "", false},
		{nil, "", "", false},
	} {
		config, path, plain := plainPush(test.args)
		if config != test.config || path != test.path || plain != test.plain {
			t.Errorf("%q: config %q, path %q, plain %t; want %q, %q, %t", test.args, config, path, plain, test.config, test.path, test.plain)
		}
	}
}

const segment = "000000010000000000000003"

// site is a data directory with a segment, and a record of it.
type site struct {
	dir, state, settings string
	args, environ        []string
	record               done.Record
	now                  time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), state: filepath.Join(t.TempDir(), "state"), settings: filepath.Join(t.TempDir(), "walship.toml"), now: time.Now()}
	text := "repository = \"file:///r\"\nstate_directory = \"" + s.state + "\"\n"
	s.args = []string{"walship", "--config", s.settings, "wal", "push", "pg_wal/" + segment}
	s.environ = []string{"HOME=/nowhere", "PGDATA=" + s.dir}
	t.Chdir(s.dir)
	must(t, os.WriteFile(s.settings, []byte(text), 0o600))
	must(t, os.Mkdir("pg_wal", 0o700))
	must(t, os.WriteFile("pg_wal/"+segment, []byte("wal"), 0o600))
	info, err := os.Stat("pg_wal/" + segment)
	must(t, err)
	s.record = done.Record{
		At: s.now, Read: s.now, Repository: "00112233445566778899aabbccddeeff", Segment: segment,
		Call: done.NewCall(s.args[:5], s.environ, s.dir, []byte(text)), File: done.Identify(info),
	}
	must(t, os.MkdirAll(s.folder(), 0o700))
	return s
}

func (s *site) folder() string { return filepath.Join(s.state, done.Folder(s.dir)) }
func (s *site) file() string   { return filepath.Join(s.folder(), segment) }

func (s *site) answered() bool {
	config, path, plain := plainPush(s.args)
	return plain && answered(s.args, s.environ, config, path, s.now)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Fault 4: nothing is called archived that isn't known to be.
func TestAnswered(t *testing.T) {
	for what, c := range map[string]struct {
		change func(t *testing.T, s *site)
		want   bool
	}{
		"as it was":   {func(*testing.T, *site) {}, true},
		"in time":     {func(_ *testing.T, s *site) { s.now = s.now.Add(done.KnownLife - 1) }, true},
		"too late":    {func(_ *testing.T, s *site) { s.now = s.now.Add(done.KnownLife) }, false},
		"too early":   {func(_ *testing.T, s *site) { s.now = s.now.Add(-1) }, false},
		"other flags": {func(_ *testing.T, s *site) { s.args = slices.Insert(s.args, 1, "--repository=file:///other") }, false},
		"variable":    {func(_ *testing.T, s *site) { s.environ = append(s.environ, "WALSHIP_REPOSITORY=file:///other") }, false},
		"settings": {func(t *testing.T, s *site) {
			text := "repository = \"file:///s\"\nstate_directory = \"" + s.state + "\"\n"
			must(t, os.WriteFile(s.settings, []byte(text), 0o600))
		}, false},
		"no settings":         {func(t *testing.T, s *site) { must(t, os.Remove(s.settings)) }, false},
		"segment is changed":  {func(t *testing.T, _ *site) { must(t, os.Chtimes("pg_wal/"+segment, time.Time{}, time.Unix(1e9, 0))) }, false},
		"segment is gone":     {func(t *testing.T, _ *site) { must(t, os.Remove("pg_wal/"+segment)) }, false},
		"another segment":     {func(_ *testing.T, s *site) { s.args[5] = "pg_wal/000000010000000000000004" }, false},
		"others could write":  {func(t *testing.T, s *site) { must(t, os.Chmod(s.folder(), 0o777)) }, false},
		"record is cut":       {func(t *testing.T, s *site) { must(t, os.Truncate(s.file(), 100)) }, false},
		"record is long":      {func(t *testing.T, s *site) { must(t, os.Truncate(s.file(), 1<<40)) }, false},
		"record is a folder":  {func(t *testing.T, s *site) { must(t, os.Remove(s.file())); must(t, os.Mkdir(s.file(), 0o700)) }, false},
		"no record":           {func(t *testing.T, s *site) { must(t, os.Remove(s.file())) }, false},
		"no state directory":  {func(t *testing.T, s *site) { must(t, os.RemoveAll(s.state)) }, false},
		"not plain":           {func(_ *testing.T, s *site) { s.args = slices.Insert(s.args, 5, "--strict") }, false},
		"another data folder": {func(t *testing.T, s *site) { must(t, os.Rename("pg_wal", s.state+"/pg_wal")); t.Chdir(s.state) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			must(t, os.WriteFile(s.file(), s.record.Encode(), 0o600))
			c.change(t, s)
			if got := s.answered(); got != c.want {
				t.Errorf("answered: %t", got)
			}
			if _, err := os.Lstat(s.file()); c.want && !os.IsNotExist(err) {
				t.Errorf("the record stays: %v", err)
			}
			if s.answered() {
				t.Error("it serves twice")
			}
		})
	}
}

func databaseHome() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// The state directory is looked for where the settings put it.
func TestStateDirectory(t *testing.T) {
	for what, c := range map[string]struct {
		text    string
		environ []string
	}{
		"file":             {"state_directory = \"/one\"\n", []string{"HOME=/home/x"}},
		"file, without":    {"repository = \"file:///r\"\n\n[wal]\nprefetch = 1\n", []string{"HOME=/home/x"}},
		"narrow":           {"log.level = \"info\"\nstate_directory=\"/two\" # here\n", []string{"HOME=/home/x"}},
		"variable":         {"state_directory = \"/one\"\n", []string{"WALSHIP_STATE_DIRECTORY=/three", "HOME=/home/x"}},
		"empty variable":   {"state_directory = \"/one\"\n", []string{"WALSHIP_STATE_DIRECTORY=", "HOME=/home/x"}},
		"base directory":   {"", []string{"XDG_STATE_HOME=/state", "HOME=/home/x"}},
		"relative base":    {"", []string{"XDG_STATE_HOME=state", "HOME=/home/x"}},
		"home":             {"", []string{"HOME=/home/x"}},
		"relative home":    {"", []string{"HOME=x"}},
		"of the database":  {"", nil},
		"empty home":       {"", []string{"HOME="}},
		"a longer name":    {"", []string{"HOME2=/a", "HOME=/home/x"}},
		"relative setting": {"", []string{"WALSHIP_STATE_DIRECTORY=here"}},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			file := filepath.Join(dir, "walship.toml")
			must(t, os.WriteFile(file, []byte(c.text), 0o600))
			settings, err := config.Load(config.Sources{File: file, Home: databaseHome, Lookup: func(name string) (string, bool) {
				value := variable(c.environ, name)
				return value, value != ""
			}})
			must(t, err)
			got := stateDirectory([]byte(c.text), c.environ)
			if got != "" {
				got, err = filepath.Abs(got)
				must(t, err)
			}
			if got != settings.StateDirectory {
				t.Errorf("%q, and the settings say %q", got, settings.StateDirectory)
			}
		})
	}
	if defaultFile != config.DefaultFile {
		t.Errorf("the default file is %s", config.DefaultFile)
	}
}
