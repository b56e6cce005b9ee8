package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	failure := errors.New("failure")
	t.Run("end", func(t *testing.T) {
		done := make(chan error, 1)
		done <- failure
		if s, err := wait(done, nil, nil, nil); !errors.Is(err, failure) || s != nil {
			t.Error(s, err)
		}
	})
	t.Run("a signal cancels, and the command ends", func(t *testing.T) {
		done, signals := make(chan error, 1), make(chan os.Signal, 1)
		signals <- syscall.SIGTERM
		s, err := wait(done, signals, nil, func(cause error) { done <- cause })
		if s != syscall.SIGTERM || err == nil || !strings.Contains(err.Error(), "terminated") {
			t.Error(s, err)
		}
	})
	t.Run("a second signal doesn't wait", func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		signals <- syscall.SIGINT
		signals <- syscall.SIGTERM
		if s, err := wait(nil, signals, nil, func(error) {}); s != syscall.SIGINT || err == nil {
			t.Error(s, err)
		}
	})
	t.Run("a command that hangs behind its deadline is left", func(t *testing.T) {
		overdue := make(chan struct{}, 1)
		overdue <- struct{}{}
		if s, err := wait(nil, nil, overdue, nil); s != nil || err == nil {
			t.Error(s, err)
		}
	})
}

func TestDeadline(t *testing.T) {
	e := newEnvironment(stdio{})
	ctx, cancel := e.deadline(t.Context(), time.Millisecond)
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error(ctx.Err())
	}
	cancel()
}

func TestReport(t *testing.T) {
	err := withHint(errors.New("open x: broken\n"), "mend it")
	var out bytes.Buffer
	e := newEnvironment(stdio{err: &out, lookup: func(string) (string, bool) { return "", false }})
	e.report(err, groupOther)
	if out.String() != "walship: open x: broken\nwalship: hint: mend it\n" {
		t.Errorf("text: %q", out.String())
	}
	e.flags["log.format"] = "json"
	if _, err := e.config(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	e.report(err, groupOther)
	if !strings.HasPrefix(out.String(), "{") || !strings.Contains(out.String(), `"hint":"mend it"`) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("JSON: %q", out.String())
	}
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	e := newEnvironment(stdio{lookup: func(string) (string, bool) { return "", false }})
	e.flags["state_directory"] = dir + "/a/b"
	open := func(id uint64, data string) string {
		t.Helper()
		root, err := e.state(id, data)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		info, err := root.Stat(".")
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		return root.Name()
	}
	first := open(1, "/srv/a")
	if open(1, "/srv/a/") != first || open(2, "/srv/a") == first || open(1, "/srv/b") == first {
		t.Error("not one folder for each system identifier and data directory")
	}
	if err := os.Chmod(first, 0o777); err != nil {
		t.Fatal(err)
	}
	if root, err := e.state(1, "/srv/a"); err == nil {
		root.Close()
		t.Error("a folder that others can write to was taken")
	}
}
