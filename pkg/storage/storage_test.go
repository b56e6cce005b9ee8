package storage_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/storage"
)

func TestValidKey(t *testing.T) {
	for _, key := range []string{
		"a", "repository.json", "7310000000000000001/wal/0000000100000000/000000010000000000000001.zst.age",
		"a.b/..c/...", "A-Z_0=9+", ".hidden", strings.Repeat("k", 1024),
	} {
		if err := storage.ValidKey(key); err != nil {
			t.Errorf("ValidKey(%.40q): %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/../b", "a b", "a\x00", "a\n", "ä", "\xff", "~", "%41",
		"a\\b", "a:b", strings.Repeat("k", 1025),
	} {
		err := storage.ValidKey(key)
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("ValidKey(%.40q): %v; want ErrInvalid", key, err)
		} else if len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("ValidKey(%.40q): the message is no short line: %q", key, err)
		}
	}
}

// A key that is accepted leads nowhere but below the place it is joined to.
func FuzzValidKey(f *testing.F) {
	for _, seed := range []string{"a/b", "../a", "a/./b", "a//b", "..a", "a\x00b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if storage.ValidKey(key) != nil {
			return
		}
		for segment := range strings.SplitSeq(key, "/") {
			if segment == "" || segment == "." || segment == ".." || strings.ContainsAny(segment, "\\\x00 ~%") {
				t.Errorf("ValidKey accepts %q", key)
			}
		}
	})
}
