package object_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/wal"
)

const repository = "0123456789abcdef0123456789abcdef"

// form is one way to store an object.
type form struct {
	name   string
	sealer *object.Sealer
	opener *object.Opener
}

func forms(t testing.TB) []form {
	classic, classicIDs := newKey(t, false)
	hybrid, hybridIDs := newKey(t, true)
	return []form{
		{"plain", &object.Sealer{Repository: repository}, &object.Opener{Repository: repository}},
		{"classic", &object.Sealer{Repository: repository, Recipients: classic}, &object.Opener{Repository: repository, Encrypted: true, Identities: classicIDs}},
		{"segments", &object.Sealer{Repository: repository, Recipients: classic, Segments: true}, &object.Opener{Repository: repository, Encrypted: true, Identities: classicIDs}},
		{"post-quantum", &object.Sealer{Repository: repository, Recipients: hybrid}, &object.Opener{Repository: repository, Encrypted: true, Identities: hybridIDs}},
	}
}

// segment is the header of some content whose size and digest are known.
func segment(content []byte) object.Header {
	return object.Header{Kind: object.KindSegment, SystemID: 7431234567890123456, Name: "0000000100000000000000A7",
		PlainSize: int64(len(content)), Digest: object.DigestOf(content), Fields: []wal.Field{{Key: "wal.end", Value: "0/A7FFFFF8"}}}
}

// part is the header of content that isn't known beforehand.
func part() object.Header {
	return object.Header{Kind: object.KindPart, SystemID: 7431234567890123456, Name: "20261120T142500Z/000001.tar", PlainSize: -1}
}

func open(o *object.Opener, stored []byte, want object.Header) ([]byte, error) {
	r, err := o.Open(bytes.NewReader(stored), want)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestSealAndOpen(t *testing.T) {
	for _, f := range forms(t) {
		for _, size := range []int{0, 1, 8 << 10, 1<<20 + 1} {
			for _, h := range []object.Header{segment(likeWAL(size)), part()} {
				t.Run(fmt.Sprintf("%s %s %d", f.name, h.Kind, size), func(t *testing.T) {
					content := likeWAL(size)
					var stored bytes.Buffer
					w, err := f.sealer.Seal(&stored, h)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(content))); err != nil {
						t.Fatal(err)
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					result := w.Result()
					sum := sha256.Sum256(stored.Bytes())
					if result.PlainSize != int64(size) || !result.PlainDigest.Equal(object.DigestOf(content)) ||
						result.StoredSize != int64(stored.Len()) || !result.StoredDigest.Equal(object.Digest{Algorithm: object.SHA256, Sum: sum[:]}) {
						t.Errorf("result %+v", result)
					}
					if got, want := strings.HasSuffix(f.sealer.Suffix(), ".age"), crypto.IsSealed(stored.Bytes()); got != want {
						t.Errorf("suffix %s", f.sealer.Suffix())
					}

					want := object.Header{Kind: h.Kind, SystemID: h.SystemID, Name: h.Name, PlainSize: -1}
					if got, err := open(f.opener, stored.Bytes(), want); err != nil || !bytes.Equal(got, content) {
						t.Errorf("open: %d bytes of %d, %v", len(got), size, err)
					}
					want.PlainSize, want.Digest = result.PlainSize, result.PlainDigest
					if got, err := open(f.opener, stored.Bytes(), want); err != nil || !bytes.Equal(got, content) {
						t.Errorf("open with what a commit record says: %d bytes of %d, %v", len(got), size, err)
					}
					head := stored.Bytes()[:min(stored.Len(), object.HeadSize)]
					header, err := object.ReadHeader(iotest.OneByteReader(bytes.NewReader(head)))
					if err != nil || header.Name != h.Name || header.PlainSize != h.PlainSize || !header.Digest.Equal(h.Digest) ||
						header.Repository != repository || len(header.Fields) != len(h.Fields) {
						t.Errorf("ReadHeader = %+v, %v", header, err)
					}
				})
			}
		}
	}
}

// TestPromises: what the header announces is what the content must be.
func TestPromises(t *testing.T) {
	content := likeWAL(8 << 10)
	other := segment(content)
	other.Digest = object.DigestOf([]byte("other"))
	for _, f := range forms(t) {
		for name, test := range map[string]struct {
			header  object.Header
			content []byte
		}{
			"longer":       {segment(content), append(bytes.Clone(content), 0)},
			"shorter":      {segment(content), content[:len(content)-1]},
			"other digest": {other, content},
		} {
			var stored bytes.Buffer
			w, err := f.sealer.Seal(&stored, test.header)
			if err != nil {
				t.Fatal(err)
			}
			_, writeErr := w.Write(test.content)
			closeErr := w.Close()
			if closeErr == nil || name == "longer" && writeErr == nil {
				t.Errorf("%s, %s: Write %v, Close %v", f.name, name, writeErr, closeErr)
			}
			if got, err := open(f.opener, stored.Bytes(), test.header); err == nil {
				t.Errorf("%s, %s: what was written nevertheless opens, with %d bytes", f.name, name, len(got))
			}
		}
		bad := part()
		bad.Name = "a\nb"
		if _, err := f.sealer.Seal(io.Discard, bad); err == nil {
			t.Errorf("%s: sealed with a malformed header", f.name)
		}
		w, err := f.sealer.Seal(iotestWriter{}, part())
		if err == nil {
			_, err = w.Write(content)
			err = errors.Join(err, w.Close())
		}
		if !errors.Is(err, errFull) {
			t.Errorf("%s: error of the destination: %v", f.name, err)
		}
	}
}

var errFull = errors.New("no space left on device")

type iotestWriter struct{}

func (iotestWriter) Write([]byte) (int, error) { return 0, errFull }

// TestIdentities: fault 46, the wrong identity is told which one is expected;
// any of several recipients opens.
func TestIdentities(t *testing.T) {
	for _, postQuantum := range []bool{false, true} {
		recipients, files := newKeys(t, postQuantum, 3)
		s := &object.Sealer{Repository: repository, Recipients: recipients}
		content := likeWAL(8 << 10)
		stored := seal(t, s, segment(content), content)
		for _, file := range files {
			o := &object.Opener{Repository: repository, Encrypted: true, Identities: load(t, file)}
			if got, err := open(o, stored, segment(content)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("open with one of several: %v", err)
			}
		}
		_, stranger := newKey(t, postQuantum)
		for _, ids := range []*crypto.Identities{nil, stranger} {
			o := &object.Opener{Repository: repository, Encrypted: true, Identities: ids}
			_, err := open(o, stored, segment(content))
			if !errors.Is(err, crypto.ErrNoIdentity) || errors.Is(err, object.ErrCorrupt) {
				t.Fatalf("open without the identity: %v", err)
			}
			for _, fingerprint := range append(recipients.Fingerprints(), ids.Fingerprints()...) {
				if !strings.Contains(err.Error(), fingerprint) {
					t.Errorf("the error doesn't name %s: %v", fingerprint, err)
				}
			}
		}
	}
}

// TestBomb: fault 51, reading ends at the announced size.
func TestBomb(t *testing.T) {
	content := make([]byte, 64<<20)
	h := part()
	h.Repository, h.PlainSize = repository, 1000
	record, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	if err := compress.WriteSkippable(&stored, record); err != nil {
		t.Fatal(err)
	}
	w, err := compress.NewWriter(&stored, compress.Default)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, announced := range []int64{0, 1000, 4096} {
		want := part()
		want.PlainSize = announced
		if announced == 0 { // only the header announces
			want.PlainSize = -1
		}
		got, err := open(&object.Opener{Repository: repository}, stored.Bytes(), want)
		if !errors.Is(err, object.ErrCorrupt) || len(got) > 1000 {
			t.Errorf("announced %d: %d bytes, %v", announced, len(got), err)
		}
	}
}

// TestSourceError: faults 12 and 13, a broken connection isn't a corrupt object.
func TestSourceError(t *testing.T) {
	content := likeWAL(100 << 10)
	for _, f := range forms(t) {
		stored := seal(t, f.sealer, segment(content), content)
		for _, broken := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF} {
			for n := 0; n <= len(stored); n += 1 + n/50 {
				src := io.MultiReader(bytes.NewReader(stored[:n]), iotest.ErrReader(broken))
				r, err := f.opener.Open(src, segment(content))
				if err == nil {
					_, err = io.ReadAll(r)
					r.Close()
				}
				if !errors.Is(err, broken) || errors.Is(err, object.ErrCorrupt) || errors.Is(err, crypto.ErrNoIdentity) {
					t.Fatalf("%s: %v after %d bytes of %d: %v", f.name, broken, n, len(stored), err)
				}
			}
			if _, err := object.ReadHeader(io.MultiReader(bytes.NewReader(stored[:50]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, object.ErrCorrupt) {
				t.Errorf("%s: ReadHeader: %v", f.name, err)
			}
		}
	}
}

func TestNotAnObject(t *testing.T) {
	for _, text := range []string{"", "x", strings.Repeat("{}", 100), "age-encryption.org/v1\n", "\x57\x2A\x4D\x18\xff\xff\xff\xff"} {
		if _, err := object.ReadHeader(strings.NewReader(text)); !errors.Is(err, object.ErrCorrupt) {
			t.Errorf("ReadHeader(%q): %v", text, err)
		}
		for _, f := range forms(t) {
			if _, err := open(f.opener, []byte(text), part()); !errors.Is(err, object.ErrCorrupt) {
				t.Errorf("%s: Open(%q): %v", f.name, text, err)
			}
		}
	}
}

func TestConcurrentSeals(t *testing.T) {
	content := likeWAL(300 << 10)
	for _, f := range forms(t) {
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 3 {
					var stored bytes.Buffer
					w, err := f.sealer.Seal(&stored, segment(content))
					if err == nil {
						_, err = w.Write(content)
						err = errors.Join(err, w.Close())
					}
					got, openErr := open(f.opener, stored.Bytes(), segment(content))
					if err != nil || openErr != nil || !bytes.Equal(got, content) {
						t.Errorf("%s: seal %v, open %v", f.name, err, openErr)
					}
				}
			})
		}
		group.Wait()
	}
}

// TestFlatMemory: a large object is a stream on both sides.
func TestFlatMemory(t *testing.T) {
	const size, step = 96 << 20, 16 << 20
	for _, f := range forms(t) {
		t.Run(f.name, func(t *testing.T) {
			var before, now runtime.MemStats
			piece := likeWAL(1 << 20)
			runtime.GC()
			runtime.ReadMemStats(&before)
			src, dst := io.Pipe()
			go func() {
				w, err := f.sealer.Seal(dst, part())
				for range size / len(piece) {
					if err == nil {
						_, err = w.Write(piece)
					}
				}
				if err == nil {
					err = w.Close()
				}
				dst.CloseWithError(err)
			}()
			r, err := f.opener.Open(src, part())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for range size / step {
				if _, err := io.CopyN(io.Discard, r, step); err != nil {
					t.Fatal(err)
				}
				runtime.GC()
				runtime.ReadMemStats(&now)
				if used := int64(now.HeapAlloc) - int64(before.HeapAlloc); used > 64<<20 {
					t.Fatalf("%d MiB of memory in use", used>>20)
				}
			}
			if n, err := io.Copy(io.Discard, r); n != 0 || err != nil {
				t.Fatalf("at the end: %d bytes, %v", n, err)
			}
		})
	}
}

// TestSealerMemory seals one object after the other, as a backup does with its
// parts, on whichever processor there is: the compressor is always the same.
func TestSealerMemory(t *testing.T) {
	s := &object.Sealer{Repository: repository}
	content := likeWAL(1 << 10)
	sealOne := func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			w, err := s.Seal(io.Discard, part())
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := w.Write(content); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		<-done
	}
	sealOne()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const objects = 50
	for range objects {
		runtime.GC() // twice empties a sync.Pool
		sealOne()
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / objects; each > 1<<20 {
		t.Errorf("an object took %d bytes of new memory", each)
	}
}
