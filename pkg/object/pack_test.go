package object_test

import (
	"bytes"
	"testing"

	"github.com/walship/walship/pkg/object"
)

func TestPacker(t *testing.T) {
	for n, form := range forms(t) {
		p, err := form.sealer.NewPacker(1 + n%2)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 256 << 10, 300 << 10, 3 << 20} {
			content := likeWAL(size)
			if _, err := p.Write(content[:size/2]); err != nil { // given up
				t.Fatal(err)
			}
			p.Reset()
			for rest := content; len(rest) > 0; {
				n, err := p.Write(rest[:min(len(rest), 100_001)])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			header := segment(content)
			if header.PlainSize, header.Digest, err = p.Close(); err != nil {
				t.Fatal(err)
			}
			if header.PlainSize != int64(size) || !header.Digest.Equal(object.DigestOf(content)) {
				t.Errorf("size %d: Close says %d bytes, %s", size, header.PlainSize, header.Digest)
			}
			for range 2 {
				var stored bytes.Buffer
				if err := p.Seal(&stored, header); err != nil {
					t.Fatal(err)
				}
				if got, err := open(form.opener, stored.Bytes(), header); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s, size %d: %d bytes come back, %v", form.name, size, len(got), err)
				}
			}
			other := header
			other.Digest = object.DigestOf([]byte("other"))
			if err := p.Seal(new(bytes.Buffer), other); err == nil {
				t.Errorf("size %d: sealed with another content's digest", size)
			}
			other = header
			other.PlainSize++
			if err := p.Seal(new(bytes.Buffer), other); err == nil {
				t.Errorf("size %d: sealed with another size", size)
			}
			p.Reset()
		}
	}
}
