package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

func getRanges(t *testing.T, s *suite) {
	const size = 10000
	data := content(1, size)
	s.put(t, "ranges", data)
	s.put(t, "none", nil)
	for _, c := range []struct {
		key            string
		offset, length int64
		want           []byte
	}{
		{"ranges", 0, -1, data},
		{"ranges", 0, size, data},
		{"ranges", 0, size + 1, data},
		{"ranges", 0, 1, data[:1]},
		{"ranges", 0, 0, nil},
		{"ranges", 1, 1, data[1:2]},
		{"ranges", 4095, 4098, data[4095:8193]},
		{"ranges", 9999, 1, data[9999:]},
		{"ranges", 9999, 2, data[9999:]},
		{"ranges", 9990, -1, data[9990:]},
		{"ranges", 5000, -7, data[5000:]},
		{"ranges", 5000, 0, nil},
		{"ranges", size, -1, nil},
		{"ranges", size, 1, nil},
		{"ranges", size + 1, -1, nil},
		{"ranges", 1 << 40, 5, nil},
		{"none", 0, -1, nil},
		{"none", 0, 10, nil},
		{"none", 1, -1, nil},
	} {
		if got := s.get(t, c.key, c.offset, c.length); !bytes.Equal(got, c.want) {
			t.Errorf("Get(%q, %d, %d) read %d bytes; want %d, the object's own", c.key, c.offset, c.length, len(got), len(c.want))
		}
		r, info, err := s.Get(t.Context(), c.key, c.offset, c.length)
		if err != nil {
			t.Fatalf("Get(%q, %d, %d): %v", c.key, c.offset, c.length, err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("close of Get(%q, %d, %d) unread: %v", c.key, c.offset, c.length, err)
		}
		if whole := int64(len(s.get(t, c.key, 0, -1))); info.Size != whole {
			t.Errorf("Get(%q, %d, %d): Info.Size is %d; want %d, that of the whole object", c.key, c.offset, c.length, info.Size, whole)
		}
	}
}

func getStopsWithContext(t *testing.T, s *suite) {
	s.put(t, "large", content(1, s.large))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, _, err := s.Get(ctx, "large", 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, 10); err != nil {
		t.Fatalf("read: %v", err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("read after the context was cancelled: %d bytes, %v; want context.Canceled", n, err)
	}
}

func absentObject(t *testing.T, s *suite) {
	s.put(t, "folder/there", []byte("x"))
	for _, key := range []string{"absent", "folder/absent", "folder/ther", "folder/there2", "no/such/folder"} {
		s.wantAbsent(t, key)
	}
}

func folderIsNoObject(t *testing.T, s *suite) {
	s.put(t, "a/b/c", []byte("x"))
	s.wantAbsent(t, "a")
	s.wantAbsent(t, "a/b")
	if err := s.Delete(t.Context(), "a", "a/b"); err != nil {
		t.Errorf("Delete of folders: %v; want nothing done, as there are no such objects", err)
	}
	s.wantContent(t, "a/b/c", []byte("x"))
}

var badKeys = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/./b", "a/../../b",
	"a b", "a\\b", "a\x00b", "a\nb", "ä", "a?b", "a*", "a%2fb", "a:b", "~a",
	strings.Repeat("k", 1025),
}

func invalidKeys(t *testing.T, s *suite) {
	for _, key := range badKeys {
		body := bytes.NewReader([]byte("x"))
		_, err := s.Put(t.Context(), key, body)
		wantInvalid(t, "Put", key, err)
		if body.Len() != 1 {
			t.Errorf("Put(%q) read the body before it refused the key", key)
		}
		_, _, err = s.Get(t.Context(), key, 0, -1)
		wantInvalid(t, "Get", key, err)
		_, err = s.Stat(t.Context(), key)
		wantInvalid(t, "Stat", key, err)
		wantInvalid(t, "Delete", key, s.Delete(t.Context(), key))
	}
	if keys := s.list(t, "", ""); len(keys) != 0 {
		t.Errorf("refused keys left %q", keys)
	}
}

func wantInvalid(t *testing.T, call, key string, err error) {
	t.Helper()
	if !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("%s(%q): %v; want ErrInvalid", call, key, err)
	}
}

func unusualKeys(t *testing.T, s *suite) {
	segment := strings.Repeat("k", 200)
	for i, key := range []string{
		"a", "7", "A=b+c_d-e.f", ".hidden", "...", "a..b/..c", "x/-/_/+/=",
		strings.Join([]string{segment, segment, segment, segment}, "/"),
	} {
		data := content(byte(i), 100)
		s.put(t, key, data)
		s.wantContent(t, key, data)
		if keys := s.list(t, key, ""); len(keys) != 1 || keys[0] != key {
			t.Errorf("List(%q) = %q; want the key itself", key, keys)
		}
		// Of "a" a later key wants a folder's place on some storages.
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatalf("Delete(%q): %v", key, err)
		}
	}
}

func cancelledContext(t *testing.T, s *suite) {
	s.put(t, "there", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v; want context.Canceled", call, err)
		}
	}
	_, err := s.Put(ctx, "new", bytes.NewReader([]byte("x")))
	want("Put", err)
	_, _, err = s.Get(ctx, "there", 0, -1)
	want("Get", err)
	_, err = s.Stat(ctx, "there")
	want("Stat", err)
	_, err = s.Stat(ctx, "absent")
	want("Stat of an absent key", err)
	want("Delete", s.Delete(ctx, "there"))
	_, err = s.Sweep(ctx, "", time.Now())
	want("Sweep", err)
	err = nil
	for _, err = range s.List(ctx, "", "") {
		if err == nil {
			t.Error("List with a cancelled context yields objects")
		}
	}
	want("List", err)

	s.wantAbsent(t, "new")
	s.wantContent(t, "there", []byte("x"))
}
