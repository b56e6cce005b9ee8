package backup

import (
	"archive/tar"
	"fmt"
	"hash"
	"sync/atomic"

	"github.com/walship/walship/pkg/pgdata"
)

// fileSink takes the content of one file of a tar, and enters the file in the
// manifest when it is complete.
type fileSink struct {
	archive  *tar.Writer
	entry    pgdata.ManifestFile
	hash     hash.Hash // nil without checksums
	manifest *manifest // nil for a file that isn't listed
	files    *atomic.Int64
}

// add begins a file. The sink takes as many bytes as the header says.
func (p *partWriter) add(header *tar.Header) (*fileSink, error) {
	if err := p.archive.WriteHeader(header); err != nil {
		return nil, fmt.Errorf("write %s to the part: %w", header.Name, err)
	}
	algorithm := p.run.options.Checksums
	return &fileSink{
		archive: p.archive, manifest: p.run.manifest, files: &p.run.progress.files, hash: algorithm.New(),
		entry: pgdata.ManifestFile{Path: header.Name, Size: header.Size, Modified: header.ModTime, Algorithm: algorithm},
	}, nil
}

// Write adds to the content.
func (s *fileSink) Write(p []byte) (int, error) {
	if s.hash != nil {
		s.hash.Write(p)
	}
	return s.archive.Write(p)
}

// pad adds n zeros.
func (s *fileSink) pad(n int64, buffer []byte) error {
	if n == 0 {
		return nil
	}
	clear(buffer)
	for n > 0 {
		written, err := s.Write(buffer[:min(n, int64(len(buffer)))])
		if err != nil {
			return err
		}
		n -= int64(written)
	}
	return nil
}

func (s *fileSink) close() error {
	if s.hash != nil {
		s.entry.Checksum = s.hash.Sum(nil)
	}
	s.files.Add(1)
	if s.manifest == nil {
		return nil
	}
	return s.manifest.add(s.entry)
}
