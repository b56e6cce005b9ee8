package s3

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/storagetest"
)

// TestMain keeps the AWS SDK from what the machine has configured.
func TestMain(m *testing.M) {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "AWS_") {
			_ = os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID":         "access", "AWS_SECRET_ACCESS_KEY": "secret",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// withoutKeys takes the access key from the environment.
func withoutKeys(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
}

// TestConformance holds the store to the contract on a server of the test's
// own. Tests on real servers carry the tag integration.
func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return newFake(t).open("", func(l *limits) { l.page = 100 })
	}, storagetest.LargeBody(inParts), storagetest.Listing(250), storagetest.Abandon(abandon))
}

// abandon begins a multipart upload and leaves it, as a killed process would.
func abandon(t *testing.T, store storage.Store, key string) {
	t.Helper()
	s := store.(*Store)
	u, err := s.begin(t.Context(), key, s.settings.prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.send(t.Context(), 1, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

// TestPartsSuffice adds up the parts of the longest upload.
func TestPartsSuffice(t *testing.T) {
	for _, c := range []struct {
		partSize  string
		atLeast   int64 // of 10,000 parts
		hundredth int64 // size of the hundredth part, before any growth
	}{
		{"5MB", 5 << 40, 5 << 20},
		{"16MB", 5 << 40, 16 << 20},
		{"1GB", 5 << 40, 1 << 30},
	} {
		set, err := parseURL("s3://bucket?part_size=" + c.partSize)
		if err != nil {
			t.Fatal(err)
		}
		s := &Store{settings: set}
		var sum int64
		for number := int32(1); number <= maxParts; number++ {
			size := s.partSize(number)
			if size > 5<<30 {
				t.Fatalf("part %d of %s parts has %d bytes; S3 takes 5 GiB at most", number, c.partSize, size)
			}
			sum += size
		}
		if sum < c.atLeast {
			t.Errorf("10,000 parts from %s on hold %d bytes; want 5 TiB", c.partSize, sum)
		}
		if got := s.partSize(100); got != c.hundredth {
			t.Errorf("part 100 of %s parts has %d bytes; want %d", c.partSize, got, c.hundredth)
		}
	}
}

func TestKeysAreBelowThePrefix(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	if _, err := s.Put(t.Context(), "a/b", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if data, _ := f.content("a/b"); string(data) != "x" {
		t.Errorf("the bucket holds %q below the prefix; want x", data)
	}
	long := strings.Repeat("k", 1020)
	if _, err := s.Put(t.Context(), long, strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "with the prefix") {
		t.Errorf("Put of a key of 1,020 bytes below a prefix: %v; want it refused", err)
	}
}

// TestConnectionsAreReused does one thing after the other, refusals included,
// on next to one connection: a new one is dialled if the last is put back a
// little too late.
func TestConnectionsAreReused(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	put(t, s, "a", random(1000))
	put(t, s, "empty", nil)
	for range 10 {
		for _, key := range []string{"a", "empty", "absent"} {
			if _, err := s.Stat(t.Context(), key); (err != nil) != (key == "absent") {
				t.Fatal(err)
			}
			if _, err := read(t, s, key, 0, -1); (err != nil) != (key == "absent") {
				t.Fatal(err)
			}
		}
		if _, err := s.Put(t.Context(), "a", strings.NewReader("x")); !errors.Is(err, storage.ErrExist) {
			t.Fatal(err)
		}
		for _, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Delete(t.Context(), "absent", "absent2"); err != nil {
			t.Fatal(err)
		}
	}
	clients := map[string]bool{}
	for _, request := range f.requests {
		clients[request.client] = true
	}
	if len(clients) > 5 {
		t.Errorf("%d requests took %d connections; want next to 1", len(f.requests), len(clients))
	}
}
