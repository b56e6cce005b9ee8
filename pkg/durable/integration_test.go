//go:build integration

package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// writerArgument makes this test's own program the process whose system calls
// are watched and struck.
const writerArgument = "write-a-file"

var written = bytes.Repeat([]byte("walship "), 8<<10)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == writerArgument {
		runtime.LockOSThread() // strace counts calls by thread
		if err := writeOne(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	m.Run()
}

// writeOne writes the file folder/name below dir.
func writeOne(how, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	if how == "mkdir" {
		return MkdirAll(root, "folder/a/b", 0o700)
	}
	f, err := Create(root, "folder/name")
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(written); err != nil {
		return err
	}
	switch how {
	case "link":
		return f.Link()
	case "rename":
		return f.Rename()
	case "volatile":
		return f.RenameVolatile()
	}
	return fmt.Errorf("unknown way %s", how)
}

// trace runs the writer under strace and returns what strace saw, thread by
// thread: in one log of all, a call may be torn by another thread's.
func trace(t *testing.T, how, dir string, options ...string) (calls string, err error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	args := append([]string{"-ff", "-y", "-o", out, "-e", "signal=none"}, options...)
	command := exec.Command("strace", append(args, os.Args[0], writerArgument, how, dir)...)
	var stderr strings.Builder
	command.Stderr = &stderr
	if err = command.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	threads, gerr := filepath.Glob(out + ".*")
	if gerr != nil || len(threads) == 0 {
		t.Fatalf("run strace: %v; its logs: %v, %v", err, threads, gerr)
	}
	for _, thread := range threads {
		data, err := os.ReadFile(thread)
		if err != nil {
			t.Fatal(err)
		}
		calls += string(data)
	}
	return calls, err
}

// newFolder returns a directory with a folder in it, for the writer.
func newFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// leftovers checks that the file is whole if it is there, and counts the
// temporary files beside it.
func leftovers(t *testing.T, dir string) (visible bool, temporary int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "folder"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		switch {
		case IsTemporary(entry.Name()):
			temporary++
		case entry.Name() != "name":
			t.Errorf("there is a file %s", entry.Name())
		default:
			visible = true
			if data, err := os.ReadFile(filepath.Join(dir, "folder/name")); err != nil || !bytes.Equal(data, written) {
				t.Errorf("the file holds %d bytes, %v; want it whole or not at all", len(data), err)
			}
		}
	}
	return visible, temporary
}

// step matches a call that succeeded: its name, and the last path of its
// arguments that lies in the test's directory.
var step = regexp.MustCompile(`(?m)^(\w+)\((.*)\) += \d`)

// The order of the system calls is what makes a file durable.
func TestOrder(t *testing.T) {
	for how, want := range map[string][]string{
		"link":     {"write TEMP", "fsync TEMP", "close TEMP", "linkat", "unlinkat", "fsync folder"},
		"rename":   {"write TEMP", "fsync TEMP", "close TEMP", "renameat", "fsync folder"},
		"volatile": {"write TEMP", "close TEMP", "renameat"},
		"mkdir":    {"fsync .", "mkdirat", "fsync folder", "mkdirat", "fsync folder/a"},
	} {
		t.Run(how, func(t *testing.T) {
			dir := newFolder(t)
			log, err := trace(t, how, dir, "-e", "trace=write,fsync,close,linkat,/^rename,unlinkat,mkdirat")
			if err != nil {
				t.Fatal(err)
			}
			if got := steps(log, dir); !slices.Equal(got, want) {
				t.Errorf("the calls are %q; want %q:\n%s", got, want, log)
			}
		})
	}
}

// steps reduces a log to the calls that concern dir.
func steps(log, dir string) []string {
	var got []string
	for _, call := range step.FindAllStringSubmatch(log, -1) {
		name, arguments := call[1], call[2]
		_, path, inside := strings.Cut(arguments, "<"+dir)
		if !inside {
			continue
		}
		path, _, _ = strings.Cut(path, ">")
		path = strings.TrimPrefix(path, "/")
		switch {
		case name == "linkat" || name == "unlinkat" || name == "mkdirat" || strings.HasPrefix(name, "rename"):
			got = append(got, strings.TrimSuffix(name, "2"))
		case IsTemporary(path):
			got = append(got, name+" TEMP")
		case name == "fsync" && path == "":
			got = append(got, "fsync .")
		case name != "close":
			got = append(got, name+" "+path)
		}
	}
	return got
}

// Faults 6 and 9: a call that fails makes the operation fail, is not made
// again, and leaves nothing in the way of the next try.
func TestCallFails(t *testing.T) {
	for _, c := range []struct {
		how, call, errno string
		when             int
		visible          bool
		message          string
	}{
		{"link", "write", "ENOSPC", 1, false, "no space left on device"},
		{"link", "fsync", "EIO", 1, false, "input/output error"},
		{"link", "linkat", "EIO", 1, false, "input/output error"},
		{"link", "linkat", "EEXIST", 1, false, "file exists"},
		{"link", "fsync", "EIO", 2, true, "fsync folder"},
		{"rename", "write", "ENOSPC", 1, false, "no space left on device"},
		{"rename", "fsync", "EIO", 1, false, "input/output error"},
		{"rename", "/^rename", "EIO", 1, false, "input/output error"},
		{"rename", "fsync", "EIO", 2, true, "fsync folder"},
	} {
		t.Run(fmt.Sprint(c.how, " ", strings.Trim(c.call, "/^"), " ", c.when, " ", c.errno), func(t *testing.T) {
			dir := newFolder(t)
			log, err := trace(t, c.how, dir, "-e", "trace="+c.call,
				"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.call, c.errno, c.when))
			if strings.Count(log, "(INJECTED)") != 1 {
				t.Fatalf("the fault didn't strike once:\n%s", log)
			}
			if err == nil || !strings.Contains(err.Error(), c.message) {
				t.Errorf("the writer: %v; want a failure that says %q", err, c.message)
			}
			if c.call == "fsync" && c.when == 1 && strings.Count(log, tempPrefix) != 1 {
				t.Errorf("fsync was called again:\n%s", log)
			}
			if visible, temporary := leftovers(t, dir); visible != c.visible || temporary != 0 {
				t.Errorf("visible: %t, temporary files: %d; want %t and none", visible, temporary, c.visible)
			}
			again(t, c.how, dir)
		})
	}
}

// Faults 1 and 2: killed at any step, a writer leaves the file whole or not at
// all, and the next one ends as if nothing had been.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		how, call string
		when      int
	}{
		{"link", "write", 1},
		{"link", "fsync", 1},
		{"link", "linkat", 1},
		{"link", "unlinkat", 1},
		{"link", "fsync", 2},
		{"rename", "write", 1},
		{"rename", "fsync", 1},
		{"rename", "/^rename", 1},
		{"rename", "fsync", 2},
		{"volatile", "/^rename", 1},
	} {
		t.Run(fmt.Sprint(c.how, " ", strings.Trim(c.call, "/^"), " ", c.when), func(t *testing.T) {
			dir := newFolder(t)
			log, err := trace(t, c.how, dir, "-e", "trace="+c.call,
				"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", c.call, c.when))
			if err == nil || !unfinished(dir).MatchString(log) {
				t.Fatalf("the writer was not killed at this step: %v\n%s", err, log)
			}
			leftovers(t, dir)
			again(t, c.how, dir)
		})
	}
}

// unfinished matches a call on a path in dir that never returned.
func unfinished(dir string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^\w+\(.*<` + regexp.QuoteMeta(dir) + `.* = \?$`)
}

// again writes once more, undisturbed.
func again(t *testing.T, how, dir string) {
	t.Helper()
	err := writeOne(how, dir)
	if taken := errors.Is(err, fs.ErrExist); err != nil && (how != "link" || !taken) {
		t.Errorf("the next writer: %v", err)
	}
	if visible, _ := leftovers(t, dir); !visible {
		t.Error("after the next writer the file isn't there")
	}
}
