package pgtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Scripts that mount what a major needs and become its command. Their own
// process is the one that PostgreSQL's programs end up in, so the process id is
// the server's. All mounts go with the namespace.
const (
	// The whole /tmp is the same inside and outside, and so is the working
	// directory, which has to be in it.
	enterTree = `
tree=$1; shift
mount --bind /tmp "$tree/tmp"
mount --rbind /dev "$tree/dev"
mount --rbind /proc "$tree/proc"
exec chroot "$tree" env -C "$PWD" "$@"`

	enterServer = `
mount --bind "$1" "$2"; shift 2
exec "$@"`
)

// Command prepares program, which must be static or belong to the major, to be
// run as nobody in the major's environment: its root, its programs first in
// PATH, and nothing of the test's own variables. Dir is a directory in /tmp,
// and the caller may change it; Env may be added to. Path and arguments are
// those that the program sees.
//
// The process is killed when the context or the test process ends.
func Command(ctx context.Context, t testing.TB, major Major, program string, args ...string) *exec.Cmd {
	t.Helper()
	major.require(t)
	if err := makeBase(); err != nil {
		t.Fatal(err)
	}
	return wrapped(ctx, major, program, args...)
}

func wrapped(ctx context.Context, major Major, program string, args ...string) *exec.Cmd {
	line := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--pdeathsig=QUIT", "--", program}
	switch major.home() {
	case homeTree:
		line = append([]string{"unshare", "-m", "--propagation=private", "sh", "-euc", enterTree, "sh", major.cacheDir()}, line...)
	case homeServer:
		line = append([]string{"unshare", "-m", "--propagation=private", "sh", "-euc", enterServer, "sh", major.cacheDir(), major.mountPoint()}, line...)
	}
	line = append(line, args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = base
	cmd.Env = []string{
		"PATH=" + major.binDir() + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/nonexistent", "USER=nobody", "LC_ALL=C", "TZ=UTC",
	}
	cmd.WaitDelay = 10 * time.Second // a grandchild may hold the output open
	return cmd
}

// Result is what a command did.
type Result struct {
	Stdout string
	Stderr string
	Code   int // -1 if a signal ended it
}

// Run runs a command to its end, whatever its exit code. It fails the test only
// if the command can't be run.
func Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v\n%s", cmd, err, stderr.String())
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// MustRun runs a command, fails the test unless it exits 0, and returns what it
// wrote to its standard output.
func MustRun(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	result := Run(t, cmd)
	if result.Code != 0 {
		t.Fatalf("run %s: exit code %d\n%s%s", shorten(cmd), result.Code, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// shorten leaves out how the command is wrapped.
func shorten(cmd *exec.Cmd) string {
	line := cmd.Args
	for i, arg := range line {
		if arg == "--" {
			line = line[i+1:]
			break
		}
	}
	return strings.Join(line, " ")
}

var walship struct {
	once sync.Once
	path string
	err  error
}

// BuildWalship builds the command walship, once for the test process, and
// returns its path, which is the same in every major's environment. Binaries
// are named by their content and shared between test processes.
func BuildWalship(t testing.TB) string {
	t.Helper()
	walship.once.Do(func() { walship.path, walship.err = buildWalship() })
	if walship.err != nil {
		t.Fatalf("build walship: %v", walship.err)
	}
	return walship.path
}

func buildWalship() (string, error) {
	if err := makeBase(); err != nil {
		return "", err
	}
	dir := filepath.Join(base, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	removeOld(dir)
	built, err := os.CreateTemp(dir, "new")
	if err != nil {
		return "", err
	}
	defer os.Remove(built.Name())
	defer built.Close()
	build := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-o", built.Name(), "github.com/walship/walship/cmd/walship")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", errors.New(err.Error() + "\n" + string(output))
	}
	// The build has replaced the file, so it is opened anew.
	digest, err := fileDigest(built.Name())
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "walship-"+digest[:16])
	if err := os.Chmod(built.Name(), 0o755); err != nil {
		return "", err
	}
	return path, os.Rename(built.Name(), path)
}

// removeOld removes binaries of earlier days. Another process may do so at the
// same time, and what stays does no harm, so errors say nothing.
func removeOld(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
