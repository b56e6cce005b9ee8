//go:build integration

package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/storage"
)

// asOther makes this test's own program run one of the cases below: as another
// user, or where the disk is small.
const asOther = "in-other-circumstances"

func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != asOther {
		m.Run()
		return
	}
	run := map[string]func(dir string) error{"stranger": beStranger, "small": fillDisk}[os.Args[2]]
	if err := run(os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

// runAs starts a case by way of a command that changes the circumstances.
func runAs(t *testing.T, name, dir string, command ...string) {
	t.Helper()
	// Another user can't enter the folders that the test's program lies in.
	program := filepath.Join(sharedDir(t), "test")
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	command = append(command, program, asOther, name, dir)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// sharedDir returns a directory that every user can enter.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walship-file-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Fault 17: a user without permission is told so, and nothing seems absent.
func TestStranger(t *testing.T) {
	dir := sharedDir(t)
	s, err := Create(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b", "x")
	put(t, s, "c", "x")
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	t.Run("closed", func(t *testing.T) { runAs(t, "stranger", s.dir, nobody...) })
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("readable", func(t *testing.T) { runAs(t, "stranger", s.dir, nobody...) })
}

func beStranger(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return wantDenied("Open", err)
	}
	ctx := context.Background()
	var list error
	for _, err := range s.List(ctx, "", "") {
		list = err
	}
	_, put := s.Put(ctx, "d", strings.NewReader("x"))
	_, putBelow := s.Put(ctx, "a/d", strings.NewReader("x"))
	_, stat := s.Stat(ctx, "a/absent")
	_, _, get := s.Get(ctx, "c", 0, -1)
	_, create := Create(filepath.Join(dir, "new"))
	return errors.Join(
		wantDenied("List", list), wantDenied("Put", put), wantDenied("Put below", putBelow), wantDenied("Stat", stat),
		wantDenied("Get", get), wantDenied("Delete", s.Delete(ctx, "c")), wantDenied("Create", create))
}

// unexpected describes an outcome, in which an error may be nil.
func unexpected(format string, outcome ...any) error { return fmt.Errorf(format, outcome...) }

func wantDenied(call string, err error) error {
	if !errors.Is(err, storage.ErrDenied) || errors.Is(err, storage.ErrNotExist) {
		return unexpected("%s: %v; want ErrDenied", call, err)
	}
	return nil
}

// Fault 6: a full disk fails the write and leaves nothing behind; with room
// again the next one succeeds.
func TestFullDisk(t *testing.T) {
	runAs(t, "small", t.TempDir(), "unshare", "--mount")
}

func fillDisk(dir string) error {
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	s, err := Open(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	half := strings.Repeat("x", 600<<10)
	if _, err := s.Put(ctx, "a/1", strings.NewReader(half)); err != nil {
		return err
	}
	for range 2 {
		if _, err := s.Put(ctx, "a/2", strings.NewReader(half)); !errors.Is(err, syscall.ENOSPC) {
			return unexpected("put to a full disk: %v; want ENOSPC", err)
		} else if strings.Count(err.Error(), "a/2") != 1 {
			return unexpected("put to a full disk: %v; want the key once", err)
		}
		if entries, err := os.ReadDir(filepath.Join(dir, "a")); err != nil || len(entries) != 1 {
			return unexpected("after a failed write the folder holds %v, %v; want the first object alone", entries, err)
		}
	}
	if _, err := s.Put(ctx, "a/1", strings.NewReader("x")); !errors.Is(err, storage.ErrExist) {
		return unexpected("put over the first object: %v; want ErrExist", err)
	}
	if err := s.Delete(ctx, "a/1"); err != nil {
		return err
	}
	if _, err := s.Put(ctx, "a/2", strings.NewReader(half)); err != nil {
		return fmt.Errorf("put with room again: %w", err)
	}
	r, _, err := s.Get(ctx, "a/2", 0, -1)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(data) != half {
		return unexpected("read %d bytes, %v; want what was put", len(data), err)
	}
	return nil
}
