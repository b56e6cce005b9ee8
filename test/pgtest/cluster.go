package pgtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Cluster is one data directory and the server that runs in it at times.
type Cluster struct {
	Major     Major
	Dir       string // private directory of the cluster, owned by nobody
	DataDir   string
	SocketDir string
	Port      int

	settings []string // "name=value", given to the server on its command line
	env      []string
	server   *server // nil unless running
	log      string  // path of what the servers have printed
	logStart int64   // where in it the latest server's part starts
}

// Option changes how New and Open set a cluster up.
type Option func(*options)

type options struct {
	initdb   []string
	settings [][2]string
	env      []string
	durable  bool
	sums     *bool
}

// SegmentSize sets the size of WAL segments, in MiB: a power of two, 1 to
// 1024. For New only.
func SegmentSize(mebibytes int) Option {
	return InitArgs("--wal-segsize=" + strconv.Itoa(mebibytes))
}

// Checksums turns data checksums on or off, whatever the major's default is.
// For New only.
func Checksums(on bool) Option { return func(o *options) { o.sums = &on } }

// InitArgs adds arguments of initdb. For New only.
func InitArgs(args ...string) Option {
	return func(o *options) { o.initdb = append(o.initdb, args...) }
}

// Set sets a configuration parameter: in postgresql.conf for New, on the
// server's command line for Open, so that it overrides what was restored.
func Set(name, value string) Option {
	return func(o *options) { o.settings = append(o.settings, [2]string{name, value}) }
}

// Env adds variables ("NAME=value") to the environment of the server, and so of
// its archive and restore commands.
func Env(variables ...string) Option {
	return func(o *options) { o.env = append(o.env, variables...) }
}

// Durable leaves fsync on. A server that is only killed doesn't need it,
// because the kernel keeps what was written.
func Durable() Option { return func(o *options) { o.durable = true } }

// New makes a cluster as initdb does, in a work directory of its own, and doesn't
// start it. The superuser is postgres, the locale C, the encoding UTF8, and
// whoever reaches the socket is trusted. The server is stopped at the end of
// the test.
func New(t testing.TB, major Major, opts ...Option) *Cluster {
	t.Helper()
	o := collect(opts)
	c := attach(t, major, o)
	c.DataDir = filepath.Join(c.Dir, "data")

	args := append([]string{"-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"}, o.initdb...)
	if o.sums != nil {
		switch {
		case *o.sums:
			args = append(args, "--data-checksums")
		case major >= 18: // where they are the default
			args = append(args, "--no-data-checksums")
		}
	}
	c.initialise(t, args)

	settings := [][2]string{
		{"shared_buffers", "16MB"}, {"jit", "off"}, {"log_line_prefix", "%m [%p] "}, {"log_statement", "none"},
	}
	if !o.durable {
		settings = append(settings, [2]string{"fsync", "off"})
	}
	var text strings.Builder
	for _, s := range append(settings, o.settings...) {
		text.WriteString(s[0] + " = " + quote(s[1]) + "\n")
	}
	c.AppendConf(t, text.String())
	return c
}

// Open attaches to a data directory that is there already, for example one that
// walship has restored, and doesn't start it. Where its settings say which
// socket to use, they are overridden.
func Open(t testing.TB, major Major, dataDir string, opts ...Option) *Cluster {
	t.Helper()
	o := collect(opts)
	c := attach(t, major, o)
	c.DataDir = dataDir
	for _, s := range o.settings {
		c.settings = append(c.settings, s[0]+"="+s[1])
	}
	return c
}

func collect(opts []Option) *options {
	o := new(options)
	for _, opt := range opts {
		opt(o)
	}
	return o
}

func attach(t testing.TB, major Major, o *options) *Cluster {
	t.Helper()
	major.require(t)
	dir := WorkDir(t)
	c := &Cluster{
		Major: major, Dir: dir, SocketDir: MkdirNobody(t, dir, "s"), Port: 5432,
		env: o.env, log: filepath.Join(dir, "log"),
	}
	t.Cleanup(func() { c.cleanup(t) })
	return c
}

// AppendConf adds lines to postgresql.conf. A running server doesn't read them
// by itself.
func (c *Cluster) AppendConf(t testing.TB, lines string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(c.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(lines); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// HasTool tells whether the cluster's major has a program of that name.
func (c *Cluster) HasTool(name string) bool { return c.Major.HasTool(name) }

// Tool prepares one of PostgreSQL's own programs of the cluster's major, run as
// nobody with libpq's variables set to the cluster.
func (c *Cluster) Tool(ctx context.Context, t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	if !c.HasTool(name) {
		t.Fatalf("run %s: PostgreSQL %d has none here", name, c.Major)
	}
	return c.Command(ctx, t, filepath.Join(c.Major.binDir(), name), args...)
}

// Command is the function Command with libpq's variables set to the cluster and
// with the variables that option Env gave to its server.
func (c *Cluster) Command(ctx context.Context, t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := Command(ctx, t, c.Major, program, args...)
	cmd.Dir = c.Dir
	cmd.Env = append(cmd.Env, "HOME="+c.Dir,
		"PGHOST="+c.SocketDir, "PGPORT="+strconv.Itoa(c.Port), "PGUSER=postgres", "PGDATABASE=postgres")
	cmd.Env = append(cmd.Env, c.env...)
	return cmd
}

// quote writes a value as postgresql.conf takes it.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + "'"
}

// Mode is how a server is asked to stop.
type Mode syscall.Signal

// The modes of pg_ctl stop.
const (
	Smart     = Mode(syscall.SIGTERM)
	Fast      = Mode(syscall.SIGINT)
	Immediate = Mode(syscall.SIGQUIT)
)
