package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// KeepVariable names the environment variable that keeps the files of tests
// when it is set to anything.
const KeepVariable = "WALSHIP_TEST_KEEP"

// WorkDir makes a private directory with a short path that the user nobody
// owns and every major sees. It is removed at the end of the test, after
// everything that was registered later; KeepVariable keeps it. A process that
// still runs in it then is killed and fails the test.
func WorkDir(t testing.TB) string {
	t.Helper()
	if err := makeBase(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, "t")
	if err != nil {
		t.Fatalf("make a work directory: %v", err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatalf("make a work directory: %v", err)
	}
	t.Cleanup(func() {
		for _, p := range stragglers(dir) {
			t.Errorf("process %d (%s) still ran in %s at the end of the test", p.pid, p.command(), dir)
			p.kill()
		}
		if os.Getenv(KeepVariable) != "" {
			t.Logf("kept %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the work directory: %v", err)
		}
	})
	return dir
}

// MkdirNobody makes a directory that the user nobody owns, mode 0700, and
// returns its path.
func MkdirNobody(t testing.TB, elements ...string) string {
	t.Helper()
	dir := filepath.Join(elements...)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return dir
}

// WriteNobody writes a file that the user nobody owns, mode 0600, and returns
// its path.
func WriteNobody(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeBase makes the directory of all work directories. It belongs to root, so
// nobody can put a link in the place of a work directory.
func makeBase() error {
	if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", base, err)
	}
	info, err := os.Lstat(base)
	if err != nil {
		return fmt.Errorf("make %s: %w", base, err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; !info.IsDir() || int(owner) != os.Geteuid() {
		return fmt.Errorf("make %s: it is there already, and isn't a directory of this user", base)
	}
	for _, m := range Majors() {
		if m.home() != homeServer {
			continue
		}
		if err := os.Mkdir(m.mountPoint(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a mount point: %w", err)
		}
	}
	return nil
}

// process is one process, safe against reuse of its number.
type process struct {
	pid     int
	started string // field 22 of /proc/PID/stat
}

// stat returns the process's parent and whether it still lives (a zombie
// doesn't).
func (p process) stat() (parent int, alive bool) {
	parent, state, started, err := readStat(p.pid)
	return parent, err == nil && started == p.started && state != "Z" && state != "X"
}

func (p process) command() string {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "cmdline"))
	if err != nil {
		return "ended"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
}

// kill ends the process at once. That it may have ended by itself is no error.
func (p process) kill() {
	if _, alive := p.stat(); alive {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

func readStat(pid int) (parent int, state, started string, err error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, "", "", err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0, "", "", fmt.Errorf("read the state of process %d: %q", pid, data)
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0], fields[19], err
}

// processes lists what runs on the machine now.
func processes() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, _, started, err := readStat(pid); err == nil {
			all = append(all, process{pid, started})
		}
	}
	return all
}

// descendants lists the processes that pid has started, directly or not.
func descendants(pid int) []process {
	children := map[int][]process{}
	for _, p := range processes() {
		if parent, alive := p.stat(); alive {
			children[parent] = append(children[parent], p)
		}
	}
	var found []process
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		for _, child := range children[todo[0]] {
			found = append(found, child)
			todo = append(todo, child.pid)
		}
	}
	return found
}

// stragglers lists the processes in dir that don't end by themselves in a
// moment, as the last children of a server do.
func stragglers(dir string) []process {
	var found []process
	poll(2*time.Second, func() bool {
		found = runningIn(dir)
		return len(found) == 0
	})
	return found
}

// runningIn lists the processes whose working directory is dir or below it.
func runningIn(dir string) []process {
	var found []process
	for _, p := range processes() {
		// In another mount namespace, the path has a prefix.
		cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.pid), "cwd"))
		if err == nil && strings.Contains(cwd+"/", dir+"/") && p.pid != os.Getpid() {
			found = append(found, p)
		}
	}
	return found
}

// poll calls done until it returns true or the time is over, and returns what
// it returned last.
func poll(most time.Duration, done func() bool) bool {
	deadline := time.Now().Add(most)
	for {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// WaitFor polls condition and fails the test if it isn't met within a minute.
func WaitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !poll(waitTimeout, condition) {
		t.Fatalf("waited %v for %s", waitTimeout, what)
	}
}

const waitTimeout = time.Minute
