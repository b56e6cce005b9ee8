package file

import (
	"errors"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/storage"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"file:///srv/walship", "/srv/walship"},
		{"file:///srv/walship/", "/srv/walship"},
		{"file://localhost/srv/walship", "/srv/walship"},
		{"file:/srv/walship", "/srv/walship"},
		{"file:///srv/with%20space", "/srv/with space"},
		{"file:///srv/a/../b", "/srv/b"},
	} {
		if dir, err := ParseURL(c.url); err != nil || dir != c.want {
			t.Errorf("ParseURL(%q) = %q, %v; want %q", c.url, dir, err, c.want)
		}
	}
	for _, bad := range []string{
		"", "/srv/walship", "file", "file:", "file://", "file:///", "file:///..", "file:srv/walship", "file://srv/walship",
		"s3://bucket/prefix", "file:///srv/walship?sync=no", "file:///srv/walship?", "file:///srv/walship#part",
		"file://user:hunter2@/srv/walship", "file://user:hunter2@host:port/srv", "file:///srv/%zz",
	} {
		dir, err := ParseURL(bad)
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("ParseURL(%q) = %q, %v; want ErrInvalid", bad, dir, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseURL gives a secret away: %v", err)
		}
	}
}
