package compress

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// DecodeFrame decompresses a small zstd frame that another program wrote, with
// or without a checksum, whose content has at most so many bytes.
func DecodeFrame(frame []byte, most int) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(most, 1))))
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	defer dec.Close()
	content, err := dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress zstd frame: %w", err)
	}
	return content, nil
}
