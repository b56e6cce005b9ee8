package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func listEmpty(t *testing.T, s *suite) {
	for _, prefix := range []string{"", "a", "a/", "a/b"} {
		if keys := s.list(t, prefix, ""); len(keys) != 0 {
			t.Errorf("List(%q) of an empty store = %q", prefix, keys)
		}
	}
}

// listKeys are in byte order. The order of a walk through folders would be
// another: "." and "-" sort before "/", digits and letters behind it.
var listKeys = []string{
	"1/wal/00000001/000000010000000000000001.zst",
	"1/wal/00000001/000000010000000000000002.zst",
	"1/wal/00000002.history",
	"1/wal/00000002/000000020000000000000002.zst",
	"1/wal/00000010/000000100000000000000002.zst",
	"A/z",
	"a+b/x",
	"a-b",
	"a-c/y",
	"a.d/e/f",
	"a.history",
	"a/b",
	"a/b.c",
	"a/c/d",
	"a/c/e",
	"a0",
	"a=",
	"aA/b",
	"ab",
	"z",
}

func listOrderPrefixAfter(t *testing.T, s *suite) {
	if !slices.IsSorted(listKeys) {
		t.Fatal("the test's own keys are not in order")
	}
	for i := range listKeys {
		key := listKeys[(i*7)%len(listKeys)] // not in their order
		s.put(t, key, []byte(key))
	}
	prefixes := []string{"", "1", "1/", "1/wal/0000000", "1/wal/00000002", "1/wal/00000002/", "a", "a/", "a/c", "a/c/", "a/c/d", "a-", "a.", "b", "zz", "a/b/"}
	afters := append([]string{"", "0", "1/", "1/wal/00000001", "1/wal/00000001/", "1/wal/00000001/0", "1/wal/00000002.", "1/wal/00000002/1", "a", "a/", "a/c", "a/c0", "a/zzz", "zzz"}, listKeys...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			var want []string
			for _, key := range listKeys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := s.list(t, prefix, after); !slices.Equal(got, want) {
				t.Errorf("List(%q, %q) = %q; want %q", prefix, after, got, want)
			}
		}
	}
}

func listDescribesObjects(t *testing.T, s *suite) {
	for i, key := range listKeys {
		s.put(t, key, make([]byte, i))
	}
	i := 0
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		stat, err := s.Stat(t.Context(), info.Key)
		if err != nil {
			t.Fatalf("Stat(%q), which was listed: %v", info.Key, err)
		}
		if info.Size != int64(i) || info.Modified.IsZero() {
			t.Errorf("List yields %+v; want %d bytes and a time", info, i)
		}
		// A listing may carry whole seconds where headers carry less, or more.
		if d := info.Modified.Sub(stat.Modified).Abs(); d >= time.Second {
			t.Errorf("List says %q is of %v, Stat of %v", info.Key, info.Modified, stat.Modified)
		}
		i++
	}
	if i != len(listKeys) {
		t.Errorf("List yields %d objects; want %d", i, len(listKeys))
	}
}

func listPages(t *testing.T, s *suite) {
	want := make([]string, s.listing)
	for i := range want {
		want[i] = fmt.Sprintf("pages/%04d/%06d", i/256, i)
	}
	const writers = 8
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := w; i < len(want) && err == nil; i += writers {
				_, err = s.Put(t.Context(), want[i], bytes.NewReader([]byte("x")))
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatalf("Put: %v", err)
		}
	}
	if got := s.list(t, "", ""); !slices.Equal(got, want) {
		t.Errorf("List yields %d keys, not the %d that there are in order", len(got), len(want))
	}
	if got := s.list(t, "pages/", want[9]); !slices.Equal(got, want[10:]) {
		t.Errorf("List after the tenth key yields %d keys, not the %d behind it", len(got), len(want)-10)
	}
	n := 0
	for _, err := range s.List(t.Context(), "pages/", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Errorf("a listing that its caller leaves after 5 objects yielded %d", n)
	}

	keep := want[len(want)/2]
	if err := s.Delete(t.Context(), slices.DeleteFunc(slices.Clone(want), func(key string) bool { return key == keep })...); err != nil {
		t.Fatalf("Delete of %d keys: %v", len(want)-1, err)
	}
	if got := s.list(t, "", ""); len(got) != 1 || got[0] != keep {
		t.Errorf("after Delete of all others List yields %d keys; want %s alone", len(got), keep)
	}
}

func deleteIsIdempotent(t *testing.T, s *suite) {
	for _, key := range []string{"a/1", "a/2", "a/3", "a/33"} {
		s.put(t, key, []byte(key))
	}
	for range 2 {
		if err := s.Delete(t.Context(), "a/1", "a/3", "a/absent", "none/at/all"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		s.wantAbsent(t, "a/1")
		s.wantAbsent(t, "a/3")
		s.wantContent(t, "a/2", []byte("a/2"))
		s.wantContent(t, "a/33", []byte("a/33"))
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func deleteThenPut(t *testing.T, s *suite) {
	s.put(t, "a/1", []byte("first"))
	if err := s.Delete(t.Context(), "a/1"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	s.put(t, "a/1", []byte("second"))
	s.wantContent(t, "a/1", []byte("second"))
}

func deleteRemovesWhatItCan(t *testing.T, s *suite) {
	s.put(t, "a", []byte("x"))
	s.put(t, "b", []byte("x"))
	wantInvalid(t, "Delete", "a, ../x, b", s.Delete(t.Context(), "a", "../x", "b"))
	s.wantAbsent(t, "a")
	s.wantAbsent(t, "b")
}

func sweepKeepsFinished(t *testing.T, s *suite) {
	data := content(1, s.large)
	if _, err := s.Put(t.Context(), "a/large", stream(data)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	now := s.put(t, "a/small", []byte("x")).ServerTime
	for _, prefix := range []string{"", "a/", "none/"} {
		if n, err := s.Sweep(t.Context(), prefix, now.Add(time.Hour)); err != nil || n != 0 {
			t.Errorf("Sweep(%q) = %d, %v; nothing was abandoned", prefix, n, err)
		}
	}
	s.wantContent(t, "a/large", data)
	s.wantContent(t, "a/small", []byte("x"))
}

func sweepRemovesAbandoned(t *testing.T, s *suite) {
	if s.abandon == nil {
		return // nothing can be left behind
	}
	now := s.clock(t)
	keys := []string{"a/left", "a/b/left", "c/left"}
	for _, key := range keys {
		s.abandon(t, s.Store, key)
		s.wantAbsent(t, key)
	}
	if got := s.list(t, "", ""); len(got) != 0 {
		t.Errorf("List shows %q; want nothing of unfinished writes", got)
	}
	for _, c := range []struct {
		what   string
		prefix string
		before time.Time
		want   int
	}{
		{"what is older than an hour", "", now.Add(-time.Hour), 0},
		{"a folder without any", "none/", now.Add(time.Hour), 0},
		{"a folder", "a/", now.Add(time.Hour), 2},
		{"a folder again", "a/", now.Add(time.Hour), 0},
		{"all", "", now.Add(time.Hour), 1},
	} {
		if n, err := s.Sweep(t.Context(), c.prefix, c.before); err != nil || n != c.want {
			t.Errorf("Sweep of %s = %d, %v; want %d", c.what, n, err, c.want)
		}
	}
	for _, key := range keys {
		s.put(t, key, []byte(key))
		s.wantContent(t, key, []byte(key))
	}
}
