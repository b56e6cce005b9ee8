package compress

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestDecodeFrame reads frames as PostgreSQL writes them for page images,
// without a checksum, and none that is larger than allowed.
func TestDecodeFrame(t *testing.T) {
	page := bytes.Repeat([]byte("a page of some kind "), 400)
	for _, checksum := range []bool{false, true} {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(checksum))
		if err != nil {
			t.Fatal(err)
		}
		frame := enc.EncodeAll(page, nil)
		if got, err := DecodeFrame(frame, len(page)); err != nil || !bytes.Equal(got, page) {
			t.Errorf("checksum %t: %d bytes, %v", checksum, len(got), err)
		}
		if _, err := DecodeFrame(frame, len(page)-1); err == nil {
			t.Errorf("checksum %t: more bytes than allowed", checksum)
		}
		if _, err := DecodeFrame(frame[:len(frame)-5], len(page)); err == nil {
			t.Errorf("checksum %t: a frame that is cut is read", checksum)
		}
	}
	if _, err := DecodeFrame([]byte("no frame"), 100); err == nil {
		t.Error("what is no frame is read")
	}
}
