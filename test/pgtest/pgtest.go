// Package pgtest runs real PostgreSQL servers of the majors 14 to 18 for
// tests, all through one interface.
//
// Whatever it runs, it runs as the user nobody with an environment of its own:
// servers, PostgreSQL's tools, and walship itself. The test process has to be
// root, and sees the same paths as they do. Where each major comes from:
//
//	15      the machine's own Debian packages, with all tools
//	17, 18  trees of later Debian releases, with all tools
//	14, 16  servers only: postgres, initdb and pg_ctl
//
// Trees and servers lie in the tests' cache (scripts/lib/tools.sh fills it).
// They are mounted for a process in a mount namespace of its own, so nothing
// stays mounted when it ends. Servers listen on Unix sockets only.
package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Major is a major version of PostgreSQL, 14 to 18.
type Major int

// Majors lists every major, for tests that run on each.
func Majors() []Major { return []Major{14, 15, 16, 17, 18} }

func (m Major) String() string { return strconv.Itoa(int(m)) }

// nobody is the user and group that everything runs as.
const nobody = 65534

// base holds every file that the tests share with the user nobody. It is
// short, because a socket's path has to stay below 108 bytes, and it has the
// same path inside and outside of a major's tree.
const base = "/tmp/walship-test"

// HasTool tells whether the major has a program of that name: "pg_dump",
// "pg_verifybackup", …
func (m Major) HasTool(name string) bool {
	path := filepath.Join(m.binDir(), name)
	switch m.home() {
	case homeTree:
		path = filepath.Join(m.cacheDir(), path)
	case homeServer:
		path = filepath.Join(m.cacheDir(), "bin", name)
	}
	_, err := os.Stat(path)
	return err == nil
}

// home says where a major comes from.
type home int

const (
	homeMachine home = iota
	homeTree
	homeServer
)

func (m Major) home() home {
	switch m {
	case 15:
		return homeMachine
	case 17, 18:
		return homeTree
	}
	return homeServer
}

// binDir is the directory of the major's programs, as they see it themselves.
func (m Major) binDir() string {
	if m.home() == homeServer {
		return filepath.Join(m.mountPoint(), "bin")
	}
	return "/usr/lib/postgresql/" + m.String() + "/bin"
}

// mountPoint is where a server without a tree is mounted for its processes:
// the cache itself may lie where nobody can't read.
func (m Major) mountPoint() string { return filepath.Join(base, "pg"+m.String()) }

func (m Major) cacheDir() string { return filepath.Join(cache(), "pg"+m.String()) }

// cache is the directory that scripts/lib/tools.sh fills.
func cache() string {
	if dir := os.Getenv("WALSHIP_TEST_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "/nonexistent"
	}
	return filepath.Join(dir, "walship-test")
}

// require fails the test unless the major can run here.
func (m Major) require(t testing.TB) {
	t.Helper()
	if m < 14 || m > 18 {
		t.Fatalf("run PostgreSQL %d: no such major here, 14 to 18 are", m)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("run PostgreSQL %d: the tests must run as root, to run servers as nobody", m)
	}
	if !m.HasTool("postgres") {
		t.Fatalf("run PostgreSQL %d: it isn't installed (scripts/lib/tools.sh does that)", m)
	}
}
