package pgdata

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestRunning(t *testing.T) {
	dir := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	here := exec.Command("cat")
	here.Dir = dir
	stdin, err := here.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := here.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(stdin.Close(), here.Wait()); err != nil {
			t.Error(err)
		}
	}()

	cases := []struct {
		name, content string
		running, fail bool
	}{
		{"none", "", false, false},
		{"lives here", fmt.Sprintf("%d\n%s\n", here.Process.Pid, dir), true, false},
		{"single-user mode", fmt.Sprintf("-%d\n", here.Process.Pid), true, false},
		{"lives elsewhere", fmt.Sprintf("%d\n", os.Getpid()), false, false},
		{"ended", fmt.Sprintf("%d\n", ended.Process.Pid), false, false},
		{"empty", "\n", false, true},
		{"no number", "x\n", false, true},
		{"zero", "0\n", false, true},
		{"enormous", strconv.Itoa(1<<40) + "\n", false, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, PostmasterPIDFileName)
			if c.content != "" {
				if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, running, err := Running(openRoot(t, dir))
			if running != c.running || (err != nil) != c.fail {
				t.Errorf("running %v, error: %v", running, err)
			}
		})
	}
}

func TestIsStandby(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	if standby, err := IsStandby(root); standby || err != nil {
		t.Error(standby, err)
	}
	if err := os.WriteFile(filepath.Join(dir, StandbySignalFileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if standby, err := IsStandby(root); !standby || err != nil {
		t.Error(standby, err)
	}
}
