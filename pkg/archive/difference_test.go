package archive

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// Fault 25: a conflict says where the two servers parted.
func TestConflictSaysWhere(t *testing.T) {
	name := parse(t, first)
	start := name.Start(segmentSize)
	one, _ := chained(name, 0, "one")
	other, _ := chained(name, 0, "two")
	longer, _ := chained(name, 0, "a longer text")
	elsewhere, _ := chained(name, 8, "one")
	switched := append([]byte(nil), one...)
	clear(switched[72:100]) // without the switch behind the first record
	for what, c := range map[string]struct {
		data   []byte
		sealed string // what can be said without an identity
		read   string // what can be said with one
	}{
		"content": {other, "records between " + (start + 40).String() + " and ", "the first record that differs is at " + (start + 40).String()},
		"length":  {longer, "records between ", "at " + (start + 40).String()},
		"link":    {elsewhere, "from their first record on", "at " + (start + 40).String()},
		"less":    {switched, "its WAL ends at " + (start + segmentSize).String(), "at " + (start + 72).String()},
	} {
		for _, readable := range []bool{false, true} {
			s := newSite(t, true)
			if _, err := s.push(t, s.write(t, first, one)); err != nil {
				t.Fatal(err)
			}
			want := c.read
			if !readable {
				s.Opener.Identities = nil
				want = c.sealed
			}
			_, err := s.push(t, s.write(t, first, c.data))
			if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, readable %t: %v; want %q", what, readable, err, want)
			}
		}
	}
	s := newSite(t, false)
	for _, text := range []string{"one", "two"} {
		_, err := s.push(t, s.write(t, second+".00000028.backup", []byte(text)))
		if text == "two" && (!errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), filepath.Base(second))) {
			t.Errorf("a backup history file: %v", err)
		}
	}
}

// Fault 25: a conflict names the host that archived first, where that is known.
func TestConflictSaysWho(t *testing.T) {
	for _, c := range []struct{ there, here, want string }{
		{"", "db2", "): another server archives timeline 1 under"},
		{"db1", "db2", `): another server, on host "db1", archives timeline 1 under`},
		{"db1", "", `): another server, on host "db1", archives timeline 1 under`},
		{"db1", "db1", `): another server, on a host of this name ("db1"), archives timeline 1 under`},
	} {
		s := newSite(t, true)
		for fill, host := range []string{c.there, c.here} {
			path := s.write(t, first, segment(t, first, segmentSize, cluster, byte(fill)))
			_, err := Push(t.Context(), s.Repository, path, PushOptions{SystemID: cluster, Host: host, Log: quiet})
			if fill == 1 && (!errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("host %q behind host %q: %v; want %q", c.here, c.there, err, c.want)
			}
		}
	}
}

// Fault 26: a conflict of history files says where each timeline begins.
func TestConflictOfHistories(t *testing.T) {
	const left, right = "1\t0/3000000\tno recovery target specified\n", "1\t0/4000000\tno recovery target specified\n"
	for _, c := range []struct{ there, here, want string }{
		{left, right, "(from timeline 1 at 0/3000000 there, from timeline 1 at 0/4000000 here): another server chose timeline 2 too"},
		{left, left + "# \n", "(from timeline 1 at 0/3000000 there, from timeline 1 at 0/3000000 here)"},
		{"\n", right, "(without a parent there, "},
	} {
		s := newSite(t, true)
		if _, err := s.push(t, s.write(t, "00000002.history", []byte(c.there))); err != nil {
			t.Fatal(err)
		}
		_, err := s.push(t, s.write(t, "00000002.history", []byte(c.here)))
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q behind %q: %v", c.here, c.there, err)
		}
	}
}

// An object that another repository's writer left isn't taken for one's own,
// and the message says so.
func TestConflictWithAnotherRepository(t *testing.T) {
	one, other := newSite(t, false), newSite(t, false)
	path := one.write(t, first, segment(t, first, segmentSize, cluster, 'a'))
	if _, err := one.push(t, path); err != nil {
		t.Fatal(err)
	}
	other.Store = one.Store
	_, err := other.push(t, path)
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "another repository: its header says "+one.Info.ID) {
		t.Errorf("an object of another repository: %v", err)
	}
}
