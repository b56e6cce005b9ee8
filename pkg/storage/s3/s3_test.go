package s3

import (
	"strings"
	"testing"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/storagetest"
)

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
