package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

func TestExitCode(t *testing.T) {
	cases := []struct {
		err   error
		codes [3]int // of other commands, push, fetch
	}{
		{nil, [3]int{0, 0, 0}},
		{archive.ErrAbsent, [3]int{1, 10, 1}},
		{fmt.Errorf("%w as far as a standby is told: %w", archive.ErrAbsent, storage.ErrDenied), [3]int{1, 10, 1}},
		{fmt.Errorf("%w: %w", archive.ErrAbsent, config.ErrInvalid), [3]int{2, 30, 255}},
		{storage.ErrNotExist, [3]int{1, 10, 255}}, // only archive says what is absent
		{fs.ErrNotExist, [3]int{1, 10, 255}},
		{archive.ErrConflict, [3]int{1, 20, 255}},
		{archive.ErrRefused, [3]int{1, 30, 255}},
		{&usageError{"x"}, [3]int{2, 30, 255}},
		{config.ErrInvalid, [3]int{2, 30, 255}},
		{storage.ErrInvalid, [3]int{2, 30, 255}},
		{errDegraded, [3]int{3, 10, 255}},
		{errUnsafe, [3]int{4, 30, 255}},
		{repo.ErrUnconditional, [3]int{4, 30, 255}},
		{repo.ErrNotInitialised, [3]int{1, 30, 255}},
		{repo.ErrNoRecipients, [3]int{1, 30, 255}},
		{storage.ErrDenied, [3]int{1, 30, 255}},
		{storage.ErrNoStore, [3]int{1, 30, 255}},
		{crypto.ErrNoIdentity, [3]int{1, 30, 255}},
		{object.ErrCorrupt, [3]int{1, 30, 255}},
		{fs.ErrPermission, [3]int{1, 30, 255}},
		{syscall.ENOSPC, [3]int{1, 10, 255}},
		{errors.New("anything"), [3]int{1, 10, 255}},
		{recovered(func() error { panic("x") }), [3]int{1, 10, 255}},
	}
	for _, c := range cases {
		err := c.err
		if err != nil {
			err = withHint(fmt.Errorf("do something: %w", err), "hint")
		}
		for g, want := range c.codes {
			if got := exitCode(group(g), err); got != want {
				t.Errorf("%v in group %d: %d, not %d", c.err, g, got, want)
			}
		}
	}
}

// Push never exits above 125, and fetch with 0, 1 and 255 only.
func TestOutcomes(t *testing.T) {
	for i, o := range outcomes() {
		if push := o.codes[groupPush]; push < 0 || push > 125 || push == 0 != (i == 0) {
			t.Errorf("%s: push exits %d", o.name, push)
		}
		if fetch := o.codes[groupFetch]; fetch != 0 && fetch != 1 && fetch != 255 || fetch == 0 != (i == 0) {
			t.Errorf("%s: fetch exits %d", o.name, fetch)
		}
	}
}

// docs/exit-codes.md has the same table.
func TestExitCodesDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "| how it ended | other commands | `wal push` | `wal fetch` |\n|---|---|---|---|\n"
	for _, o := range outcomes() {
		want += fmt.Sprintf("| %s | %d | %d | %d |\n", o.name, o.codes[groupOther], o.codes[groupPush], o.codes[groupFetch])
	}
	if !strings.Contains(string(data), want+"\n") {
		t.Errorf("docs/exit-codes.md doesn't have this table:\n%s", want)
	}
}

func TestGroupOf(t *testing.T) {
	cases := map[string]group{
		"":                                  groupOther,
		"config show":                       groupOther,
		"wal":                               groupOther,
		"wal list":                          groupOther,
		"wal list push":                     groupOther,
		"backup push":                       groupOther,
		"wal push x":                        groupPush,
		"wal fetch a b":                     groupFetch,
		"--config f wal fetch a b":          groupFetch,
		"--config wal wal fetch a b":        groupFetch,
		"--bogus wal fetch":                 groupFetch,
		"wal --bogus fetch a b":             groupFetch,
		"--config=x wal --json push --help": groupPush,
	}
	for line, want := range cases {
		if got := groupOf(strings.Fields("walship " + line)); got != want {
			t.Errorf("%q: group %d, not %d", line, got, want)
		}
	}
}
