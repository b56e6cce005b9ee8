package object_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/object"
)

// TestAnotherObject: fault 52, an object under another name, kind, cluster or
// repository than its own is refused, as is one that the commit record doesn't
// describe.
func TestAnotherObject(t *testing.T) {
	content := likeWAL(8 << 10)
	for _, f := range forms(t) {
		stored := seal(t, f.sealer, segment(content), content)
		for name, change := range map[string]func(*object.Header, *object.Opener){
			"name":       func(h *object.Header, _ *object.Opener) { h.Name = "0000000100000000000000A8" },
			"kind":       func(h *object.Header, _ *object.Opener) { h.Kind = object.KindPartial },
			"cluster":    func(h *object.Header, _ *object.Opener) { h.SystemID++ },
			"repository": func(_ *object.Header, o *object.Opener) { o.Repository = "fedcba9876543210" },
			"size":       func(h *object.Header, _ *object.Opener) { h.PlainSize++ },
			"digest":     func(h *object.Header, _ *object.Opener) { h.Digest = object.DigestOf(nil) },
			"encryption": func(_ *object.Header, o *object.Opener) { o.Encrypted = !o.Encrypted },
		} {
			want, opener := segment(content), *f.opener
			change(&want, &opener)
			if _, err := open(&opener, stored, want); !errors.Is(err, object.ErrMismatch) || !errors.Is(err, object.ErrCorrupt) {
				t.Errorf("%s, other %s: %v", f.name, name, err)
			}
		}
		// An object without a digest of its own relies on the commit record's,
		// of either algorithm.
		stream := seal(t, f.sealer, part(), content)
		for _, algorithm := range []string{object.SHA256, object.BLAKE3} {
			hash, err := object.NewHash(algorithm)
			if err != nil {
				t.Fatal(err)
			}
			hash.Write(content)
			want := part()
			want.PlainSize, want.Digest = int64(len(content)), object.Digest{Algorithm: algorithm, Sum: hash.Sum(nil)}
			if _, err := open(f.opener, stream, want); err != nil {
				t.Errorf("%s, %s of the commit record: %v", f.name, algorithm, err)
			}
			for _, change := range []func(){func() { want.Digest.Sum[0] ^= 1 }, func() { want.PlainSize-- }, func() { want.PlainSize += 2 }} {
				change()
				if _, err := open(f.opener, stream, want); !errors.Is(err, object.ErrCorrupt) {
					t.Errorf("%s, wrong %s or size of the commit record: %v", f.name, algorithm, err)
				}
				want.Digest.Sum = hash.Sum(nil)
			}
			// Both digests are checked, where they are of two algorithms.
			known := segment(content)
			known.Digest = object.Digest{Algorithm: algorithm, Sum: make([]byte, 32)}
			if algorithm != object.Fastest() {
				if _, err := open(f.opener, stored, known); !errors.Is(err, object.ErrCorrupt) {
					t.Errorf("%s, wrong %s of the commit record beside the object's own digest: %v", f.name, algorithm, err)
				}
			}
		}
	}
}

// TestDamage: faults 14 and 52, an object that is cut, changed in one byte or
// longer is refused as corrupt. In one that isn't encrypted, zstd's frame has a
// few bits that don't change the content; then the content is right.
func TestDamage(t *testing.T) {
	content := make([]byte, 150<<10) // noise, so that the object has several chunks of age's too
	rand.NewChaCha8([32]byte{3}).Read(content)
	for _, f := range forms(t) {
		t.Run(f.name, func(t *testing.T) {
			stored := seal(t, f.sealer, segment(content), content)
			head := bytes.Index(stored, []byte("\n---")) + 65 // behind age's header and its nonce
			if !f.opener.Encrypted {
				head = bytes.Index(stored, []byte("\nend=")) + 100
			}
			want := object.Header{Kind: object.KindSegment, SystemID: segment(nil).SystemID, Name: segment(nil).Name, PlainSize: -1}
			check := func(what string, at int, changed []byte) {
				got, err := open(f.opener, changed, want)
				if !f.opener.Encrypted && err == nil && bytes.Equal(got, content) {
					return
				}
				if !errors.Is(err, object.ErrCorrupt) {
					t.Fatalf("%s at %d of %d: %d bytes, %v", what, at, len(stored), len(got), err)
				}
			}
			for at := 0; at < len(stored); at++ {
				if at > head && at < len(stored)-100 && at%1999 != 0 {
					continue
				}
				changed := bytes.Clone(stored)
				changed[at] ^= 1 << (at % 8)
				check("bit changed", at, changed)
				if _, err := open(f.opener, stored[:at], want); !errors.Is(err, object.ErrCorrupt) {
					t.Fatalf("cut to %d of %d: %v", at, len(stored), err)
				}
			}
			const chunk = 64<<10 + 16 // of age: content and its tag
			for _, boundary := range []int{64 << 10, 128 << 10, head + chunk, head + 2*chunk} {
				for at := boundary - 18; at <= boundary+2; at++ {
					if _, err := open(f.opener, stored[:at], want); !errors.Is(err, object.ErrCorrupt) {
						t.Fatalf("cut to %d of %d: %v", at, len(stored), err)
					}
				}
			}
			for _, tail := range [][]byte{{0}, {0x28, 0xb5, 0x2f, 0xfd}, stored} {
				if _, err := open(f.opener, append(bytes.Clone(stored), tail...), want); !errors.Is(err, object.ErrCorrupt) {
					t.Fatalf("%d bytes longer: %v", len(tail), err)
				}
			}
		})
	}
}

// TestSwappedBody: the header of one object before the body of another.
func TestSwappedBody(t *testing.T) {
	a, b := likeWAL(20<<10), bytes.Repeat([]byte("b"), 20<<10)
	for _, f := range forms(t) {
		storedA, storedB := seal(t, f.sealer, segment(a), a), seal(t, f.sealer, segment(b), b)
		cut := func(stored []byte) int {
			if f.opener.Encrypted {
				return bytes.Index(stored, []byte("\n--- ")) + len("\n--- \n") + 43
			}
			return bytes.Index(stored, []byte("\nend=")) + len("\nend=sha256:\n") + 64
		}
		mixed := append(bytes.Clone(storedA[:cut(storedA)]), storedB[cut(storedB):]...)
		if _, err := open(f.opener, mixed, segment(a)); !errors.Is(err, object.ErrCorrupt) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// TestHeaderAlone: an object that isn't encrypted and has nothing behind its
// header, which zstd itself takes for an empty file.
func TestHeaderAlone(t *testing.T) {
	f := forms(t)[0]
	stored := seal(t, f.sealer, segment(nil), nil)
	end := bytes.Index(stored, []byte("\nend=")) + len("\nend=sha256:\n") + 64
	if _, err := open(f.opener, stored[:end], segment(nil)); !errors.Is(err, object.ErrCorrupt) {
		t.Errorf("header alone: %v", err)
	}
	if _, err := open(f.opener, stored, segment(nil)); err != nil {
		t.Errorf("empty content: %v", err)
	}
}

// TestHeaderOfOtherForm: a header that says recipients in the form without
// encryption, and one that says none in the encrypted form.
func TestHeaderOfOtherForm(t *testing.T) {
	recipients, ids := newKey(t, false)
	h := part()
	h.Repository = repository
	write := func(dst io.Writer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		w, err := compress.NewWriter(dst, compress.Default)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var encrypted, plain bytes.Buffer
	record, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	age, err := recipients.Seal(&encrypted, record)
	write(age, err)
	if err := age.Close(); err != nil {
		t.Fatal(err)
	}
	h.Recipients = recipients.Fingerprints()
	if record, err = h.Marshal(); err != nil {
		t.Fatal(err)
	}
	write(&plain, compress.WriteSkippable(&plain, record))

	for name, test := range map[string]struct {
		opener object.Opener
		stored []byte
	}{
		"encrypted": {object.Opener{Repository: repository, Encrypted: true, Identities: ids}, encrypted.Bytes()},
		"plain":     {object.Opener{Repository: repository}, plain.Bytes()},
	} {
		_, openErr := open(&test.opener, test.stored, part())
		_, readErr := object.ReadHeader(bytes.NewReader(test.stored))
		if !errors.Is(openErr, object.ErrCorrupt) || !errors.Is(readErr, object.ErrCorrupt) {
			t.Errorf("%s: Open %v, ReadHeader %v", name, openErr, readErr)
		}
	}
}
