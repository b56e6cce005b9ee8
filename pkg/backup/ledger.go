package backup

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/walship/walship/pkg/pgdata"
)

// ledger notes the files that a server sends, in their order, which is that of
// the manifest behind them. It is kept compressed, some ten bytes a file.
type ledger struct {
	packed bytes.Buffer
	writer *flate.Writer
}

func newLedger() (*ledger, error) {
	l := &ledger{}
	var err error
	l.writer, err = flate.NewWriter(&l.packed, flate.BestSpeed)
	return l, err
}

// add notes a file; sum is nil without checksums.
func (l *ledger) add(name string, size int64, sum hash.Hash) error {
	line := binary.AppendUvarint(nil, uint64(len(name)))
	line = append(line, name...)
	line = binary.AppendUvarint(line, uint64(size))
	if sum != nil {
		line = sum.Sum(line)
	}
	_, err := l.writer.Write(line)
	return err
}

// nextNote reads a note that has a checksum of n bytes.
func nextNote(notes *bufio.Reader, n int) (name string, size int64, sum []byte, err error) {
	length, err := binary.ReadUvarint(notes)
	if err != nil {
		return "", 0, nil, err // io.EOF behind the last
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(notes, text); err != nil {
		return "", 0, nil, err
	}
	bytes, err := binary.ReadUvarint(notes)
	if err != nil {
		return "", 0, nil, err
	}
	sum = make([]byte, n)
	_, err = io.ReadFull(notes, sum)
	return string(text), int64(bytes), sum, err
}

// agree holds the files of a manifest against what was noted: each has to be
// there, in its place, with its size and checksum.
func (l *ledger) agree(manifest *pgdata.ManifestReader) error {
	if err := l.writer.Close(); err != nil {
		return err
	}
	notes := bufio.NewReader(flate.NewReader(&l.packed))
	for f, err := range manifest.Files() {
		if err != nil {
			return err
		}
		name, size, sum, err := nextNote(notes, len(f.Checksum))
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the server's manifest has file %q, which it didn't send", f.Path)
		}
		switch {
		case err != nil:
			return err
		case name != f.Path:
			return fmt.Errorf("the server's manifest has file %q where it sent %q", f.Path, name)
		case size != f.Size:
			return fmt.Errorf("file %q came with %d bytes, the server's manifest says %d", name, size, f.Size)
		case !bytes.Equal(sum, f.Checksum):
			return fmt.Errorf("file %q doesn't have the %s checksum of the server's manifest: it was changed on its way", name, f.Algorithm)
		}
	}
	name, _, _, err := nextNote(notes, 0)
	if err == nil {
		err = fmt.Errorf("the server sent file %q, which its manifest doesn't have", name)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
