//go:build integration

package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	filestore "github.com/walship/walship/pkg/storage/file"
)

// restorerArgument makes this test's own program the restore that is killed.
const restorerArgument = "restore-the-small-backup"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == restorerArgument {
		runtime.LockOSThread() // strace counts calls by thread
		if err := restoreSmall(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// openDirectory opens the repository in a directory.
func openDirectory(dir string) (*repo.Repository, error) {
	store, err := filestore.Open(dir)
	if err != nil {
		return nil, err
	}
	info, err := repo.Open(context.Background(), store)
	if err != nil {
		return nil, err
	}
	return &repo.Repository{
		Store: store, Info: info,
		Sealer: &object.Sealer{Repository: info.ID}, Opener: &object.Opener{Repository: info.ID},
	}, nil
}

func restoreSmall(repository, work string) error {
	r, err := openDirectory(repository)
	if err != nil {
		return err
	}
	p, err := MakePlan(context.Background(), Of(r), request(work))
	if err != nil {
		return err
	}
	_, err = Run(context.Background(), r, p, Options{Concurrency: 1, Settings: []byte("#\n"), Log: discard})
	return err
}

// TestRunKilled is fault 2. The restore is killed on entry to each of its
// renames and links, one after the other, and at a sample of its other calls.
// What it leaves can't be started as a database, and the next one succeeds.
func TestRunKilled(t *testing.T) {
	directory := t.TempDir()
	store, err := filestore.Create(directory)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Init(context.Background(), store, repo.InitOptions{Now: clock(1)}); err != nil {
		t.Fatal(err)
	}
	r, err := openDirectory(directory)
	if err != nil {
		t.Fatal(err)
	}
	smallBackup().commit(t, r)

	for _, call := range []string{"renameat", "symlinkat"} {
		hits := 0
		for killAt(t, r, directory, call, hits+1) {
			hits++
		}
		// restore.json twice, walship.toml, postgresql.auto.conf,
		// recovery.signal and pg_control; and the tablespace.
		if want := map[string]int{"renameat": 6, "symlinkat": 1}[call]; hits != want {
			t.Errorf("the restore was killed at %d calls of %s, want %d", hits, call, want)
		}
	}
	for _, step := range []struct {
		call string
		n    int
	}{{"write", 1}, {"write", 4}, {"mkdirat", 1}, {"mkdirat", 3}, {"mkdirat", 5}, {"fsync", 1}, {"fsync", 3}, {"fsync", 9}} {
		if !killAt(t, r, directory, step.call, step.n) {
			t.Errorf("the restore was not killed at call %d of %s", step.n, step.call)
		}
	}
}

// killAt runs a restore that is killed at the n-th call of one thread, and
// then another over what that left. It returns false if the first one wasn't
// killed.
func killAt(t *testing.T, r *repo.Repository, repository, call string, n int) bool {
	t.Helper()
	work, err := os.MkdirTemp(t.TempDir(), "killed")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("strace", "-f", "-o", os.DevNull, "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), os.Args[0], restorerArgument, repository, work)
	output, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("strace at call %d of %s: %v\n%s", n, call, err, output)
	}
	q := request(work)
	_, err = os.Lstat(filepath.Join(q.Directory, "global/pg_control"))
	committed := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if committed && call != "renameat" && call != "fsync" {
		t.Errorf("killed at call %d of %s, pg_control was in place", n, call)
	}
	_, err = restoreInto(t, r, q)
	if committed {
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "whole cluster") {
			t.Errorf("killed at call %d of %s, behind pg_control: restoring again gave %v, want a refusal", n, call, err)
		}
	} else if err != nil {
		t.Errorf("killed at call %d of %s: restoring again: %v", n, call, err)
	}
	if data := tree(t, q.Directory); data["global/pg_control"] != controlFile(testSystem) || data["recovery.signal"] != "" ||
		data["backup_label"] == "" || !strings.Contains(data["postgresql.auto.conf"], "restore_command") {
		t.Errorf("killed at call %d of %s: what is there isn't a whole restore", n, call)
	}
	return true
}
