package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// silentServer accepts connections and never answers. It returns its address,
// and a channel that tells of each connection.
func silentServer(t *testing.T) (string, <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	accepted := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			accepted <- struct{}{}
		}
	}()
	return listener.Addr().String(), accepted
}

// program is walship as a process, with a repository that never answers.
func program(t *testing.T, address string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for _, folder := range []string{"global", "pg_wal"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	control, err := os.ReadFile(controlFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"global/pg_control":       controlFileOf(control, 7523456789012345678),
		"pg_wal/00000002.history": []byte("1\t0/3000000\tno recovery target specified\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "walship" // TestMain runs the program then
	cmd.Dir = dir
	cmd.Env = []string{
		"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret",
		"WALSHIP_REPOSITORY=s3://bucket/x?region=us-east-1&path_style=true&endpoint=http://" + address,
	}
	return cmd
}

// end waits for the end of a process that was told to stop, and says how it
// ended.
func end(t *testing.T, cmd *exec.Cmd, within time.Duration) syscall.WaitStatus {
	t.Helper()
	begun := time.Now()
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the status says more than the error
	if took := time.Since(begun); took > within {
		t.Errorf("it took %s", took)
	}
	status, is := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !is {
		t.Fatal("no status")
	}
	return status
}

// A push that is told to stop does so within 5 seconds, with "try again"; a
// fetch dies by the signal, because any code would be an answer (fault 3,
// rule 27).
func TestSignals(t *testing.T) {
	cases := []struct {
		args   []string
		signal syscall.Signal
		killer syscall.Signal // 0: it exits with code
		code   int
	}{
		{[]string{"wal", "push", "pg_wal/00000002.history"}, syscall.SIGTERM, 0, 10},
		{[]string{"wal", "push", "pg_wal/00000002.history"}, syscall.SIGINT, 0, 10},
		{[]string{"wal", "fetch", "00000002.history", "pg_wal/RECOVERYHISTORY"}, syscall.SIGTERM, syscall.SIGTERM, 0},
		{[]string{"wal", "fetch", "00000002.history", "pg_wal/RECOVERYHISTORY"}, syscall.SIGQUIT, syscall.SIGTERM, 0},
		{[]string{"wal", "list"}, syscall.SIGTERM, 0, 1},
	}
	for _, c := range cases {
		t.Run(c.args[1]+" "+c.signal.String(), func(t *testing.T) {
			t.Parallel()
			address, accepted := silentServer(t)
			cmd := program(t, address, c.args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-accepted
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			status := end(t, cmd, 5*time.Second)
			if status.Signaled() != (c.killer != 0) || status.Signaled() && status.Signal() != c.killer || status.Exited() && status.ExitStatus() != c.code {
				t.Errorf("it ended with %v\n%s", cmd.ProcessState, stderr.String())
			}
			if c.killer == 0 && !bytes.Contains(stderr.Bytes(), []byte("stopped by signal")) {
				t.Errorf("it said %s", stderr.String())
			}
		})
	}
}

// The deadline holds against a peer that accepts and never answers (fault 8).
func TestDeadlineOfSilentServer(t *testing.T) {
	for command, code := range map[string]int{"push": 10, "fetch": 255} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			address, _ := silentServer(t)
			args := map[string][]string{
				"push":  {"--wal-push-deadline=1s", "wal", "push", "pg_wal/00000002.history"},
				"fetch": {"--wal-fetch-deadline=1s", "wal", "fetch", "00000002.history", "pg_wal/RECOVERYHISTORY"},
			}
			cmd := program(t, address, args[command]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if status := end(t, cmd, 5*time.Second); status.ExitStatus() != code {
				t.Errorf("it ended with %v", cmd.ProcessState)
			}
		})
	}
}
